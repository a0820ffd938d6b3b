"""Local attention with a few global positions, in time and memory linear in the length (Beltagy et al. 2020).

The row is cut into blocks as long as the window; a block of queries reads its own block of keys, the one before, the
one after unless it is causal, and the global positions. Global positions read everything. Longformer's second set of
projections for global positions is not there: they are ordinary positions that see and are seen farther.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from t5x_lite.nn.masks import Mask, same_example

# From query, key, value and mask to `[B, T, N, H]`, as `nn.dot_product.dot_product_attention`.
Attend = Callable[..., jax.Array]


def fits(mask: Mask, length: int) -> bool:
  """Whether blocks save anything over a full `length` x `length` mask, and can express this one."""
  expressible = mask.prefix is None and mask.query_order is None and mask.visible is None
  return mask.window is not None and expressible and length > 3 * mask.window


def local_attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: Mask, attend: Attend) -> jax.Array:
  """Attention under `mask`, whose window is set, without an array of T x S; equal to that of `mask.materialise`.

  Args:
    query: `[B, T, N, H]`.
    key: `[B, T, K, H]`.
    value: `[B, T, K, H]`.
    mask: with `window`; segments, `causal` and `everywhere` as set there. Of each row, the first
      `mask.max_everywhere` positions of `everywhere` may be set, no more.
    attend: attends from queries to keys under a bool mask `[B, 1, T, S]`; called with blocks as rows.

  Returns:
    `[B, T, N, H]`.
  """
  assert mask.window is not None
  batch, length = query.shape[:2]
  window = mask.window
  blocks = -(-length // window)
  index = jnp.broadcast_to(jnp.arange(blocks * window, dtype=jnp.int32), (batch, blocks * window))
  segments = jnp.ones((batch, length), jnp.int32) if mask.query_segments is None else mask.query_segments
  # Padding to whole blocks: a segment that no position has, so that nothing sees it.
  segments = _pad(segments, blocks * window, -1)
  everywhere = jnp.zeros((batch, length), bool) if mask.everywhere is None else mask.everywhere
  everywhere = _pad(everywhere, blocks * window, False)

  sides = (-1, 0) if mask.causal else (-1, 0, 1)
  own, near = (lambda x: _blocks(x, window)), (lambda x: _neighbours(_blocks(x, window), sides))
  seen = _pairs(same_example, own(segments), near(segments))
  distance = own(index)[..., :, None] - near(_pad(index[:, :length], blocks * window, -1))[..., None, :]
  seen &= (jnp.abs(distance) < window) & ~near(everywhere)[:, :, None, :]
  # A neighbour beyond either end of the row is a block of zeros: its index tells it from the first block.
  seen &= near(jnp.ones_like(index))[:, :, None, :] > 0
  if mask.causal:
    seen &= distance >= 0
  keys, values = near(_pad(key, blocks * window)), near(_pad(value, blocks * window))
  queries = own(_pad(query, blocks * window))
  if mask.everywhere is not None:
    places, valid = _first(everywhere, mask.max_everywhere)
    to_global = _pairs(same_example, own(segments), _take(segments, places)[:, None]) & valid[:, None, None, :]
    if mask.causal:
      to_global &= own(index)[..., :, None] >= places[:, None, None, :]
    seen = jnp.concatenate([seen, to_global], axis=-1)
    keys, values = (_with_global(near_x, _take(x, places)) for near_x, x in ((keys, key), (values, value)))

  def merge(x: jax.Array) -> jax.Array:
    return x.reshape(batch * blocks, *x.shape[2:])

  out = attend(merge(queries), merge(keys), merge(values), mask=merge(seen)[:, None])
  out = out.reshape(batch, blocks * window, *out.shape[2:])[:, :length]
  if mask.everywhere is None:
    return out
  from_global = _pairs(same_example, _take(segments, places)[:, None], segments[:, None, :length])[:, 0]
  if mask.causal:
    from_global &= places[:, :, None] >= index[:, None, :length]
  answers = attend(_take(query, places), key, value, mask=from_global[:, None])
  rows = jnp.arange(batch, dtype=jnp.int32)[:, None]
  # Unused places point beyond the row, where a write is dropped.
  return out.at[rows, jnp.where(valid, places, length)].set(answers, mode='drop')


def _pad(x: jax.Array, length: int, value: int | bool = 0) -> jax.Array:
  """`[B, L, ...]` filled up to `length` positions."""
  return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2), constant_values=value)


def _blocks(x: jax.Array, size: int) -> jax.Array:
  """`[B, blocks * size, ...]` as `[B, blocks, size, ...]`."""
  return x.reshape(x.shape[0], -1, size, *x.shape[2:])


def _neighbours(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
  """The blocks of `[B, blocks, size, ...]` beside each: `[B, blocks, len(sides) * size, ...]`, 0 beyond the ends."""
  around = jnp.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2))
  return jnp.concatenate([around[:, 1 + side : 1 + side + x.shape[1]] for side in sides], axis=2)


def _pairs(compare: Callable[..., jax.Array], queries: jax.Array, keys: jax.Array) -> jax.Array:
  """bool `[B, blocks, T, S]` of `[B, blocks, T]` and `[B, blocks or 1, S]`."""
  return compare(queries[..., :, None], keys[..., None, :])


def _first(chosen: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
  """Places of the first `most` True of each row of `[B, L]`, int32 `[B, most]`, and which of them exist."""
  most = min(most, chosen.shape[1])
  order = jnp.argsort(~chosen, axis=1, stable=True)[:, :most].astype(jnp.int32)
  return order, jnp.take_along_axis(chosen, order, axis=1)


def _take(x: jax.Array, places: jax.Array) -> jax.Array:
  """`x[b, places[b]]` of `[B, L, ...]`."""
  return jax.vmap(lambda row, at: row[at])(x, jnp.minimum(places, x.shape[1] - 1))


def _with_global(near: jax.Array, common: jax.Array) -> jax.Array:
  """Keys of each block `[B, blocks, S, ...]`, followed by the global ones `[B, G, ...]`."""
  each = jnp.broadcast_to(common[:, None], (near.shape[0], near.shape[1], *common.shape[1:]))
  return jnp.concatenate([near, each], axis=2)
