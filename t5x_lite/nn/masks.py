"""Who may attend to whom, as structure; an array is made of it as late as possible, so that a kernel can use it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mask:
  """The conjunction of the restrictions that are set; none set means that everything is visible.

  Attributes:
    query_segments: int32 `[B, T]` of a packed row; a query sees keys of its own segment only. 0 is padding, which
      nothing sees, and which itself sees all that is none (as in Hugging Face; nothing may depend on what it computes).
    key_segments: int32 `[B, S]`, set together with `query_segments`.
    prefix: bool `[B, S]`, with `causal`: these keys are visible from before, too (prefix LM).
    query_order: int32 `[B, T]`, place of each query in a factorisation order; sees keys of a smaller `key_order`, and
      of its own where `see_self` (permutation LM, XLNet's two streams).
    key_order: int32 `[B, S]`.
    visible: bool `[B, T, S]`, any other restriction.
    causal: a query at row index i sees keys at indices up to i.
    everywhere: bool `[B, S]`, with `window`: these positions see all and are seen by all (Longformer's global tokens);
      at most the first `max_everywhere` of a row.
    places: int32 `[T]` and `[S]`, the row indices of queries and keys where they do not lie in order (several
      continuations of a row in one cache).
    window: a query at row index i sees keys at distance below `window` only (local attention); None: any.
    max_everywhere: see `everywhere`.
    see_self: whether equal orders see each other.
  """

  query_segments: jax.Array | None = None
  key_segments: jax.Array | None = None
  prefix: jax.Array | None = None
  query_order: jax.Array | None = None
  key_order: jax.Array | None = None
  visible: jax.Array | None = None
  everywhere: jax.Array | None = None
  places: tuple[jax.Array, jax.Array] | None = None
  causal: bool = struct.field(pytree_node=False, default=False)
  window: int | None = struct.field(pytree_node=False, default=None)
  max_everywhere: int = struct.field(pytree_node=False, default=0)
  see_self: bool = struct.field(pytree_node=False, default=True)

  @classmethod
  def local(
    cls, segments: jax.Array, positions: jax.Array, *, window: int, num_global: int, max_everywhere: int
  ) -> Mask:
    """Local attention within each example, but for its first positions (Beltagy et al. 2020).

    Args:
      segments: int32 `[B, L]`.
      positions: int32 `[B, L]`.
      window: how far a position sees to either side, itself included.
      num_global: the first so many positions of an example see all of it and are seen by all of it.
      max_everywhere: of such positions, how many a row has at most.
    """
    first = (positions < num_global) & (segments > 0)
    everywhere = first & (jnp.cumsum(first, axis=1, dtype=jnp.int32) <= max_everywhere)
    return cls(segments, segments, everywhere=everywhere, window=window, max_everywhere=max_everywhere)

  def materialise(
    self, queries: int, keys: int, offset: jax.Array | int = 0, window: jax.Array | None = None
  ) -> jax.Array | None:
    """The mask as bool `[B or 1, 1, T, S]`, True where visible; None where nothing is hidden.

    Args:
      queries: T.
      keys: S.
      offset: row index of the first query, for queries that continue a cached prefix.
      window: int32 scalar, the window of one layer of a stack whose layers differ.
    """
    parts = []
    query_index = jnp.arange(queries, dtype=jnp.int32)[:, None] + jnp.asarray(offset, jnp.int32)
    key_index = jnp.arange(keys, dtype=jnp.int32)[None, :]
    if self.places is not None:
      query_index, key_index = self.places[0][:, None], self.places[1][None, :]
    if self.causal:
      past = (key_index <= query_index)[None, None]
      parts.append(past if self.prefix is None else past | self.prefix[:, None, None, :])
    for width in (self.window, window):
      if width is not None:
        near = (jnp.abs(key_index - query_index) < width)[None, None]
        if self.everywhere is not None:
          near = near | self.everywhere[:, None, None, :] | self.everywhere[:, None, :, None]
        parts.append(near)
    if self.query_segments is not None and self.key_segments is not None:
      parts.append(_pairwise(same_example, self.query_segments, self.key_segments))
    if self.query_order is not None and self.key_order is not None:
      parts.append(_pairwise(jnp.greater_equal if self.see_self else jnp.greater, self.query_order, self.key_order))
    if self.visible is not None:
      parts.append(self.visible[:, None])
    if not parts:
      return None
    mask = parts[0]
    for part in parts[1:]:
      mask = mask & part
    return mask


def same_example(queries: jax.Array, keys: jax.Array) -> jax.Array:
  """Whether queries of these segments see keys of those, elementwise."""
  return (keys > 0) & ((queries == keys) | (queries == 0))


def _pairwise(compare, queries: jax.Array, keys: jax.Array) -> jax.Array:
  return compare(queries[:, None, :, None], keys[:, None, None, :])
