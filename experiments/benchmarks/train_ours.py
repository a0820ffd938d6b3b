"""Our side of `train_step.py`: one arm, in a process of its own."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import train_works
from train_works import Work


def learner_and_spec(work: Work, dtype: str, scan_layers: bool, remat_policy: str = 'none'):
  """What is trained and the shapes of its batch; model, optimiser and loss as in the gin files of the family."""
  from t5x_lite.data import features
  from t5x_lite.models.bert import Bert, BertConfig
  from t5x_lite.models.gpt import Gpt, GptConfig
  from t5x_lite.models.t5 import T5, T5Config
  from t5x_lite.training import optimizers
  from t5x_lite.training.learner import Learner

  flavour = {'dtype': dtype, 'scan_layers': scan_layers, 'remat_policy': remat_policy}
  flavour |= {'dropout_rate': train_works.DROPOUT, 'head_dim': 64}
  shape = dataclasses.asdict(work.shape)
  if work.model == 't5':
    shape['num_encoder_layers'] = shape['num_decoder_layers'] = shape.pop('num_layers')
  if work.model == 't5':
    lengths = {'inputs': work.length, 'targets': work.targets}
    spec = features.batch_spec(features.EncoderDecoderFeatures(), lengths, work.rows)
    module = T5(T5Config(vocab_size=train_works.T5_VOCABULARY, **shape, **flavour))
    return Learner(module, optimizers.adafactor(1e-3), 1e-3, z_loss=1e-4), spec
  shared = {'learning_rate': 1e-4, 'loss_normalizing_factor': 'NUM_REAL_TARGET_TOKENS'}
  optimizer = optimizers.adamw(1e-4, max_grad_norm=1.0)
  if work.model == 'bert':
    spec = features.batch_spec(features.EncoderOnlyFeatures(sentence_pairs=True), {'inputs': work.length}, work.rows)
    module = Bert(BertConfig(vocab_size=train_works.BERT_VOCABULARY, **shape, **flavour))
    return Learner(module, optimizer, max_predictions=work.predicted, **shared), spec
  spec = features.batch_spec(features.DecoderOnlyFeatures(start_id=0), {'targets': work.length}, work.rows)
  module = Gpt(GptConfig(vocab_size=train_works.GPT2_VOCABULARY, **shape, **flavour))
  return Learner(module, optimizer, **shared), spec


def random_batch(spec: dict, predicted: int | None) -> dict[str, np.ndarray]:
  """Random tokens; every position is a target, or the first `predicted` of every row, and every row has a label."""
  rng = np.random.default_rng(0)
  batch = {}
  for name, leaf in spec.items():
    if name.endswith('tokens'):
      value = rng.integers(5, 30000, leaf.shape)
    elif name.endswith('positions'):
      value = np.broadcast_to(np.arange(leaf.shape[1]), leaf.shape)
    elif name.endswith('segment_ids'):
      value = np.ones(leaf.shape)
    elif name.endswith('label_weights'):
      value = np.broadcast_to(np.arange(leaf.shape[1]) == 0, leaf.shape)
    elif name.endswith('loss_weights'):
      value = np.broadcast_to(np.arange(leaf.shape[1]) < (predicted or leaf.shape[1]), leaf.shape)
    else:
      value = np.zeros(leaf.shape)
    batch[name] = np.ascontiguousarray(value.astype(leaf.dtype))
  return batch


def main() -> None:
  parser = train_works.parser()
  parser.add_argument('--layers', choices=train_works.LAYERS)
  args = parser.parse_args()
  import jax

  from t5x_lite.partitioning.mesh import MeshShape, make_mesh
  from t5x_lite.training import flops
  from t5x_lite.training.steps import Trainer

  work, (device, *_) = train_works.work_of(args), jax.devices()
  assert device.platform == args.platform, device
  remat_policy = 'minimal' if args.layers == 'remat' else 'none'
  learner, spec = learner_and_spec(work, args.dtype, args.layers != 'unrolled', remat_policy)
  trainer = Trainer(learner, make_mesh(MeshShape()), spec)
  start = time.perf_counter()
  trainer.compile()
  compile_seconds = time.perf_counter() - start
  batch = trainer.shard_batch(random_batch(spec, learner.max_predictions))
  state = trainer.init(0)

  def step() -> None:
    nonlocal state
    state, metrics = trainer.train_step(state, batch)
    jax.block_until_ready((state, metrics))

  found = train_works.time_steps(step, args.steps, args.limit)
  _, metrics = trainer.train_step(state, batch)
  train_works.report(
    found,
    compile=round(compile_seconds, 1),
    flops=learner.module.flops_per_step(spec),
    loss=round(float(metrics['loss']), 3),
    device=device.device_kind,
    peak_flops=None if args.platform == train_works.CPU else flops.peak_flops(device),
    device_bytes=None if args.platform == train_works.CPU else device.memory_stats()['peak_bytes_in_use'],
    versions=f'jax {jax.__version__}',
  )


if __name__ == '__main__':
  main()
