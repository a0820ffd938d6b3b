"""Attention against its definition, and every structured mask against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.nn import weight_dropout
from t5x_lite.nn.dot_product import attention_weights, dot_product_attention
from t5x_lite.nn.masks import Mask


def qkv(batch=2, queries=6, keys=8, heads=3, width=4):
  shapes = ((batch, queries, heads, width), (batch, keys, heads, width), (batch, keys, heads, width))
  return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


def by_definition(q, k, v, bias, mask, scale):
  out = np.zeros((*q.shape[:3], v.shape[-1]))
  for b, t, n in np.ndindex(*q.shape[:3]):
    logits = np.array([scale * q[b, t, n] @ k[b, s, n] + bias[0, n, t, s] for s in range(k.shape[1])])
    logits = np.where(mask[b, 0, t], logits, -np.inf)
    weights = np.exp(logits - logits.max())
    out[b, t, n] = (weights / weights.sum()) @ v[b, :, n]
  return out


def test_attention_is_its_definition():
  q, k, v = qkv()
  bias = jax.random.normal(jax.random.key(9), (1, 3, 6, 8))
  mask = jax.random.bernoulli(jax.random.key(8), 0.6, (2, 1, 6, 8)).at[..., 0].set(True)
  got = dot_product_attention(q, k, v, bias=bias, mask=mask, scale=0.7)
  expected = by_definition(*(np.asarray(x, np.float64) for x in (q, k, v, bias)), np.asarray(mask), 0.7)
  np.testing.assert_allclose(got, expected, atol=1e-5)
  weights = attention_weights(q, k, bias=bias, mask=mask, scale=0.7)
  np.testing.assert_allclose(jnp.einsum('bnts,bsnh->btnh', weights, v), expected, atol=1e-5)


def test_attention_dropout_has_the_right_mean_and_one_mask_for_all_queries():
  q, k, v = qkv(batch=1, width=8)
  v = jnp.broadcast_to(jnp.eye(8)[None, :, None, :], (1, 8, 3, 8))  # so that the output is the weights
  plain = dot_product_attention(q, k, v)

  def dropped(seed):
    return dot_product_attention(q, k, v, dropout_rate=0.25, dropout_key=jax.random.key(seed))

  many = jax.vmap(dropped)(jnp.arange(4000))
  np.testing.assert_allclose(many.mean(0), plain, atol=0.02)
  kept = np.asarray(many[:50]) != 0
  assert np.all(kept == kept[:, :, :1])
  np.testing.assert_allclose(np.asarray(many != 0).mean(), 0.75, atol=0.02)


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_its_gradient_is_that_of_its_definition(rate):
  q, k, v = qkv()
  bias = jax.random.normal(jax.random.key(9), (1, 3, 6, 8))
  mask = jax.random.bernoulli(jax.random.key(8), 0.6, (2, 1, 6, 8)).at[..., 0].set(True)
  direction = jax.random.normal(jax.random.key(7), q.shape)
  dropout_key = jax.random.key(6)
  rows, heads, queries, keys = (jax.lax.broadcasted_iota(jnp.int32, (2, 3, 6, 8), axis) for axis in range(4))
  keep = weight_dropout.keep(tuple(weight_dropout.seeds(dropout_key)), rows * 3 + heads, queries, keys, rate)
  assert bool(jnp.all(keep)) == (rate == 0.0)

  def plain(q, k, v, bias):
    weights = jax.nn.softmax(jnp.where(mask, 0.7 * jnp.einsum('btnh,bsnh->bnts', q, k) + bias, -1e30))
    return jnp.sum(direction * jnp.einsum('bnts,bsnh->btnh', jnp.where(keep, weights / (1.0 - rate), 0.0), v))

  def ours(q, k, v, bias):
    dropout = {'dropout_rate': rate, 'dropout_key': dropout_key, 'shared_dropout': False}
    return jnp.sum(direction * dot_product_attention(q, k, v, bias=bias, mask=mask, scale=0.7, **dropout))

  expected, got = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2, 3)))(q, k, v, bias) for f in (plain, ours))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), got, expected)


def test_a_row_with_nothing_to_see_is_finite_and_so_is_its_gradient():
  q, k, v = qkv()
  mask = jnp.zeros((2, 1, 6, 8), bool)
  for key in (None, jax.random.key(0)):
    out, grad = jax.value_and_grad(
      lambda q, key=key: dot_product_attention(q, k, v, mask=mask, dropout_rate=0.1, dropout_key=key).sum()
    )(q)
    assert np.isfinite(out) and np.all(np.isfinite(grad))


def test_no_restriction_needs_no_mask():
  assert Mask().materialise(3, 4) is None


SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 2, 2, 2, 2, 3, 3]], np.int32)
ORDER = np.array([[3, 1, 0, 2, 7, 5, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7]], np.int32)


def same(b, t, s):
  """A query of an example sees that example; padding, which nothing sees, sees all examples."""
  return SEGMENTS[b, s] > 0 and SEGMENTS[b, t] in (0, SEGMENTS[b, s])


PREFIX = np.array([[1, 1, 0, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 0, 1, 0]], bool)


@pytest.mark.parametrize(
  ('mask', 'visible'),
  [
    (Mask(causal=True), lambda b, t, s: s <= t),
    (Mask(causal=True, window=3), lambda b, t, s: t - 3 < s <= t),
    (Mask(window=2), lambda b, t, s: abs(t - s) < 2),
    (Mask(SEGMENTS, SEGMENTS), same),
    (Mask(SEGMENTS, SEGMENTS, causal=True), lambda b, t, s: same(b, t, s) and s <= t),
    (
      Mask(SEGMENTS, SEGMENTS, prefix=PREFIX, causal=True),
      lambda b, t, s: same(b, t, s) and (s <= t or PREFIX[b, s]),
    ),
    (Mask(query_order=ORDER, key_order=ORDER), lambda b, t, s: ORDER[b, s] <= ORDER[b, t]),
    (Mask(query_order=ORDER, key_order=ORDER, see_self=False), lambda b, t, s: ORDER[b, s] < ORDER[b, t]),
  ],
)
def test_structured_masks_mean_what_they_say(mask, visible):
  got = np.broadcast_to(jax.tree.map(jnp.asarray, mask).materialise(8, 8), (2, 1, 8, 8))
  expected = np.array([[[visible(b, t, s) for s in range(8)] for t in range(8)] for b in range(2)])
  np.testing.assert_array_equal(got[:, 0], expected)


def test_an_offset_shifts_the_queries():
  whole = Mask(causal=True, window=3).materialise(8, 8)
  np.testing.assert_array_equal(Mask(causal=True, window=3).materialise(3, 8, 5), whole[:, :, 5:])
