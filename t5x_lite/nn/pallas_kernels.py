"""What one step of our attention kernel does, forward and backward; see `nn.pallas_attention`.

The bias depends on the distance alone: entry i, j of a block is number j - i of one vector. Row i is that vector moved
i lanes to the right; and its gradient is the sum of the rows, each moved back, which halving the rows takes
2 * b * (b + S) additions for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5x_lite.nn import weight_dropout
from t5x_lite.nn.attention_inputs import Settings, accumulator

_SUBLANES = 8
_MASKED = -1e30  # below any logit, and far from overflow when two of them are subtracted


@dataclasses.dataclass(frozen=True)
class Plan:
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


# Places in the vector of int32 scalars: `Places.offset`, `window`, two numbers of `seed`, two of `first`.
_OFFSET, _WINDOW, _SEED, _FIRST_ROW, _FIRST_HEAD = 0, 1, 2, 4, 5


@dataclasses.dataclass(frozen=True)
class _Step:
  """What a step of either kernel has: references to its integers and windows, its arrays, and where it is."""

  plan: Plan
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
  def read(cls, plan: Plan, refs: tuple[Any, ...], order: tuple[int, int, int]) -> tuple[_Step, list[Any]]:
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


def forward_kernel(plan: Plan, *refs: Any) -> None:
  """Writes the output of a block of queries, in the order row, group of heads, block.

  Args:
    plan: what the kernel is made for.
    *refs: scalars; segments of queries `[1, b, 1]` and of keys `[1, 1, S]`; prefix `[1, 1, S]` if there is one; query,
      key and value `[1, L, g * H]`; windows of the bias `[1, 1, g, b + S]` if there is one; the output.
  """
  step, (out,) = _Step.read(plan, refs, (0, 1, 2))
  visible, query = step.visible(), step.query
  total = jnp.zeros(query.shape, accumulator(query))
  for head in range(plan.group):
    weights = step.dropped(head, step.weights(head, step.of_head(query, head), visible))
    total = jnp.where(step.lanes(head), _dot(weights.astype(query.dtype), step.value, 1, 0), total)
  out[0] = total.astype(out.dtype)


def backward_kernel(plan: Plan, *refs: Any) -> None:
  """Writes the gradient of a block of queries, and adds to those that blocks share; order: group of heads, row, block.

  Args:
    plan: what the kernel is made for.
    *refs: as in `forward_kernel`, with the cotangent for the output; then the gradients of query, key, value and, if
      there is a bias, of its windows `[1, T / b, g, b + S]`; at last two sums `[S, g * H]`.
  """
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
