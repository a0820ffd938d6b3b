"""Multi-head attention: one function for every model, and the module that projects into and out of it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.nn import local_attention
from t5x_lite.nn.cache import KVCache
from t5x_lite.nn.linear import Dense, Initializer, fan_in_init
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.positions import rotate

_HEADS = (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_HEADS, axes.ACT_KV)


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
  if dropout_key is None or dropout_rate == 0.0:
    # Chooses a fused kernel where the platform has one that fits. Its own code promotes bfloat16 to float32 implicitly.
    with jax.numpy_dtype_promotion('standard'):
      return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale)
  weights = attention_weights(query, key, bias=bias, mask=mask, scale=scale)
  batch, heads, _, keys = weights.shape
  masks = 1 if shared_dropout else query.shape[1]
  keep = jax.random.bernoulli(dropout_key, 1.0 - dropout_rate, (batch, heads, masks, keys))
  weights = jnp.where(keep, weights / (1.0 - dropout_rate), 0.0)
  return jnp.einsum('bnts,bsnh->btnh', weights.astype(value.dtype), repeat_heads(value, heads))


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


class MultiHeadAttention(nn.Module):
  """Self- or cross-attention, over a whole sequence or step by step through a cache.

  Attributes:
    num_heads: N.
    head_dim: H; N * H need not equal the model width (T5 3B).
    features: width D of the output.
    num_kv_heads: K, heads of keys and values; None: N. Fewer are grouped-query attention (Ainslie et al. 2023).
    rotary_base: base of rotary positions; None: none.
    scale: factor on the logits; None is 1/sqrt(H).
    use_bias: whether the four projections have biases.
    dropout_rate: dropout on the attention weights.
    shared_dropout: see `dot_product_attention`.
    dtype: dtype of activations.
    query_init: initialiser of the query projection; T5 folds 1/sqrt(H) into it.
    kernel_init: initialiser of the key and value projections.
    out_init: initialiser of the output projection.
  """

  num_heads: int
  head_dim: int
  features: int
  num_kv_heads: int | None = None
  rotary_base: float | None = None
  scale: float | None = None
  use_bias: bool = False
  dropout_rate: float = 0.0
  shared_dropout: bool = True
  dtype: Any = jnp.float32
  query_init: Initializer = fan_in_init
  kernel_init: Initializer = fan_in_init
  out_init: Initializer = fan_in_init

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    joined = self.num_heads * self.head_dim
    shared = (self.num_kv_heads or self.num_heads) * self.head_dim
    into = (axes.EMBED, axes.JOINED_KV)
    self.query = Dense(joined, into, self.use_bias, self.dtype, self.query_init)
    self.key = Dense(shared, into, self.use_bias, self.dtype, self.kernel_init)
    self.value = Dense(shared, into, self.use_bias, self.dtype, self.kernel_init)
    self.out = Dense(self.features, (axes.JOINED_KV, axes.EMBED), self.use_bias, self.dtype, self.out_init)

  def keys_values(self, x: jax.Array, positions: jax.Array | None = None) -> KVCache:
    """Projects `[B, S, D]`, at int32 positions `[B, S]` where they are rotary, to keys and values `[B, S, K, H]`."""
    return KVCache(key=self._rotated(self._heads(self.key(x)), positions), value=self._heads(self.value(x)))

  def __call__(
    self,
    x: jax.Array,
    past: KVCache,
    *,
    positions: jax.Array | None = None,
    mask: jax.Array | Mask | None = None,
    bias: jax.Array | None = None,
    deterministic: bool = True,
  ) -> jax.Array:
    """Attends from `x` `[B, T, D]` to the keys and values of `past` `[B, S, K, H]`; returns `[B, T, D]`.

    Self-attention passes `keys_values(x)`, or a cache that they were written to; cross-attention those of the encoder.
    A `Mask` that is not an array yet is for local attention (see `nn.local_attention`), which takes no bias.
    """
    query = self._rotated(self._heads(self.query(x)), positions)
    dropout_key = None if deterministic or self.dropout_rate == 0.0 else self.make_rng('dropout')
    attend = functools.partial(
      dot_product_attention,
      scale=self.head_dim**-0.5 if self.scale is None else self.scale,
      dropout_rate=self.dropout_rate,
      dropout_key=dropout_key,
      shared_dropout=self.shared_dropout,
    )
    if isinstance(mask, Mask):
      assert bias is None
      attended = local_attention.local_attention(query, past.key, past.value, mask, attend)
    else:
      attended = attend(query, past.key, past.value, bias=bias, mask=mask)
    return self.out(attended.reshape(*attended.shape[:-2], -1))

  def _heads(self, x: jax.Array) -> jax.Array:
    return nn.with_logical_constraint(x.reshape(*x.shape[:-1], -1, self.head_dim), _HEADS)

  def _rotated(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
    if self.rotary_base is None:
      return x
    assert positions is not None, 'rotary attention without positions'
    return rotate(x, positions, self.rotary_base)
