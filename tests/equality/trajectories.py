"""Training runs that must be alike: tiny models of every family, ways to arrange them, and the losses they leave.

As a program it is one process of several, which prints its losses: see `main`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import Trainer

ROWS, LENGTH, VOCAB = 16, 16, 64
SIZES = {'vocab_size': VOCAB, 'emb_dim': 16, 'num_heads': 4, 'head_dim': 4, 'mlp_dim': 32}
ONE_STACK = SIZES | {'num_layers': 2, 'dropout_rate': 0.0}
LEARNED = ONE_STACK | {'max_length': LENGTH}
LLAMA = ONE_STACK | {
  'num_heads': 8,
  'num_kv_heads': 4,
  'norm': 'rms',
  'positions': 'rotary',
  'mlp_activations': ('silu', 'linear'),
  'use_bias': False,
  'logits_via_embedding': False,
}
FAMILIES: dict[str, Any] = {
  't5': T5(T5Config(**SIZES, num_encoder_layers=2, num_decoder_layers=2)),
  'bert': Bert(BertConfig(**LEARNED)),
  'gpt': Gpt(GptConfig(**LEARNED)),
  'xlnet': Xlnet(XlnetConfig(**ONE_STACK)),
  'llama': Gpt(GptConfig(**LLAMA)),
  # In blocks, which are not whole and not as many as parts of the length; with positions that see everything.
  'local': Bert(BertConfig(**LEARNED, num_kv_heads=2, attention_window=3)),
  'gpt3': Gpt(GptConfig(**LEARNED, layer_pattern=('dense', 'local'), attention_window=3)),
  # Room for all tokens of a row in any expert: nothing is dropped.
  'experts': Gpt(GptConfig(**LLAMA, num_experts=4, experts_per_token=2, capacity_factor=4.0)),
}


class Arrangement(NamedTuple):
  """How a run is laid out, which must not change what it computes.

  Attributes:
    shape: of the mesh, None for one device alone.
    learner: fields of the learner.
    config: fields of the model's configuration.
  """

  shape: MeshShape | None = None
  learner: Mapping[str, Any] = {}
  config: Mapping[str, Any] = {}


MIXED = MeshShape(data=2, fsdp=2, tensor=2)
ALONE = 'one device'
ARRANGEMENTS = {
  ALONE: Arrangement(),
  'data': Arrangement(MeshShape(data=8)),
  'fsdp': Arrangement(MeshShape(data=1, fsdp=8)),
  'tensor': Arrangement(MeshShape(data=2, tensor=4)),
  'mixed': Arrangement(MIXED),
  'sequence': Arrangement(MeshShape(data=2, sequence=4)),
  'tensor and sequence': Arrangement(MeshShape(data=1, fsdp=2, tensor=2, sequence=2)),
  'slices': Arrangement(MeshShape(slices=2, data=1, fsdp=4)),
  'microbatches': Arrangement(MIXED, learner={'num_microbatches': 4}),
  'vocabulary in chunks': Arrangement(MIXED, learner={'vocab_chunk': 32}),
  'unrolled': Arrangement(MIXED, config={'scan_layers': False}),
  'remat': Arrangement(MIXED, config={'remat_policy': 'full'}),
  'blockwise attention': Arrangement(MIXED, config={'attention': 'blockwise'}),
  'predicted positions': Arrangement(MIXED, learner={'max_predictions': LENGTH - 1}),
  'experts': Arrangement(MeshShape(data=2, expert=4)),
  'all but sequence': Arrangement(MeshShape(data=1, fsdp=2, tensor=2, expert=2)),
  # The load-balancing loss is no sum over rows: it asks for even shares in every microbatch.
  'microbatches of experts': Arrangement(MIXED, learner={'num_microbatches': 4}, config={'load_balancing_loss': 0.0}),
}
OF_EXPERTS = ('experts', 'all but sequence', 'microbatches of experts')
NOT_OF_XLNET = ('blockwise attention',)  # its attention is its own
VARIANTS = ('llama', 'local', 'gpt3', 'experts')
OF_VARIANTS = ('mixed', 'tensor and sequence')


def cross() -> list[tuple[str, str]]:
  """Families and arrangements that are compared with one device: all for the four families, some for their variants."""
  pairs = []
  for family in FAMILIES:
    names = OF_VARIANTS if family in VARIANTS else [n for n in ARRANGEMENTS if n not in OF_EXPERTS]
    left_out = (ALONE, *NOT_OF_XLNET) if family == 'xlnet' else (ALONE,)
    pairs += [(family, name) for name in names if name not in left_out]
  return pairs + [('experts', name) for name in OF_EXPERTS]


def _side(side: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Rows of two segments and padding, loss weights not all 1."""
  shape = (ROWS, LENGTH)
  segments, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  for row in range(ROWS):
    first, second = rng.integers(3, 9), rng.integers(2, 7)
    segments[row, :first], segments[row, first : first + second] = 1, 2
    positions[row, :first], positions[row, first : first + second] = np.arange(first), np.arange(second)
  weights = (segments > 0) * rng.choice([0.0, 0.5, 1.0], shape, p=[0.1, 0.2, 0.7])
  # Some tokens are much more frequent than others: there is something to learn at once.
  tokens = np.minimum(rng.geometric(0.2, (2, *shape)), VOCAB - 1).astype(np.int32)
  return {
    f'{side}_input_tokens': tokens[0],
    f'{side}_target_tokens': tokens[1],
    f'{side}_loss_weights': weights.astype(np.float32),
    f'{side}_segment_ids': segments,
    f'{side}_positions': positions,
  }


def make_batch(module: Any, seed: int) -> dict[str, np.ndarray]:
  """A batch of the keys that the family reads."""
  rng = np.random.default_rng(seed)
  if isinstance(module, Bert):
    batch = _side('encoder', rng)
    first = (batch['encoder_positions'] == 0) & (batch['encoder_segment_ids'] > 0)
    return batch | {
      'encoder_token_type_ids': rng.integers(0, 2, (ROWS, LENGTH)).astype(np.int32),
      'encoder_label': (rng.integers(0, 2, (ROWS, LENGTH)) * first).astype(np.int32),
      'encoder_label_weights': first.astype(np.float32),
    }
  batch = _side('decoder', rng)
  if isinstance(module, T5):
    return batch | _side('encoder', rng)
  if isinstance(module, Xlnet):
    order = rng.permuted(np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)), axis=1)
    return batch | {'decoder_order': order, 'decoder_token_type_ids': batch['decoder_segment_ids'] % 2}
  return batch


def make_trainer(family: str, arrangement: Arrangement) -> Trainer:
  """The trainer of a family, arranged."""
  module = FAMILIES[family]
  module = type(module)(dataclasses.replace(module.config, **arrangement.config))
  optimizer = optimizers.adafactor(0.03, min_dim_size_to_factor=8) if family == 't5' else optimizers.adamw(3e-3)
  learner = Learner(
    module, optimizer, 0.0, z_loss=1e-4, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS', **arrangement.learner
  )
  spec = {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in make_batch(module, 0).items()}
  devices = jax.devices()[:1] if arrangement.shape is None else None
  return Trainer(learner, make_mesh(arrangement.shape, devices), spec)


def unstacked(params: Any) -> Any:
  """Parameters of scanned layers as those of unrolled ones."""
  if not isinstance(params, dict):
    return params
  made = {}
  for name, value in params.items():
    if name == 'layers':
      count = jax.tree.leaves(value)[0].shape[0]
      made |= {f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(count)}
    else:
      made[name] = unstacked(value)
  return made


@functools.cache
def first_state(family: str) -> TrainState:
  """Step 0 of scanned layers, drawn on one device, on the host."""
  return jax.tree.map(np.asarray, make_trainer(family, ARRANGEMENTS[ALONE]).init(0))


def placed_state(trainer: Trainer, family: str) -> TrainState:
  """The same, wherever `trainer` has it: no other program need be compiled. All optimisers here begin with zeros."""
  first, abstract = first_state(family), trainer.abstract_state
  scanned = trainer.learner.module.config.scan_layers
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract.opt_state)
  params = first.params if scanned else unstacked(first.params)
  return jax.device_put(first.replace(params=params, opt_state=zeros), trainer.state_shardings)


def train(trainer: Trainer, state: TrainState, steps: Iterable[int]) -> tuple[TrainState, list[float]]:
  """The state after those steps and the loss of each."""
  found, rows = [], trainer.process_rows()
  for step in steps:
    batch = {name: array[rows] for name, array in make_batch(trainer.learner.module, step).items()}
    state, metrics = trainer.train_step(state, trainer.shard_batch(batch))
    found.append(float(metrics['loss']))
  return state, found


def losses(family: str, arrangement: Arrangement, steps: int) -> list[float]:
  """The loss of every step."""
  trainer = make_trainer(family, arrangement)
  return train(trainer, placed_state(trainer, family), range(steps))[1]


def main(families: str, name: str, steps: str, index: str, count: str, port: str) -> None:
  """One of `count` processes that have eight devices together: prints a line with the losses of each family."""
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', 8 // int(count))
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'127.0.0.1:{port}', int(count), int(index))
  for family in families.split(','):
    trainer = make_trainer(family, ARRANGEMENTS[name])
    _, found = train(trainer, trainer.init(0), range(int(steps)))
    print(f'losses of {family}: {json.dumps(found)}', flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
