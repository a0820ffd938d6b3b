"""Local attention in blocks is attention under the same mask as one array."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.nn import local_attention
from t5x_lite.nn.dot_product import dot_product_attention
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.transformer import BlockConfig, Context, Stack

ATTEND = functools.partial(dot_product_attention, scale=0.3)


def inputs(length, kv_heads=2):
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(k, (2, length, heads, 4)) for k, heads in zip(keys, (2, kv_heads, kv_heads), strict=True)]


def rows(length):
  """A row of one example, and one of two examples and padding."""
  cut = length // 3
  segments = np.ones((2, length), np.int32)
  segments[1, cut:], segments[1, -4:] = 2, 0
  positions = np.tile(np.arange(length, dtype=np.int32), (2, 1))
  positions[1, cut:] -= cut
  return jnp.asarray(segments), jnp.asarray(positions)


def assert_blocks_are_the_full_mask(mask, segments, *arrays):
  length = segments.shape[1]

  @jax.jit
  def both(*arrays):
    blocked = local_attention.local_attention(*arrays, mask, ATTEND)
    return blocked, ATTEND(*arrays, mask=mask.materialise(length, length))

  real = (segments > 0)[..., None, None]
  blocked, full = (np.where(real, out, 0) for out in both(*arrays))
  np.testing.assert_allclose(blocked, full, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('num_global', [0, 2])
@pytest.mark.parametrize(('length', 'window'), [(24, 4), (25, 4), (31, 7), (13, 1)])
def test_blocks_equal_the_full_mask(causal, num_global, length, window):
  segments, positions = rows(length)
  mask = Mask.local(segments, positions, window=window, num_global=num_global, max_everywhere=5)
  mask = Mask(segments, segments, everywhere=mask.everywhere, causal=causal, window=window, max_everywhere=5)
  assert local_attention.fits(mask, length)
  query, key, value = inputs(length)

  assert_blocks_are_the_full_mask(mask, segments, query, key, value)


def test_more_global_positions_than_a_row_may_have_are_ordinary_ones():
  segments, positions = rows(24)
  mask = Mask.local(segments, positions, window=4, num_global=3, max_everywhere=4)
  assert np.array_equal(np.sum(mask.everywhere, axis=1), [3, 4])
  query, key, value = inputs(24)
  assert_blocks_are_the_full_mask(mask, segments, query, key, value)


def test_grouped_heads_go_through_blocks():
  segments, positions = rows(24)
  mask = Mask.local(segments, positions, window=4, num_global=1, max_everywhere=4)
  query, key, value = inputs(24, kv_heads=1)
  assert_blocks_are_the_full_mask(mask, segments, query, key, value)


def largest_array(mask, length):
  """Elements of the largest array in a stack's forward pass."""
  stack = Stack(BlockConfig(features=8, num_heads=2, head_dim=4, mlp_dim=8), num_layers=1)
  x, context = jax.ShapeDtypeStruct((2, length, 8), jnp.float32), Context(mask=mask)
  params = jax.eval_shape(lambda x: stack.init({'params': jax.random.key(0)}, x, context), x)
  jaxpr = jax.make_jaxpr(lambda params, x: stack.apply(params, x, context)[0])(params, x).jaxpr
  return max(int(np.prod(var.aval.shape)) for eqn in _equations(jaxpr) for var in eqn.outvars)


def test_a_long_row_never_makes_an_array_of_length_times_length():
  length = 4096
  segments, positions = rows(length)
  local = Mask.local(segments, positions, window=64, num_global=1, max_everywhere=4)
  assert largest_array(local, length) < length * length
  assert largest_array(Mask(segments, segments), length) >= length * length  # so that one would be seen


def _equations(jaxpr):
  for eqn in jaxpr.eqns:
    yield eqn
    for value in jax.tree.leaves(eqn.params, is_leaf=lambda leaf: hasattr(leaf, 'eqns') or hasattr(leaf, 'jaxpr')):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from _equations(inner)
