"""Who may attend to whom, as structure; an array is made of it as late as possible, so that a kernel can use it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mask:
  """The conjunction of the restrictions that are set; none set means that everything is visible.

  Attributes:
    query_segments: int32 `[B, T]` of a packed row; a query sees keys of its own segment only. 0 is padding.
    key_segments: int32 `[B, S]`, set together with `query_segments`.
    prefix: bool `[B, S]`, with `causal`: these keys are visible from before, too (prefix LM).
    query_order: int32 `[B, T]`, place of each query in a factorisation order; sees keys of a smaller `key_order`, and
      of its own where `see_self` (permutation LM, XLNet's two streams).
    key_order: int32 `[B, S]`.
    causal: a query at row index i sees keys at indices up to i.
    window: a query at row index i sees keys at distance below `window` only (local attention); None: any.
    see_self: whether equal orders see each other.
  """

  query_segments: jax.Array | None = None
  key_segments: jax.Array | None = None
  prefix: jax.Array | None = None
  query_order: jax.Array | None = None
  key_order: jax.Array | None = None
  causal: bool = struct.field(pytree_node=False, default=False)
  window: int | None = struct.field(pytree_node=False, default=None)
  see_self: bool = struct.field(pytree_node=False, default=True)

  def materialise(self, queries: int, keys: int, offset: jax.Array | int = 0) -> jax.Array | None:
    """The mask as bool `[B or 1, 1, T, S]`, True where visible; None where nothing is hidden.

    Args:
      queries: T.
      keys: S.
      offset: row index of the first query, for queries that continue a cached prefix.
    """
    parts = []
    query_index = jnp.arange(queries, dtype=jnp.int32)[:, None] + jnp.asarray(offset, jnp.int32)
    key_index = jnp.arange(keys, dtype=jnp.int32)[None, :]
    if self.causal:
      past = (key_index <= query_index)[None, None]
      parts.append(past if self.prefix is None else past | self.prefix[:, None, None, :])
    if self.window is not None:
      parts.append((jnp.abs(key_index - query_index) < self.window)[None, None])
    if self.query_segments is not None and self.key_segments is not None:
      parts.append(_pairwise(jnp.equal, self.query_segments, self.key_segments))
    if self.query_order is not None and self.key_order is not None:
      parts.append(_pairwise(jnp.greater_equal if self.see_self else jnp.greater, self.query_order, self.key_order))
    if not parts:
      return None
    mask = parts[0]
    for part in parts[1:]:
      mask = mask & part
    return mask


def _pairwise(compare, queries: jax.Array, keys: jax.Array) -> jax.Array:
  return compare(queries[:, None, :, None], keys[:, None, None, :])
