"""Where a token stands: learned and sinusoidal vectors, and T5's relative position bias."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from t5x_lite.core import axes
from t5x_lite.nn.embed import Embed
from t5x_lite.nn.linear import Initializer


def sinusoidal_positions(positions: jax.Array, features: int, max_timescale: float = 10_000.0) -> jax.Array:
  """Fixed vectors of Vaswani et al. 2017, sec. 3.5, in Tensor2Tensor's order: all sines, then all cosines.

  Args:
    positions: int32 `[...]`.
    features: width D, even.
    max_timescale: the longest wavelength over 2 pi.

  Returns:
    float32 `[..., D]`.
  """
  assert features % 2 == 0, features
  scales = np.exp(-math.log(max_timescale) * np.arange(features // 2) / max(features // 2 - 1, 1)).astype(np.float32)
  angles = positions.astype(jnp.float32)[..., None] * scales
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def rotate(x: jax.Array, positions: jax.Array, base: float = 10_000.0) -> jax.Array:
  """Rotary positions (Su et al. 2021), the two halves of a head as the two coordinates (GPT-NeoX, Llama).

  Args:
    x: queries or keys `[B, L, N, H]`, H even.
    positions: int32 `[B, L]`.
    base: the wavelengths run from 2 pi to 2 pi x base.

  Returns:
    `[B, L, N, H]` in the dtype of `x`, computed in float32.
  """
  half = x.shape[-1] // 2
  frequencies = base ** (-np.arange(half, dtype=np.float32) / half)
  angles = (positions.astype(jnp.float32)[..., None] * frequencies)[:, :, None, :]
  sin, cos = jnp.sin(angles), jnp.cos(angles)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class LearnedPositions(nn.Module):
  """One trained vector for each of the first `max_length` positions (BERT, GPT-2)."""

  max_length: int
  features: int
  dtype: Any = jnp.float32
  embedding_init: Initializer = nn.initializers.truncated_normal(0.02)

  @nn.compact
  def __call__(self, positions: jax.Array) -> jax.Array:
    """Vectors `[..., D]` of int32 positions `[...]`."""
    table = Embed(self.max_length, self.features, axes.POSITION, self.dtype, self.embedding_init, name='table')
    return table(positions)


def relative_position_bucket(
  relative_position: jax.Array, *, bidirectional: bool, num_buckets: int = 32, max_distance: int = 128
) -> jax.Array:
  """T5's buckets of `key position - query position` (Raffel et al. 2020, sec. 2.1; same numbers as Mesh TensorFlow).

  Half of the buckets (of each direction) hold one distance each, the rest grow logarithmically up to `max_distance`;
  everything farther shares the last one. A causal stack has no buckets for the future.

  Args:
    relative_position: int32 `[...]`.
    bidirectional: whether keys after the query have buckets of their own.
    num_buckets: number of buckets in all.
    max_distance: distance from which on all share one bucket.

  Returns:
    int32 `[...]` in `[0, num_buckets)`.
  """
  distance = -relative_position
  offset = jnp.zeros_like(distance)
  if bidirectional:
    num_buckets //= 2
    offset = jnp.where(distance < 0, num_buckets, 0).astype(distance.dtype)
    distance = jnp.abs(distance)
  distance = jnp.maximum(distance, 0)
  exact = num_buckets // 2
  # The epsilon, T5X's, only guards log(0): entries that small are taken from the exact half.
  ratio = jnp.log(distance.astype(jnp.float32) / exact + np.finfo(np.float32).eps) / math.log(max_distance / exact)
  large = exact + (ratio * (num_buckets - exact)).astype(distance.dtype)
  return offset + jnp.where(distance < exact, distance, jnp.minimum(large, num_buckets - 1))


@struct.dataclass
class RelativeBias:
  """T5's attention bias, not multiplied out: a scalar for each head and bucket of distances.

  Packed rows need no more than row indices: inside an example, differences of row indices equal differences of
  positions, and what lies across examples is masked.

  Attributes:
    table: float32 `[N, R]`, R buckets.
    bidirectional: see `relative_position_bucket`.
    max_distance: see there.
    dtype: of the bias.
  """

  table: jax.Array
  bidirectional: bool = struct.field(pytree_node=False)
  max_distance: int = struct.field(pytree_node=False, default=128)
  dtype: Any = struct.field(pytree_node=False, default=jnp.float32)

  def of(self, distances: jax.Array) -> jax.Array:
    """The bias `[N, ...]` of int32 distances `key index - query index` `[...]`."""
    num_buckets = self.table.shape[1]
    buckets = relative_position_bucket(
      distances, bidirectional=self.bidirectional, num_buckets=num_buckets, max_distance=self.max_distance
    )
    # A one-hot product: its transpose is a matmul too, where that of a gather is a scatter, slow on accelerators.
    one_hot = jax.nn.one_hot(buckets, num_buckets, dtype=self.dtype)
    return jnp.einsum('nr,...r->n...', self.table.astype(self.dtype), one_hot)

  def materialise(self, queries: int, keys: int, offset: jax.Array | int = 0) -> jax.Array:
    """The bias as `[1, N, T, S]`, for T queries of which the first stands at row index `offset`, and S keys from 0."""
    bias = _by_place(self.by_distance(queries, keys, offset), keys)[None]
    return nn.with_logical_constraint(bias, (None, axes.ACT_HEADS, axes.ACT_LENGTH, axes.ACT_KEY_LENGTH))

  def by_distance(self, queries: int, keys: int, offset: jax.Array | int = 0) -> jax.Array:
    """All that the bias consists of, `[N, T + S - 1]`: entry x belongs to distance x - (T - 1) - offset."""
    return self.of(jnp.arange(1 - queries, keys, dtype=jnp.int32) - jnp.asarray(offset, jnp.int32))


def _by_place(by_distance: jax.Array, keys: int) -> jax.Array:
  """`[N, T, S]` of the `[N, T + S - 1]` that it consists of: row t is the S entries from T - 1 - t on.

  The rows of the whole vector, one after the other in memory, and cut again into rows that are one shorter, each begin
  one entry earlier. So neither this nor its transpose, a sum along diagonals, touches more than twice its size.
  """
  heads, width = by_distance.shape
  queries = width - keys + 1
  if queries == 1:
    return by_distance[:, None]
  rows = jnp.broadcast_to(by_distance[:, None], (heads, queries, width)).reshape(heads, queries * width)
  rows = rows[:, queries - 1 :][:, : queries * (width - 1)]
  return rows.reshape(heads, queries, width - 1)[:, :, :keys]


class RelativePositionBias(nn.Module):
  """T5's attention bias: a trained scalar per head and bucket, shared by all layers of a stack."""

  num_heads: int
  bidirectional: bool
  num_buckets: int = 32
  max_distance: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self) -> RelativeBias:
    """The bias, as structure."""
    init = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
    init = nn.with_logical_partitioning(init, (axes.HEADS, axes.RELPOS_BUCKETS))
    table = self.param('rel_embedding', init, (self.num_heads, self.num_buckets), jnp.float32)
    return RelativeBias(table, self.bidirectional, self.max_distance, self.dtype)
