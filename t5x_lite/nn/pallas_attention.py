"""Our attention kernel for TPUs: T5's relative bias and dropout of single weights, made inside and never stored.

One step of the kernel has a block of queries, all keys of its row, and as many heads as fill the 128 lanes of a vector
register; so arrays keep the layout `[B, L, N * H]` that projections give them, and heads of 64 waste nothing. A head is
told from its neighbours by zeros in the lanes of the others: a product over all lanes is then one over its own.

All keys at once make the softmax exact in one pass. The backward kernel computes it again, and needs nothing of the
forward pass but its inputs.

The bias depends on the distance alone: entry i, j of a block is number j - i of one vector. Row i is that vector moved
i lanes to the right; and its gradient is the sum of the rows, each moved back, which halving the rows takes
2 * b * (b + S) additions for.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5x_lite.nn import weight_dropout
from t5x_lite.nn.attention_inputs import Inputs, Places, Settings, accumulator
from t5x_lite.nn.dot_product import repeat_heads

MOST_KEYS = 4096  # a block of queries by all keys has to fit the vector memory several times
_LANES = 128
_SUBLANES = 8
_MASKED = -1e30  # below any logit, and far from overflow when two of them are subtracted
_VECTOR_MEMORY = 64 * 2**20  # bytes, of 128 MiB (v5e, v5p, v6e); v4 has 16 MiB, where the compiler takes what there is


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What a kernel is made for.

  Attributes:
    settings: scale, dropout.
    block: b, queries of a step.
    queries: T.
    keys: S.
    group: heads of a step.
    head_dim: H.
    causal: whether queries see no later keys.
    window: see `Mask.window`.
    any_window: whether there is a window among the scalars.
    prefix: whether there is a prefix.
    bias: whether there is a bias.
    drops: whether weights are dropped.
  """

  settings: Settings
  block: int
  queries: int
  keys: int
  group: int
  head_dim: int
  causal: bool
  window: int | None
  any_window: bool
  prefix: bool
  bias: bool
  drops: bool


# Places in the vector of int32 scalars.
_OFFSET, _WINDOW, _SEED, _FIRST_ROW, _FIRST_HEAD, _SCALARS = 0, 1, 2, 4, 5, 6


def pallas_attention(inputs: Inputs, settings: Settings) -> jax.Array:
  """Softmax attention, `[B, T, N, H]` in the dtype of the query; 0 where a query sees nothing.

  Logits and softmax are float32. Takes masks by segment, prefix, causal and local ones, and at most `MOST_KEYS` keys.
  """
  batch, queries, heads, width = inputs.query.shape
  keys = inputs.key.shape[1]
  padded_keys, padded_queries = _up(keys, _LANES), _up(queries, _LANES)
  block = 2 * _LANES if padded_queries % (2 * _LANES) == 0 and padded_keys <= 1024 else _LANES
  mask = inputs.places.mask
  plan = _Plan(
    settings=settings,
    block=block,
    queries=queries,
    keys=keys,
    group=_group(heads, width),
    head_dim=width,
    causal=mask.causal,
    window=mask.window,
    any_window=inputs.places.window is not None,
    prefix=mask.causal and mask.prefix is not None,
    bias=inputs.bias is not None,
    drops=inputs.places.seed is not None,
  )
  ones = jnp.ones((batch, 1), jnp.int32)
  query_segments = jnp.broadcast_to(ones, (batch, queries)) if mask.query_segments is None else mask.query_segments
  key_segments = jnp.broadcast_to(ones, (batch, keys)) if mask.key_segments is None else mask.key_segments
  # Keys beyond the end are padding, which nothing sees; queries beyond the end see all, and are written nowhere.
  integers = [
    _scalars(inputs.places),
    _fill(query_segments, padded_queries)[:, :, None],
    _fill(key_segments, padded_keys)[:, None, :],
  ]
  if plan.prefix:
    assert mask.prefix is not None
    integers.append(_fill(mask.prefix.astype(jnp.int32), padded_keys)[:, None, :])
  arrays = [inputs.query.reshape(batch, queries, -1)]
  arrays += [repeat_heads(x, heads).reshape(batch, keys, -1) for x in (inputs.key, inputs.value)]
  distances = inputs.distances(padded_queries, padded_keys)
  if distances is not None:
    arrays.append(_windows(distances.astype(accumulator(inputs.query)), plan, padded_queries, padded_keys))
  return _attend(plan, tuple(arrays), tuple(integers)).reshape(inputs.query.shape)


def _group(heads: int, width: int) -> int:
  """How many heads fill whole registers; all of them where no number does."""
  group = _LANES // math.gcd(_LANES, width)
  return group if heads % group == 0 else heads


def _scalars(places: Places) -> jax.Array:
  seed = jnp.zeros(2, jnp.int32) if places.seed is None else places.seed
  first = jnp.zeros(2, jnp.int32) if places.first is None else places.first
  window = jnp.zeros((), jnp.int32) if places.window is None else places.window
  return jnp.concatenate([jnp.stack([places.offset, window]), seed, first])


def _windows(distances: jax.Array, plan: _Plan, queries: int, keys: int) -> jax.Array:
  """The part of the bias by distance that each block of queries needs, `[N / g, T / b, g, b + S]`.

  Number m of block t belongs to distance m - b - t * b.
  """
  vector = jnp.pad(distances, ((0, 0), (1, 0)))
  starts = range(queries - plan.block, -1, -plan.block)
  windows = jnp.stack([vector[:, start : start + plan.block + keys] for start in starts], axis=1)
  return windows.reshape(-1, plan.group, *windows.shape[1:]).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...]) -> jax.Array:
  """`[B, T, N * H]` of queries, keys and values `[B, L, N * H]`, and the windows of the bias."""
  return _run_forward(plan, arrays, integers)


# Jitted, the kernel is traced and lowered once for all layers of an unrolled stack.
@functools.partial(jax.jit, static_argnums=0)
def _run_forward(plan: _Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...]) -> jax.Array:
  query = arrays[0]
  grid = (query.shape[0], query.shape[2] // (plan.group * plan.head_dim), pl.cdiv(plan.queries, plan.block))
  return pl.pallas_call(
    functools.partial(_forward_kernel, plan),
    grid=grid,
    in_specs=_in_specs(plan, arrays, lambda b, p, t: (b, p, t)),
    out_specs=_query_spec(plan, lambda b, p, t: (b, p, t)),
    out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
    compiler_params=_compiler_params('parallel', 'parallel', 'arbitrary'),
    interpret=plan.settings.interpret,
    name='attention_forward',
  )(*integers, *arrays)


def _forward(plan: _Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...]) -> tuple[jax.Array, Any]:
  return _attend(plan, arrays, integers), (arrays, integers)


def _backward(plan: _Plan, residuals: Any, cotangent: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
  return _run_backward(plan, *residuals, cotangent), None


_attend.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=0)
def _run_backward(
  plan: _Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, ...]:
  """The gradients of `arrays`."""
  query, key, value = arrays[:3]
  lanes, dtype = plan.group * plan.head_dim, accumulator(query)
  grid = (query.shape[2] // lanes, query.shape[0], pl.cdiv(plan.queries, plan.block))

  # Heads outermost: the gradient of their bias is summed over all rows and blocks before the next heads begin.
  def order(p: Any, b: Any, t: Any) -> tuple[Any, Any, Any]:
    return b, p, t

  key_spec = _key_spec(plan, order)
  out_specs = [_query_spec(plan, order), key_spec, key_spec]
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)]
  if plan.bias:
    out_specs.append(pl.BlockSpec((1, *arrays[3].shape[1:]), lambda p, b, t: (p, 0, 0, 0)))
    shapes.append(jax.ShapeDtypeStruct(arrays[3].shape, dtype))
  gradients = pl.pallas_call(
    functools.partial(_backward_kernel, plan),
    grid=grid,
    in_specs=[*_in_specs(plan, arrays, order), _query_spec(plan, order)],
    out_specs=out_specs,
    out_shape=shapes,
    scratch_shapes=[pltpu.VMEM((_up(plan.keys, _LANES), lanes), dtype)] * 2,
    compiler_params=_compiler_params('parallel', 'arbitrary', 'arbitrary'),
    interpret=plan.settings.interpret,
    name='attention_backward',
  )(*integers, *arrays, cotangent)
  return tuple(gradients)


def _in_specs(plan: _Plan, arrays: tuple[jax.Array, ...], order: Any) -> list[Any]:
  """Which block of each input a step has; `order` gives row, group of heads and block of queries of a step."""
  keys = _up(plan.keys, _LANES)

  def at(*axes: str) -> Any:
    def index(*step: Any) -> tuple[Any, ...]:
      named = dict(zip('bpt', order(*step), strict=True))
      return tuple(named.get(axis, 0) for axis in axes)

    return index

  specs = [
    pl.BlockSpec(memory_space=pltpu.SMEM),
    pl.BlockSpec((1, plan.block, 1), at('b', 't', '')),
    pl.BlockSpec((1, 1, keys), at('b', '', '')),
  ]
  specs += [pl.BlockSpec((1, 1, keys), at('b', '', ''))] * plan.prefix
  specs += [_query_spec(plan, order)] + [_key_spec(plan, order)] * 2
  if plan.bias:
    specs.append(pl.BlockSpec((1, 1, *arrays[3].shape[2:]), at('p', 't', '', '')))
  return specs


def _query_spec(plan: _Plan, order: Any) -> pl.BlockSpec:
  def index(*step: Any) -> tuple[Any, ...]:
    b, p, t = order(*step)
    return b, t, p

  return pl.BlockSpec((1, plan.block, plan.group * plan.head_dim), index)


def _key_spec(plan: _Plan, order: Any) -> pl.BlockSpec:
  def index(*step: Any) -> tuple[Any, ...]:
    b, p, _ = order(*step)
    return b, 0, p

  return pl.BlockSpec((1, _up(plan.keys, _LANES), plan.group * plan.head_dim), index)


def _compiler_params(*semantics: str) -> Any:
  return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=_VECTOR_MEMORY)


@dataclasses.dataclass(frozen=True)
class _Step:
  """What a step of either kernel has: references to its integers and windows, its arrays, and where it is."""

  plan: _Plan
  scalars: Any
  query_segments: Any
  key_segments: Any
  prefix: Any
  query: jax.Array
  key: jax.Array
  value: jax.Array
  windows: Any
  row: jax.Array
  group: jax.Array
  block: jax.Array

  @classmethod
  def read(cls, plan: _Plan, refs: tuple[Any, ...], order: tuple[int, int, int]) -> tuple[_Step, list[Any]]:
    """The step of these references, and the references that are left."""
    left = list(refs)
    integers = [left.pop(0) for _ in range(3)]
    prefix = left.pop(0) if plan.prefix else None
    arrays = [left.pop(0) for _ in range(3)]
    windows = left.pop(0) if plan.bias else None
    row, group, block = (pl.program_id(axis) for axis in order)
    query, key, value = _in_row(arrays[0], plan.queries, block), *(_in_row(x, plan.keys) for x in arrays[1:])
    return cls(plan, *integers, prefix, query, key, value, windows, row, group, block), left  # type: ignore[call-arg]

  def places(self) -> tuple[jax.Array, jax.Array]:
    """Row indices of queries and keys, int32 `[b, S]`."""
    shape = (self.plan.block, self.key.shape[0])
    first = self.block * self.plan.block + self.scalars[_OFFSET]
    return jax.lax.broadcasted_iota(jnp.int32, shape, 0) + first, jax.lax.broadcasted_iota(jnp.int32, shape, 1)

  def visible(self) -> jax.Array:
    """Who sees whom, bool `[b, S]`."""
    plan, queries, keys = self.plan, self.query_segments[0], self.key_segments[0]
    visible = (keys > 0) & ((queries == keys) | (queries == 0))
    query_index, key_index = self.places()
    if plan.causal:
      past = key_index <= query_index
      visible &= past if self.prefix is None else past | (self.prefix[0] > 0)
    if plan.window is not None:
      visible &= jnp.abs(key_index - query_index) < plan.window
    if plan.any_window:
      visible &= jnp.abs(key_index - query_index) < self.scalars[_WINDOW]
    return visible

  def of_head(self, x: jax.Array, head: int) -> jax.Array:
    """`[L, g * H]` with zeros in the lanes of the other heads."""
    return jnp.where(self.lanes(head), x, jnp.zeros((), x.dtype))

  def lanes(self, head: int) -> jax.Array:
    """Which lanes are a head's, bool `[1, g * H]`."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, self.plan.group * self.plan.head_dim), 1)
    width = jnp.int32(self.plan.head_dim)
    return (lane >= head * width) & (lane < (head + 1) * width)

  def weights(self, head: int, query: jax.Array, visible: jax.Array) -> jax.Array:
    """The softmax of a head, `[b, S]`, for its queries `[b, g * H]`."""
    plan = self.plan
    logits = _dot(query, self.key, 1, 1) * plan.settings.scale
    if self.windows is not None:
      logits += _spread(self.windows[0, 0, head : head + 1, :], plan.block)
    logits = jnp.where(visible, logits, _MASKED)
    weights = jnp.where(visible, jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0.0, total, 1.0)

  def dropped(self, head: int, weights: jax.Array) -> jax.Array:
    """Weights of a head, or their gradients, after dropout."""
    plan = self.plan
    if not plan.drops:
      return weights
    query_index, key_index = self.places()
    row, in_row = self.row + self.scalars[_FIRST_ROW], self.group * plan.group + head + self.scalars[_FIRST_HEAD]
    keep = weight_dropout.keep(
      (self.scalars[_SEED], self.scalars[_SEED + 1]),
      head=jnp.full((1, 1), row * plan.settings.all_heads + in_row, jnp.int32),
      query=query_index[:, :1],
      key=key_index[:1],
      dropout_rate=plan.settings.dropout_rate,
    )
    return jnp.where(keep, weights / (1.0 - plan.settings.dropout_rate), 0.0)


def _forward_kernel(plan: _Plan, *refs: Any) -> None:
  step, (out,) = _Step.read(plan, refs, (0, 1, 2))
  visible, query = step.visible(), step.query
  total = jnp.zeros(query.shape, accumulator(query))
  for head in range(plan.group):
    weights = step.dropped(head, step.weights(head, step.of_head(query, head), visible))
    total = jnp.where(step.lanes(head), _dot(weights.astype(query.dtype), step.value, 1, 0), total)
  out[0] = total.astype(out.dtype)


def _backward_kernel(plan: _Plan, *refs: Any) -> None:
  step, rest = _Step.read(plan, refs, (1, 0, 2))
  cotangent, d_query, d_key, d_value, *d_windows, key_sum, value_sum = rest
  first, last = step.block == 0, step.block == pl.num_programs(2) - 1

  @pl.when(first)
  def _() -> None:
    key_sum[...] = jnp.zeros_like(key_sum)
    value_sum[...] = jnp.zeros_like(value_sum)

  if d_windows:

    @pl.when(first & (step.row == 0))
    def _() -> None:
      d_windows[0][...] = jnp.zeros_like(d_windows[0])

  visible, query, d_out = step.visible(), step.query, _in_row(cotangent, plan.queries, step.block)
  total = jnp.zeros(query.shape, accumulator(query))
  for head in range(plan.group):
    of_head, d_of_head, lanes = step.of_head(query, head), step.of_head(d_out, head), step.lanes(head)
    weights = step.weights(head, of_head, visible)
    # Zeros in the lanes of other heads make the two sums over queries add to the lanes of this head alone.
    value_sum[...] += _dot(step.dropped(head, weights).astype(query.dtype), d_of_head, 0, 0)
    d_weights = step.dropped(head, _dot(d_of_head, step.value, 1, 1))
    d_logits = weights * (d_weights - jnp.sum(weights * d_weights, axis=-1, keepdims=True))
    if d_windows:
      d_windows[0][0, step.block, head : head + 1, :] += _gathered(d_logits)
    d_logits = (d_logits * plan.settings.scale).astype(query.dtype)
    key_sum[...] += _dot(d_logits, of_head, 0, 0)
    total = jnp.where(lanes, _dot(d_logits, step.key, 1, 0), total)
  d_query[0] = total.astype(d_query.dtype)

  @pl.when(last)
  def _() -> None:
    d_key[0] = key_sum[...].astype(d_key.dtype)
    d_value[0] = value_sum[...].astype(d_value.dtype)


def _in_row(block_ref: Any, length: int, block: jax.Array | int = 0) -> jax.Array:
  """A block `[b, g * H]` of a row of that length, with zeros beyond its end, where memory may hold anything."""
  x = block_ref[0]
  if length % x.shape[0] == 0:
    return x
  place = jax.lax.broadcasted_iota(jnp.int32, (x.shape[0], 1), 0) + block * x.shape[0]
  return jnp.where(place < length, x, jnp.zeros((), x.dtype))


def _spread(vector: jax.Array, rows: int) -> jax.Array:
  """From `[1, b + S]` to `[b, S]`, of which entry i, j is number b + j - i."""
  square = jnp.broadcast_to(vector, (_SUBLANES, vector.shape[1]))
  square = pltpu.roll(square, 0, 1, stride=1, stride_axis=0)
  while square.shape[0] < rows:
    square = jnp.concatenate([square, pltpu.roll(square, square.shape[0], 1)], axis=0)
  return square[:, rows:]


def _gathered(square: jax.Array) -> jax.Array:
  """The transpose of `_spread`: from `[b, S]` to `[1, b + S]`, number m the sum of all entries i, m - b + i."""
  rows = square.shape[0]
  x = jnp.concatenate([jnp.zeros((rows, rows), square.dtype), square], axis=1)
  length = x.shape[1]
  while rows > _SUBLANES:
    rows //= 2
    x = x[:rows] + pltpu.roll(x[rows:], length - rows, 1)
  while rows > 1:
    # Within a register rows move as lanes do; those that wrap around end up beyond the first row.
    rows //= 2
    x = x + pltpu.roll(pltpu.roll(x, _SUBLANES - rows, 0), length - rows, 1)
  return x[:1]


def _dot(left: jax.Array, right: jax.Array, of_left: int, of_right: int) -> jax.Array:
  """The product of two matrices over these axes, accumulated in float32."""
  dimensions = (((of_left,), (of_right,)), ((), ()))
  return jax.lax.dot_general(left, right, dimensions, preferred_element_type=accumulator(left))


def _up(length: int, step: int) -> int:
  return -(-length // step) * step


def _fill(x: jax.Array, length: int) -> jax.Array:
  """`[B, L, ...]` with zeros up to `length`."""
  return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
