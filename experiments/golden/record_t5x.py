"""Records what T5X's own networks compute: `python experiments/golden/record_t5x.py T5X_CHECKOUT TARGET.npz`.

Needs a checkout of google-research/t5x and what its two networks import, jax and flax, and none of our own code. The
networks' modules are loaded from their files, past T5X's packages, which import TensorFlow. The file holds

    t5x_commit, flax_version
    cases         JSON: by name, the network, the fields of its config, and the shapes of its parameters by their path
    CASE/params   the parameters one after the other in that order, float16, drawn anew so that every term shows in the
                  logits; used as float32
    in/NAME       the batch, int32, the same for all cases
    CASE/logits   float32 [B, T, V]
"""

from __future__ import annotations

import importlib
import json
import pathlib
import subprocess
import sys
import types

import flax
import jax
import numpy as np
from flax import traverse_util

SIZES = {
  'vocab_size': 23,
  'emb_dim': 8,
  'num_heads': 3,
  'head_dim': 4,
  'mlp_dim': 10,
  'num_encoder_layers': 2,
  'num_decoder_layers': 2,
  'dropout_rate': 0.0,
}
GATED = {'mlp_activations': ('gelu', 'linear'), 'logits_via_embedding': False}
PLAIN = {'mlp_activations': ('relu',), 'logits_via_embedding': True}
CASES = {
  't5_1_0': ('t5', PLAIN),
  't5_1_1': ('t5', GATED),
  'scanned_1_0': ('scalable_t5', PLAIN),
  'scanned_1_1': ('scalable_t5', GATED),
  'unrolled_1_1': ('scalable_t5', {**GATED, 'scan_layers': False}),
}
ENCODER_LENGTH, DECODER_LENGTH = 140, 9  # some distances are beyond the last bucket's 128


def load_network(checkout: pathlib.Path, example: str) -> types.ModuleType:
  """`t5x.examples.EXAMPLE.network`, without the code of the packages that hold it."""
  for name in ('t5x', 't5x.examples', f't5x.examples.{example}'):
    package = types.ModuleType(name)
    package.__path__ = [str(checkout / name.replace('.', '/'))]
    sys.modules[name] = package
  return importlib.import_module(f't5x.examples.{example}.network')


def batch() -> dict[str, np.ndarray]:
  """A row of two examples, and a row of one with padding."""
  rng = np.random.default_rng(0)
  segments = {'encoder': np.zeros((2, ENCODER_LENGTH), np.int32), 'decoder': np.zeros((2, DECODER_LENGTH), np.int32)}
  for side, first in (('encoder', 90), ('decoder', 4)):
    segments[side][0, :first], segments[side][0, first:] = 1, 2
    segments[side][1, : segments[side].shape[1] - 3] = 1
  arrays = {f'{side}_segment_ids': ids for side, ids in segments.items()}
  for name in ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens'):
    ids = segments[name.split('_')[0]]
    arrays[name] = np.where(ids > 0, rng.integers(1, SIZES['vocab_size'], ids.shape), 0).astype(np.int32)
  return arrays


def draw(shapes: dict[str, jax.ShapeDtypeStruct], scanned: bool) -> dict[str, np.ndarray]:
  """Parameters. The position biases of all layers are one: as in `t5`, and in what is converted from it."""
  rng = np.random.default_rng(1)
  params = {}
  for name, leaf in sorted(shapes.items()):
    around = 1.0 if name.endswith('scale') else 0.0
    params[name] = (around + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float16)
    if name.endswith('rel_embedding'):
      heads, *_, buckets = leaf.shape
      table = np.random.default_rng(name.startswith('encoder')).standard_normal((heads, buckets))
      table = table[:, None] if scanned else table
      params[name] = np.broadcast_to(table, leaf.shape).astype(np.float16)
  return params


def main(checkout: str, target: str) -> None:
  """Records all cases."""
  root, inputs = pathlib.Path(checkout), batch()
  arrays: dict[str, np.ndarray] = {f'in/{name}': value for name, value in inputs.items()}
  described = {}
  for case, (example, flavour) in CASES.items():
    network = load_network(root, example)
    module = network.Transformer(network.T5Config(**SIZES, **flavour))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), **inputs, enable_dropout=False))['params']  # noqa: B023
    params = draw(traverse_util.flatten_dict(dict(shapes), sep='/'), flavour.get('scan_layers', example != 't5'))
    tree = traverse_util.unflatten_dict({name: value.astype(np.float32) for name, value in params.items()}, sep='/')
    logits = module.apply({'params': tree}, **inputs, enable_dropout=False)
    arrays[f'{case}/params'] = np.concatenate([value.reshape(-1) for value in params.values()])
    arrays[f'{case}/logits'] = np.asarray(logits)
    shapes = {name: value.shape for name, value in params.items()}
    described[case] = {'network': example, 'config': {**SIZES, **flavour}, 'shapes': shapes}
  commit = subprocess.run(['git', '-C', checkout, 'rev-parse', 'HEAD'], capture_output=True, text=True).stdout.strip()
  arrays['t5x_commit'] = np.asarray(commit or 'unknown')
  arrays['flax_version'] = np.asarray(flax.__version__)
  arrays['cases'] = np.asarray(json.dumps(described))
  np.savez_compressed(target, **arrays)


if __name__ == '__main__':
  main(*sys.argv[1:])
