"""Attention in plain array operations, which XLA fuses: the reference that the kernels are held against."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes

Arrays = TypeVar('Arrays')

_SLOTS = (axes.ACT_BATCH, axes.ACT_HEADS, axes.ACT_KV, axes.ACT_KEY_LENGTH)
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
    # Its own code promotes bfloat16 to float32 implicitly.
    with jax.numpy_dtype_promotion('standard'):
      return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale, implementation='xla')
  weights = attention_weights(query, key, bias=bias, mask=mask, scale=scale)
  keep = jax.random.bernoulli(dropout_key, 1.0 - dropout_rate, weights.shape)
  weights = jnp.where(keep, weights / (1.0 - dropout_rate), 0.0)
  return jnp.einsum('bnts,bsnh->btnh', weights.astype(value.dtype), repeat_heads(value, weights.shape[1]))


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
  key = repeat_heads(key, query.shape[2])
  logits = jnp.einsum('btnh,bsnh->bnts', query, key, preferred_element_type=jnp.float32) * scale
  if bias is not None:
    logits += bias.astype(jnp.float32)
  if mask is not None:
    logits = jnp.where(mask, logits, 0.7 * jnp.finfo(jnp.float32).min)
  return jax.nn.softmax(logits, axis=-1)


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
  """The same of the arrays `[B, K, H, S]` of a cache."""
  return jax.tree.map(lambda x: nn.with_logical_constraint(x, _SLOTS), past)
