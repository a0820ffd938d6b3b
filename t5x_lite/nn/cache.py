"""Keys and values of what was already read, so that a decoding step computes one position only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


class KVCache(struct.PyTreeNode):
  """Keys and values of one attention layer, or of a stack of them with a leading axis of layers.

  Attributes:
    key: `[B, S, N, H]`.
    value: `[B, S, N, H]`.
  """

  key: jax.Array
  value: jax.Array

  @classmethod
  def empty(cls, batch: int, length: int, num_heads: int, head_dim: int, dtype: Any) -> KVCache:
    """A cache of zeros with room for `length` positions."""
    zeros = jnp.zeros((batch, length, num_heads, head_dim), dtype)
    return cls(key=zeros, value=zeros)

  def write(self, key: jax.Array, value: jax.Array, index: jax.Array) -> KVCache:
    """The cache with `[B, T, N, H]` keys and values written at positions `index` to `index + T`."""
    start = (0, index, 0, 0)
    return KVCache(
      key=jax.lax.dynamic_update_slice(self.key, key.astype(self.key.dtype), start),
      value=jax.lax.dynamic_update_slice(self.value, value.astype(self.value.dtype), start),
    )


class LayerCache(struct.PyTreeNode):
  """What one block needs to decode: its own past, and the projected encoder output where it has cross-attention."""

  self_attention: KVCache
  cross_attention: KVCache | None = None


class DecodeCache(struct.PyTreeNode):
  """What a whole decoder needs to go on.

  Attributes:
    layers: a `LayerCache` whose leaves have a leading axis of layers `[Y, B, S, N, H]`.
    index: int32 scalar, the number of positions already read; all rows advance together.
    encoder_segment_ids: int32 `[B, S]` of the encoded input, None without an encoder.
    segment_ids: int32 `[B, S]` of what was read, 0 for padding and for what is still to come; None where rows are
      never padded (an encoder-decoder, which starts from one token).
  """

  layers: LayerCache
  index: jax.Array
  encoder_segment_ids: jax.Array | None = None
  segment_ids: jax.Array | None = None
