"""Multi-head attention: the module that projects into and out of the one attention function, `nn.attend.attend`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from t5x_lite.core import axes
from t5x_lite.core.products import ATTENTION
from t5x_lite.nn.attend import Relations, Style, attend, attend_to_slots, probabilities
from t5x_lite.nn.cache import KVCache, SlotCache
from t5x_lite.nn.intermediates import ATTENTIONS, asked_for, leave
from t5x_lite.nn.linear import Dense, Initializer, fan_in_init
from t5x_lite.nn.positions import rotate

_HEADS = (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_HEADS, axes.ACT_KV)


class MultiHeadAttention(nn.Module):
  """Self- or cross-attention, over a whole sequence or step by step through a cache.

  Attributes:
    num_heads: N.
    head_dim: H; N * H need not equal the model width (T5 3B).
    features: width D of the output.
    num_kv_heads: K, heads of keys and values; None: N. Fewer are grouped-query attention (Ainslie et al. 2023).
    rotary_base: base of rotary positions; None: none.
    style: scale, dropout and implementation.
    use_bias: whether the four projections have biases.
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
  style: Style = Style()
  use_bias: bool = False
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
    past: KVCache | SlotCache,
    relations: Relations,
    *,
    positions: jax.Array | None = None,
    cached: bool = False,
    deterministic: bool = True,
  ) -> jax.Array:
    """Attends from `x` `[B, T, D]` to the keys and values of `past` `[B, S, K, H]`; returns `[B, T, D]`.

    Self-attention passes `keys_values(x)`, or a cache that they were written to; cross-attention those of the encoder.
    """
    query = self._rotated(self._heads(self.query(x)), positions)
    if isinstance(past, SlotCache):
      attended = attend_to_slots(query, past.key, past.value, relations, self.style.scale)
      return self.out(attended.reshape(*attended.shape[:-2], -1))
    if asked_for(self, ATTENTIONS):
      leave(self, ATTENTIONS, 'weights', probabilities(query, past.key, relations, self.style.scale))
    dropout_key = None if deterministic or self.style.dropout_rate == 0.0 else self.make_rng('dropout')
    attended = attend(query, past.key, past.value, relations, self.style, dropout_key=dropout_key, cached=cached)
    attended = checkpoint_name(attended, ATTENTION)
    return self.out(attended.reshape(*attended.shape[:-2], -1))

  def _heads(self, x: jax.Array) -> jax.Array:
    return nn.with_logical_constraint(x.reshape(*x.shape[:-1], -1, self.head_dim), _HEADS)

  def _rotated(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
    if self.rotary_base is None:
      return x
    assert positions is not None, 'rotary attention without positions'
    return rotate(x, positions, self.rotary_base)
