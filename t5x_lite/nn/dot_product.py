"""Attention in plain array operations, which XLA fuses: the reference that the kernels are held against.

Its backward pass is written out. Differentiated by JAX, the softmax costs two more passes over an array of T x S, and
half of the products read one transposed, which XLA's CPU backend copies first.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from t5x_lite.core import axes
from t5x_lite.core.products import ATTENTION
from t5x_lite.nn import weight_dropout

Arrays = TypeVar('Arrays')

_SLOTS = (axes.ACT_BATCH, axes.ACT_HEADS, axes.ACT_KEY_LENGTH, axes.ACT_KV)
_KEYS = (axes.ACT_BATCH, axes.ACT_KEY_LENGTH, axes.ACT_HEADS, axes.ACT_KV)


def dot_product_attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  bias: jax.Array | None = None,
  mask: jax.Array | None = None,
  scale: float = 1.0,
  dropout_rate: float = 0.0,
  dropout_key: jax.Array | None = None,
  shared_dropout: bool = True,
) -> jax.Array:
  """Softmax attention with float32 logits and softmax (Vaswani et al. 2017, sec. 3.2.1).

  A row with nothing to attend to returns a mean of the values: the loss must not count it.

  Args:
    query: `[B, T, N, H]`.
    key: `[B, S, K, H]`, where K divides N: queries n K / N to (n + 1) K / N - 1 share a head (Ainslie et al. 2023).
    value: `[B, S, K, H]`.
    bias: added to the logits, broadcastable to `[B, N, T, S]`.
    mask: bool, True where visible, broadcastable to `[B, N, T, S]`.
    scale: factor on the logits before the bias; 1.0 in T5, 1/sqrt(H) elsewhere.
    dropout_rate: dropout on the attention weights.
    dropout_key: key for it; None turns it off.
    shared_dropout: one mask for all queries of a row and head (T5X), or one for each weight (BERT).

  Returns:
    `[B, T, N, H]` in the dtype of `query`.
  """
  if dropout_key is not None and dropout_rate and shared_dropout:
    key = repeat_heads(key, query.shape[2])
    value, dropout_key = drop_values(repeat_heads(value, query.shape[2]), dropout_rate, dropout_key), None
  if dropout_key is None or dropout_rate == 0.0:
    if key.shape[2] != query.shape[2]:
      # JAX's own repeats no key or value of a shared head. It promotes bfloat16 to float32 implicitly.
      with jax.numpy_dtype_promotion('standard'):
        return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale, implementation='xla')
    seed = None
  else:
    seed = weight_dropout.seeds(dropout_key)
  return _mix(dropout_rate, _logits(query, key, bias, mask, scale), repeat_heads(value, query.shape[2]), seed)


def drop_values(value: jax.Array, dropout_rate: float, dropout_key: jax.Array) -> jax.Array:
  """Values `[B, S, N, H]` of which whole vectors are dropped out, the others scaled up.

  That is what one dropout mask of the weights for all queries of a row and head comes to, since the weights of a key
  only ever multiply its value. So every kernel can have T5X's dropout, and no array of T x S is needed for it.
  """
  batch, keys, heads, _ = value.shape
  keep = jax.random.bernoulli(dropout_key, 1.0 - dropout_rate, (batch, heads, 1, keys))
  keep = keep.transpose(0, 3, 1, 2)
  return jnp.where(keep, value / (1.0 - dropout_rate), jnp.zeros((), value.dtype))


def attention_weights(
  query: jax.Array,
  key: jax.Array,
  *,
  bias: jax.Array | None = None,
  mask: jax.Array | None = None,
  scale: float = 1.0,
) -> jax.Array:
  """The attention probabilities, float32 `[B, N, T, S]`, in plain einsum; arguments as in `dot_product_attention`."""
  return jax.nn.softmax(_logits(query, key, bias, mask, scale), axis=-1)


def _logits(
  query: jax.Array, key: jax.Array, bias: jax.Array | None, mask: jax.Array | None, scale: float
) -> jax.Array:
  """float32 `[B, N, T, S]`, of whatever is masked very low."""
  logits = _products(query, repeat_heads(key, query.shape[2])) * scale
  if bias is not None:
    logits += bias.astype(logits.dtype)
  return logits if mask is None else jnp.where(mask, logits, 0.7 * float(jnp.finfo(jnp.float32).min))


@jax.custom_vjp
def _products(query: jax.Array, key: jax.Array) -> jax.Array:
  """Every query with every key, `[B, N, T, S]`, at least float32."""
  return _einsum('btnh,bsnh->bnts', query, key)


def _products_backward(inputs: tuple[jax.Array, jax.Array], d_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  query, key = inputs
  d_logits = d_logits.astype(query.dtype)
  d_query = _einsum('bnts,bsnh->btnh', d_logits, key)
  return d_query.astype(query.dtype), _over_queries(query, d_logits).astype(key.dtype)


_products.defvjp(lambda query, key: (_products(query, key), (query, key)), _products_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix(dropout_rate: float, logits: jax.Array, value: jax.Array, seed: jax.Array | None) -> jax.Array:
  """Softmax of the logits, dropout of single weights where there is a seed, and the mean of the values by them."""
  return _mix_forward(dropout_rate, logits, value, seed)[0]


def _mix_forward(
  dropout_rate: float, logits: jax.Array, value: jax.Array, seed: jax.Array | None
) -> tuple[jax.Array, tuple]:
  weights = checkpoint_name(jax.nn.softmax(logits, axis=-1), ATTENTION)
  dropped = _dropped(weights, seed, dropout_rate).astype(value.dtype)
  mixed = checkpoint_name(_einsum('bnts,bsnh->btnh', dropped, value).astype(value.dtype), ATTENTION)
  return mixed, (weights, value, seed, mixed)


def _mix_backward(dropout_rate: float, residuals: tuple, d_mixed: jax.Array) -> tuple:
  weights, value, seed, mixed = residuals
  d_value = _over_queries(d_mixed, _dropped(weights, seed, dropout_rate).astype(value.dtype)).astype(value.dtype)
  d_weights = _dropped(_einsum('btnh,bsnh->bnts', d_mixed, value), seed, dropout_rate)
  # The sum of weights times their gradients, over the keys of a query, is that of the output times its gradient (Dao et
  # al. 2022, appendix B.2), with dropout too.
  total = jnp.einsum('btnh,btnh->bnt', d_mixed.astype(weights.dtype), mixed.astype(weights.dtype))
  return weights * (d_weights - total[..., None]), d_value, None


_mix.defvjp(_mix_forward, _mix_backward)


def _dropped(weights: jax.Array, seed: jax.Array | None, dropout_rate: float) -> jax.Array:
  """Weights `[B, N, T, S]` after dropout, whose mask is made anew wherever it is needed: quicker than reading it."""
  if seed is None:
    return weights
  rows, heads, queries, keys = (jax.lax.broadcasted_iota(jnp.int32, weights.shape, axis) for axis in range(4))
  keep = weight_dropout.keep((seed[0], seed[1]), rows * weights.shape[1] + heads, queries, keys, dropout_rate)
  return jnp.where(keep, weights / (1.0 - dropout_rate), 0.0)


def _over_queries(x: jax.Array, by_key: jax.Array) -> jax.Array:
  """`[B, S, N, H]`, the sum over T of `[B, T, N, H]` and `[B, N, T, S]`, in an order that reads the latter as it is."""
  return _einsum('btnh,bnts->bnhs', x, by_key).transpose(0, 3, 1, 2)


def _einsum(letters: str, x: jax.Array, y: jax.Array) -> jax.Array:
  dtype: Any = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
  return jnp.einsum(letters, x, y, preferred_element_type=dtype)


def repeat_heads(x: jax.Array, num_heads: int) -> jax.Array:
  """`[B, S, K, H]` with each head repeated for all queries that share it: `[B, S, num_heads, H]`."""
  return x if x.shape[2] == num_heads else jnp.repeat(x, num_heads // x.shape[2], axis=2)


def whole_length(past: Arrays) -> Arrays:
  """Keys and values, arrays `[B, S, K, H]` in any tree, with all positions on every device.

  On a mesh that cuts the length (`sequence`) queries stay cut, and so do logits `[B, N, T, S]` along T: of the two
  sides of attention this is the one that is gathered, and with grouped heads it is the smaller one.
  """
  return jax.tree.map(lambda x: nn.with_logical_constraint(x, _KEYS), past)


def whole_slots(past: Arrays) -> Arrays:
  """The same of the arrays `[B, K, S, H]` of a cache."""
  return jax.tree.map(lambda x: nn.with_logical_constraint(x, _SLOTS), past)
