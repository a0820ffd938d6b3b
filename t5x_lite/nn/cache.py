"""Keys and values of what was already read, so that a decoding step computes one position only.

Several continuations of one row (beams, samples) share what they have in common. Their tokens lie in slots of that row,
those of one step side by side, and each continuation sees the slots of its own ancestors. So a beam search moves no
keys and values when its beams change places, and a prompt is kept once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


class SlotCache(struct.PyTreeNode):
  """Keys and values in the order in which a decoding step reads them, so that none is laid out anew at every step.

  Attributes:
    key: `[B, N, S, H]`.
    value: `[B, N, S, H]`.
  """

  key: jax.Array
  value: jax.Array

  @classmethod
  def empty(cls, batch: int, length: int, num_heads: int, head_dim: int, dtype: Any) -> SlotCache:
    """A cache of zeros with room for `length` positions."""
    zeros = jnp.zeros((batch, num_heads, length, head_dim), dtype)
    return cls(key=zeros, value=zeros)

  @classmethod
  def of(cls, past: KVCache, dtype: Any) -> SlotCache:
    """Keys and values of one layer `[B, S, N, H]`, or of several with a leading axis."""
    return cls(*(x.swapaxes(-3, -2).astype(dtype) for x in (past.key, past.value)))

  def write(self, key: jax.Array, value: jax.Array, index: jax.Array) -> SlotCache:
    """The cache with `[B, T, N, H]` keys and values written at positions `index` to `index + T`."""
    start = (0, 0, index, 0)
    new = SlotCache.of(KVCache(key, value), self.key.dtype)
    return SlotCache(
      key=jax.lax.dynamic_update_slice(self.key, new.key, start),
      value=jax.lax.dynamic_update_slice(self.value, new.value, start),
    )


class LayerCache(struct.PyTreeNode):
  """What one block needs to decode: its own past, and the projected encoder output where it has cross-attention."""

  self_attention: KVCache | SlotCache
  cross_attention: KVCache | SlotCache | None = None


class Branches(struct.PyTreeNode):
  """K continuations of every row.

  Attributes:
    visible: bool `[B, K, S]`, the slots of each continuation: those of the prompt and of its ancestors.
    prompt_length: slots that all continuations of a row share.
  """

  visible: jax.Array
  prompt_length: int = struct.field(pytree_node=False)

  @property
  def count(self) -> int:
    """K."""
    return self.visible.shape[1]

  def step(self, index: jax.Array) -> jax.Array:
    """How many tokens behind the prompt the slot `index` stands, int32."""
    return (index - self.prompt_length) // self.count

  def positions(self) -> np.ndarray:
    """int32 `[S]`: where the token of each slot stands, counted from the first slot of the prompt."""
    slots = np.arange(self.visible.shape[2], dtype=np.int32)
    behind = self.prompt_length + (slots - self.prompt_length) // self.count
    return np.where(slots < self.prompt_length, slots, behind).astype(np.int32)

  def read(self, index: jax.Array) -> Branches:
    """As it is when each continuation has read one more token, in the slots from `index` on."""
    count, slots = self.visible.shape[1:]
    own = jnp.arange(slots, dtype=jnp.int32)[None] == index + jnp.arange(count, dtype=jnp.int32)[:, None]
    return self.replace(visible=self.visible | own)


class DecodeCache(struct.PyTreeNode):
  """What a whole decoder needs to go on.

  Attributes:
    layers: a `LayerCache` whose leaves have a leading axis of layers `[Y, B, S, N, H]`; of an unrolled stack, a tuple
      of Y caches, so that a step writes its own slots and copies no others.
    index: int32 scalar, the number of slots already read; all rows advance together.
    encoder_segment_ids: int32 `[B, S]` of the encoded input, None without an encoder.
    segment_ids: int32 `[B, S]` of what was read, 0 for padding and for what is still to come; None where rows are
      never padded (an encoder-decoder, which starts from one token).
    branches: set when every row is continued several times.
    offset: slots of every row before its prompt (a soft prompt), which nobody outside counts.
  """

  layers: LayerCache | tuple[LayerCache, ...]
  index: jax.Array
  encoder_segment_ids: jax.Array | None = None
  segment_ids: jax.Array | None = None
  branches: Branches | None = None
  offset: int = struct.field(pytree_node=False, default=0)

  def branch(self, count: int, prompt_length: int) -> DecodeCache:
    """The cache of a prompt that was read, for `count` continuations of every row; one is what it is anyway."""
    if count == 1:
      return self
    prompt_length += self.offset
    rows, slots = jax.tree.leaves(self.layers)[0].shape[-4], self.slots
    real = jnp.arange(slots, dtype=jnp.int32) < prompt_length
    visible = jnp.broadcast_to(real, (rows, slots)) if self.segment_ids is None else self.segment_ids > 0
    visible = jnp.broadcast_to(visible[:, None], (rows, count, slots))
    return self.replace(branches=Branches(visible, prompt_length))

  def reordered(self, chosen: jax.Array) -> DecodeCache:
    """Continuation k of every row goes on from what was continuation `chosen[:, k]`, int32 `[B, K]`."""
    if self.branches is None:
      return self
    visible = jnp.take_along_axis(self.branches.visible, chosen[..., None], axis=1)
    return self.replace(branches=self.branches.replace(visible=visible))

  def rewound(self, index: jax.Array) -> DecodeCache:
    """The cache as it was when `index` tokens, int32, padding included, had been read; it has no branches."""
    index = self.offset + jnp.asarray(index, jnp.int32)
    assert self.branches is None, 'rewinding a cache of several continuations'
    segments = self.segment_ids
    if segments is not None:
      segments = jnp.where(jnp.arange(segments.shape[1]) < index, segments, 0)
    return self.replace(index=index, segment_ids=segments)

  @property
  def slots(self) -> int:
    """How many tokens of a row there is room for."""
    layer = self.layers[0] if isinstance(self.layers, tuple) else self.layers
    return layer.self_attention.key.shape[-2]


def slot_dtype(dtype: Any, platform: str) -> Any:
  """What keys and values are kept in: on a CPU float32, which holds the same numbers and need not be converted."""
  return jnp.dtype(jnp.float32) if platform == 'cpu' and jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def empty_layers(
  num_layers: int,
  cache: SlotCache,
  cross: tuple[KVCache, ...] | KVCache | None = None,
  *,
  scan: bool,
) -> LayerCache | tuple[LayerCache, ...]:
  """The caches of a stack, of one that is empty and of the keys and values of an encoder.

  Args:
    num_layers: Y.
    cache: of a layer.
    cross: of every layer, as `nn.transformer.Stack.project_encoded` gives it; None: there is no cross-attention.
    scan: whether the stack is scanned.
  """
  if not scan:
    if cross is None:
      return (LayerCache(cache),) * num_layers
    assert isinstance(cross, tuple)
    return tuple(LayerCache(cache, SlotCache.of(own, cache.key.dtype)) for own in cross)
  assert not isinstance(cross, tuple)
  stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_layers, *x.shape)), cache)
  return LayerCache(stacked, None if cross is None else SlotCache.of(cross, cache.key.dtype))
