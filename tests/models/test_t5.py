"""Properties of T5 as a whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.models.t5 import T5, T5Config

TINY = {
  'vocab_size': 50, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32,
  'num_encoder_layers': 2, 'num_decoder_layers': 2,
}  # fmt: skip
V1_1 = {'mlp_activations': ('gelu', 'linear'), 'logits_via_embedding': False}


def make_batch(rows=2, inputs=12, targets=9, seed=0):
  rng = np.random.default_rng(seed)
  batch = {}
  for side, length in (('encoder', inputs), ('decoder', targets)):
    batch[f'{side}_input_tokens'] = rng.integers(3, 50, (rows, length)).astype(np.int32)
    batch[f'{side}_segment_ids'] = np.ones((rows, length), np.int32)
    batch[f'{side}_positions'] = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
  return batch


class Jitted:
  """A model whose methods are compiled: a scan that is not jitted is compiled anew at each call."""

  def __init__(self, model):
    self.model = model
    self.apply = jax.jit(model.apply, static_argnames='method')

  def init_cache(self, variables, max_length, *args):
    return jax.jit(lambda v, *args: self.model.apply(v, max_length, *args, method='init_cache'))(variables, *args)


@functools.cache
def make(**kwargs):
  """A model and its parameters, made once for each set of changes: tests leave them as they are."""
  model = T5(T5Config(**{**TINY, **kwargs}))
  return Jitted(model), nn.unbox(jax.jit(model.init)({'params': jax.random.key(0)}, make_batch()))


@pytest.mark.parametrize('flavour', [{}, V1_1])
def test_decoder_does_not_see_the_future_and_sees_the_whole_input(flavour):
  model, variables = make(**flavour)
  batch = make_batch()
  logits = model.apply(variables, batch)
  later = {**batch, 'decoder_input_tokens': batch['decoder_input_tokens'].copy()}
  later['decoder_input_tokens'][:, 5] += 1
  changed = np.any(np.asarray(model.apply(variables, later)) != np.asarray(logits), axis=(0, 2))
  np.testing.assert_array_equal(changed, np.arange(9) >= 5)
  other = {**batch, 'encoder_input_tokens': batch['encoder_input_tokens'].copy()}
  other['encoder_input_tokens'][:, 11] += 1
  assert np.all(np.any(np.asarray(model.apply(variables, other)) != np.asarray(logits), axis=(0, 2)))


@pytest.mark.parametrize('flavour', [{}, V1_1])
def test_packed_equals_not_packed(flavour):
  model, variables = make(**flavour)
  first, second = make_batch(rows=1, inputs=7, targets=4, seed=1), make_batch(rows=1, inputs=4, targets=3, seed=2)
  packed = {}
  for side, length in (('encoder', 12), ('decoder', 9)):
    for name in ('input_tokens', 'segment_ids'):
      parts = [part[f'{side}_{name}'] * (i if name == 'segment_ids' else 1) for i, part in ((1, first), (2, second))]
      row = np.concatenate(parts, axis=1)
      packed[f'{side}_{name}'] = np.pad(row, ((0, 0), (0, length - row.shape[1])))
  logits = model.apply(variables, packed)
  np.testing.assert_allclose(logits[:, :4], model.apply(variables, first), atol=1e-5)
  np.testing.assert_allclose(logits[:, 4:7], model.apply(variables, second), atol=1e-5)


@pytest.mark.parametrize('scan', [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize('flavour', [{}, pytest.param(V1_1, marks=pytest.mark.slow)])
def test_cached_decoding_equals_the_full_forward_pass(flavour, scan):
  model, variables = make(**flavour, scan_layers=scan)
  batch = make_batch()
  batch['encoder_segment_ids'][1, 8:] = 0
  encoded = model.apply(variables, batch, method='encode')
  cache = model.init_cache(variables, 9, encoded, batch['encoder_segment_ids'])
  steps = []
  for t in range(9):
    token = batch['decoder_input_tokens'][:, t : t + 1]
    logits, cache = model.apply(variables, token, cache, method='decode_with_cache')
    steps.append(logits)
  np.testing.assert_allclose(np.concatenate(steps, axis=1), model.apply(variables, batch), atol=1e-5)


def test_padding_of_the_input_changes_nothing():
  model, variables = make()
  batch = make_batch()
  padded = {**batch}
  for name in ('input_tokens', 'segment_ids', 'positions'):
    padded[f'encoder_{name}'] = np.pad(batch[f'encoder_{name}'], ((0, 0), (0, 5)))
  np.testing.assert_allclose(model.apply(variables, padded), model.apply(variables, batch), atol=1e-5)


@pytest.mark.parametrize('flavour', [{}, V1_1])
def test_bfloat16_is_near_float32_and_returns_float32_logits(flavour):
  model, variables = make(**flavour)
  half = Jitted(T5(T5Config(**{**TINY, **flavour, 'dtype': 'bfloat16'})))
  exact, rounded = model.apply(variables, make_batch()), half.apply(variables, make_batch())
  assert rounded.dtype == jnp.float32
  assert float(jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact)) < 0.05


# Published sizes; the counts are those of Hugging Face's checkpoints (vocabulary padded to 32128).
SIZES = {
  't5-small': ({}, 60_506_624),
  't5-base': (
    {'emb_dim': 768, 'mlp_dim': 3072, 'num_heads': 12, 'num_encoder_layers': 12, 'num_decoder_layers': 12},
    222_903_552,
  ),
  't5-v1_1-small': (
    {**V1_1, 'mlp_dim': 1024, 'num_heads': 6, 'num_encoder_layers': 8, 'num_decoder_layers': 8},
    76_961_152,
  ),
}


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('scan', [True, False])
def test_parameter_count_is_that_of_the_published_checkpoint(size, scan):
  dimensions, count = SIZES[size]
  model = T5(T5Config(**dimensions, scan_layers=scan))
  shapes = jax.eval_shape(model.init, {'params': jax.random.key(0)}, make_batch())
  assert tree.count_parameters(nn.unbox(shapes)) == count


def test_flops_are_those_of_the_products_in_the_program():
  """Against XLA's own count of the forward pass, unrolled so that it counts every layer."""
  config = T5Config(vocab_size=4096, num_encoder_layers=2, num_decoder_layers=2, scan_layers=False)
  model, batch = T5(config), make_batch(rows=2, inputs=64, targets=32)
  shapes = nn.unbox(jax.eval_shape(model.init, {'params': jax.random.key(0)}, batch))
  counted = jax.jit(model.apply).lower(shapes, batch).compile().cost_analysis()['flops']
  spec = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  forward = model.flops_per_step(spec) / 3
  assert 0.95 < forward / counted <= 1.0  # XLA also counts norms, softmax and the bias


@pytest.mark.parametrize(
  ('values', 'told'),
  [
    ({'dtype': 'float16'}, "'float16': expected 'float32' or 'bfloat16'"),
    ({'vocab_size': 0}, 'vocab_size is 0: expected at least 1'),
    ({'num_encoder_layers': -1}, 'num_encoder_layers is -1: expected at least 1'),
    ({'dropout_rate': 1.5}, 'dropout rate is 1.5: expected at least 0 and less than 1'),
    ({'mlp_activations': ()}, 'expected one activation'),
    ({'mlp_activations': ('gelu', 'liner')}, "did you mean 'linear'"),
  ],
)
def test_impossible_values_are_refused(values, told):
  with pytest.raises(UsageError, match=told):
    T5Config(**values)
