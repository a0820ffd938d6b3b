"""Attention a block of queries at a time, in plain array operations: no array of T x S ever exists, on any platform.

A block sees all keys, so its softmax is exact and needs no running maximum. The backward pass computes each block again
(as Dao et al. 2022 do) and adds up the gradients of keys and values in float32. T5's relative bias enters as the one
vector of each head that it consists of (`RelativeBias.by_distance`), and its gradient leaves as one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from t5x_lite.nn import weight_dropout
from t5x_lite.nn.attention_inputs import Inputs, Places, Settings, accumulator
from t5x_lite.nn.masks import Mask

BLOCK = 128  # queries

# Query `[B, T, N, H]`, key and value `[B, S, K, H]`, and the bias by distance `[N, T + S - 1]` or None.
Arrays = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]


def blockwise_attention(inputs: Inputs, settings: Settings, block: int = BLOCK) -> jax.Array:
  """Softmax attention, `[B, T, N, H]` in the dtype of the query; 0 where a query sees nothing.

  Logits and softmax are float32 (float64 for inputs that are).
  """
  queries = inputs.query.shape[1]
  block = min(block, queries)
  padding = -queries % block
  arrays = (
    _pad(inputs.query, padding),
    inputs.key,
    inputs.value,
    inputs.distances(queries + padding, inputs.key.shape[1]),
  )
  places = inputs.places.replace(mask=_query_side(inputs.places.mask, lambda x: _pad(x, padding)))
  return _attend(settings, block, arrays, places)[:, :queries]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(settings: Settings, block: int, arrays: Arrays, places: Places) -> jax.Array:
  """Attention of whole blocks."""
  starts = _starts(arrays, block)
  blocks = jax.lax.map(lambda start: _block(settings, places, start, *_part(arrays, start, block)), starts)
  return _joined(blocks)


def _forward(settings: Settings, block: int, arrays: Arrays, places: Places) -> tuple[jax.Array, Any]:
  return _attend(settings, block, arrays, places), (arrays, places)


def _backward(settings: Settings, block: int, residuals: Any, cotangent: jax.Array) -> tuple[Arrays, None]:
  """Each block once more, with its transpose; what all blocks share is summed over them."""
  arrays, places = residuals
  query, *shared = arrays
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, accumulator(query)), tuple(shared))

  def step(sums: Any, start: jax.Array) -> tuple[Any, jax.Array]:
    _, transpose = jax.vjp(functools.partial(_block, settings, places, start), *_part(arrays, start, block))
    d_query, d_key, d_value, d_distances = transpose(_rows(cotangent, start, block))
    key_sum, value_sum, distances_sum = sums
    if d_distances is not None:
      at = query.shape[1] - block - start
      old = jax.lax.dynamic_slice_in_dim(distances_sum, at, d_distances.shape[1], axis=1)
      new = old + d_distances.astype(old.dtype)
      distances_sum = jax.lax.dynamic_update_slice_in_dim(distances_sum, new, at, axis=1)
    key_sum, value_sum = key_sum + d_key.astype(key_sum.dtype), value_sum + d_value.astype(value_sum.dtype)
    return (key_sum, value_sum, distances_sum), d_query

  sums, d_query = jax.lax.scan(step, zeros, _starts(arrays, block))
  sums = jax.tree.map(lambda total, like: total.astype(like.dtype), sums, tuple(shared))
  return (_joined(d_query), *sums), None


_attend.defvjp(_forward, _backward)


def _block(
  settings: Settings,
  places: Places,
  start: jax.Array,
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  distances: jax.Array | None,
) -> jax.Array:
  """Attention of the queries `[B, b, N, H]` from `start` on; `distances` `[N, b + S - 1]` are theirs."""
  (batch, size, heads, width), (keys, shared) = query.shape, key.shape[1:3]
  groups = (batch, shared, heads // shared, size, keys)
  grouped = query.reshape(batch, size, shared, heads // shared, width)
  logits = jnp.einsum('btkgh,bskh->bkgts', grouped, key, preferred_element_type=accumulator(query))
  logits = logits.reshape(batch, heads, size, keys) * settings.scale
  if distances is not None:
    logits += toeplitz(distances.astype(logits.dtype), size)[None]
  mask = _query_side(places.mask, lambda x: _rows(x, start, size))
  weights = _softmax(logits, mask.materialise(size, keys, places.offset + start, places.window))
  if places.seed is not None:
    keep = _kept(places, settings, start, weights.shape)
    weights = jnp.where(keep, weights / (1.0 - settings.dropout_rate), 0.0)
  weights = weights.astype(value.dtype).reshape(groups)
  out = jnp.einsum('bkgts,bskh->btkgh', weights, value, preferred_element_type=logits.dtype)
  return out.reshape(query.shape).astype(query.dtype)


def _softmax(logits: jax.Array, visible: jax.Array | None) -> jax.Array:
  """The weights of what is visible; 0, and no gradient, where nothing is."""
  if visible is None:
    return jax.nn.softmax(logits, axis=-1)
  logits = jnp.where(visible, logits, 0.5 * float(jnp.finfo(jnp.float32).min))
  top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  weights = jnp.where(visible, jnp.exp(logits - top), 0.0)
  total = jnp.sum(weights, axis=-1, keepdims=True)
  return weights / jnp.where(total > 0.0, total, 1.0)


def _kept(places: Places, settings: Settings, start: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Which weights of a block stay, bool `[B, N, b, S]`."""
  assert places.seed is not None and places.first is not None
  rows, heads, queries, keys = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in range(4))
  return weight_dropout.keep(
    (places.seed[0], places.seed[1]),
    head=(rows + places.first[0]) * settings.all_heads + heads + places.first[1],
    query=queries + places.offset + start,
    key=keys,
    dropout_rate=settings.dropout_rate,
  )


def toeplitz(distances: jax.Array, size: int) -> jax.Array:
  """From one number for each distance, `[N, b + S - 1]`, to `[N, b, S]` of which entry i, j is number j - i + b - 1.

  Written one row after the other, b copies of the vector, each with one more number behind it, begin one number later
  in every row: the transpose sums along diagonals, and neither looks anything up.
  """
  heads, length = distances.shape
  rows = jnp.broadcast_to(jnp.pad(distances, ((0, 0), (0, 1)))[:, None], (heads, size, length + 1))
  shifted = rows.reshape(heads, -1)[:, size - 1 : size - 1 + size * length]
  return shifted.reshape(heads, size, length)[:, :, : length - size + 1]


def _starts(arrays: Arrays, block: int) -> jax.Array:
  return jnp.arange(0, arrays[0].shape[1], block, dtype=jnp.int32)


def _rows(x: jax.Array, start: jax.Array, size: int) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)


def _joined(blocks: jax.Array) -> jax.Array:
  """`[B, T, N, H]` of `[T / b, B, b, N, H]`."""
  blocks = blocks.swapaxes(0, 1)
  return blocks.reshape(blocks.shape[0], -1, *blocks.shape[3:])


def _part(arrays: Arrays, start: jax.Array, block: int) -> Arrays:
  """What a block reads."""
  query, key, value, distances = arrays
  if distances is not None:
    # Those from its last query to the first key on.
    at, length = query.shape[1] - block - start, block + key.shape[1] - 1
    distances = jax.lax.dynamic_slice_in_dim(distances, at, length, axis=1)
  return _rows(query, start, block), key, value, distances


def _query_side(mask: Mask, change: Callable[[jax.Array], jax.Array]) -> Mask:
  """The mask with `change` done to its arrays `[B, T, ...]`."""
  names = ('query_segments', 'query_order', 'visible')
  changed: dict[str, Any] = {name: change(getattr(mask, name)) for name in names if getattr(mask, name) is not None}
  return dataclasses.replace(mask, **changed)


def _pad(x: jax.Array, padding: int) -> jax.Array:
  return jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
