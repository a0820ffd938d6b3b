"""What the attention kernels read, and how it is cut over the devices of a mesh."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.sharding import PartitionSpec

from t5x_lite.core import axes
from t5x_lite.nn.dot_product import repeat_heads
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.positions import RelativeBias


class Places(struct.PyTreeNode):
  """Who sees whom, and which rows, heads and queries these are: nothing that has a gradient.

  Attributes:
    mask: who sees whom.
    offset: int32 scalar, row index of the first query.
    window: int32 scalar, see `Mask.materialise`, or None.
    seed: int32 `[2]` of the dropout of weights (see `nn.weight_dropout`), or None: nothing is dropped.
    first: int32 `[2]`, index of the first row and of the first head among those of all devices.
  """

  mask: Mask
  offset: jax.Array
  window: jax.Array | None = None
  seed: jax.Array | None = None
  first: jax.Array | None = None


class Inputs(struct.PyTreeNode):
  """What attention reads.

  Attributes:
    query: `[B, T, N, H]`.
    key: `[B, S, K, H]`, K a divisor of N.
    value: `[B, S, K, H]`.
    bias: T5's relative bias, or None.
    places: the rest.
  """

  query: jax.Array
  key: jax.Array
  value: jax.Array
  bias: RelativeBias | None
  places: Places

  def distances(self, queries: int, keys: int) -> jax.Array | None:
    """The bias by distance, `[N, T + S - 1]`, for that many queries and keys."""
    return None if self.bias is None else self.bias.by_distance(queries, keys, self.places.offset)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is known when the program is traced.

  Attributes:
    scale: factor on the logits before the bias.
    dropout_rate: of the weights; used where there is a seed.
    all_heads: number of heads of all devices.
    cuts_queries: whether the queries of a row may be cut over devices.
    interpret: whether a Pallas kernel is run step by step, on any platform: for tests.
  """

  scale: float = 1.0
  dropout_rate: float = 0.0
  all_heads: int = 1
  cuts_queries: bool = True
  interpret: bool = False


def accumulator(x: jax.Array) -> Any:
  """What products and sums of `x` are accumulated in."""
  return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


Kernel = Callable[[Inputs, Settings], jax.Array]


def over_mesh(kernel: Kernel, inputs: Inputs, settings: Settings) -> jax.Array:
  """The kernel on every device's own rows, queries and heads, `[B, T, N, H]`; keys are gathered where they are cut.

  The compiler cuts the programs that it makes, but not a kernel that it is handed.
  """
  heads = inputs.query.shape[2]
  settings = dataclasses.replace(settings, all_heads=heads)
  places = inputs.places.replace(first=jnp.zeros(2, jnp.int32))
  mesh, rules = jax.sharding.get_abstract_mesh(), nn.get_logical_axis_rules()
  if mesh.empty or not rules or mesh.manual_axes:
    return kernel(inputs.replace(places=places), settings)
  names = (axes.ACT_BATCH, axes.ACT_LENGTH if settings.cuts_queries else None, axes.ACT_HEADS)
  spec = nn.logical_to_mesh_axes(names, rules)
  batch, length, by_head = (_that_divide(s, n, mesh) for s, n in zip(spec, inputs.query.shape[:3], strict=True))
  if inputs.key.shape[2] % math.prod(mesh.shape[name] for name in by_head):
    key, value = (repeat_heads(x, heads) for x in (inputs.key, inputs.value))
    inputs = inputs.replace(key=key, value=value)

  def local(inputs: Inputs) -> jax.Array:
    rows, queries, own_heads, _ = inputs.query.shape
    first = jnp.stack([_index(batch) * rows, _index(by_head) * own_heads])
    places = inputs.places.replace(offset=inputs.places.offset + _index(length) * queries, first=first)
    return kernel(inputs.replace(places=places), settings)

  inputs = inputs.replace(places=places)
  whole = jax.shard_map(
    local,
    in_specs=(_specs(inputs, batch, length, by_head),),
    out_specs=PartitionSpec(batch or None, length or None, by_head or None),
    check_vma=False,
  )
  return whole(inputs)


def _specs(inputs: Inputs, batch: tuple[str, ...], length: tuple[str, ...], heads: tuple[str, ...]) -> Inputs:
  """The partition spec of every array."""
  rows, queries, by_head = batch or None, length or None, heads or None
  keys = PartitionSpec(rows, None, by_head)
  of_queries = ('query_segments', 'query_order', 'visible')
  mask = {
    field.name: PartitionSpec(rows, queries if field.name in of_queries else None)
    for field in dataclasses.fields(inputs.places.mask)
    if isinstance(getattr(inputs.places.mask, field.name), jax.Array | np.ndarray)
  }
  places = jax.tree.map(lambda _: PartitionSpec(), inputs.places)
  places = places.replace(mask=dataclasses.replace(inputs.places.mask, **mask))
  bias = None if inputs.bias is None else dataclasses.replace(inputs.bias, table=PartitionSpec(by_head))
  return inputs.replace(query=PartitionSpec(rows, queries, by_head), key=keys, value=keys, bias=bias, places=places)


def _that_divide(mesh_axes: Any, size: int, mesh: Any) -> tuple[str, ...]:
  """The mesh axes that a dimension is cut over; none where they do not divide it."""
  names = () if mesh_axes is None else (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes)
  names = tuple(name for name in names if mesh.shape[name] > 1)
  return names if size % math.prod(mesh.shape[name] for name in names) == 0 else ()


def _index(names: tuple[str, ...]) -> jax.Array:
  """Which of the parts of a dimension this device has."""
  return jax.lax.axis_index(names) if names else jnp.zeros((), jnp.int32)
