"""Our attention kernel for TPUs: T5's relative bias and dropout of single weights, made inside and never stored.

One step of the kernel has a block of queries, all keys of its row, and as many heads as fill the 128 lanes of a vector
register; so arrays keep the layout `[B, L, N * H]` that projections give them, and heads of 64 waste nothing. A head is
told from its neighbours by zeros in the lanes of the others: a product over all lanes is then one over its own.

All keys at once make the softmax exact in one pass. The backward kernel computes it again, and needs nothing of the
forward pass but its inputs.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5x_lite.nn.attention_inputs import Inputs, Places, Settings, accumulator
from t5x_lite.nn.dot_product import repeat_heads
from t5x_lite.nn.pallas_kernels import Plan, backward_kernel, forward_kernel

MOST_KEYS = 4096  # a block of queries by all keys has to fit the vector memory several times
_LANES = 128
_VECTOR_MEMORY = 64 * 2**20  # bytes, of 128 MiB (v5e, v5p, v6e); v4 has 16 MiB, where the compiler takes what there is


def pallas_attention(inputs: Inputs, settings: Settings) -> jax.Array:
  """Softmax attention, `[B, T, N, H]` in the dtype of the query; 0 where a query sees nothing.

  Logits and softmax are float32. Takes masks by segment, prefix, causal and local ones, and at most `MOST_KEYS` keys.
  """
  batch, queries, heads, width = inputs.query.shape
  keys = inputs.key.shape[1]
  padded_keys, padded_queries = _up(keys, _LANES), _up(queries, _LANES)
  block = 2 * _LANES if padded_queries % (2 * _LANES) == 0 and padded_keys <= 1024 else _LANES
  mask = inputs.places.mask
  plan = Plan(
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


def _windows(distances: jax.Array, plan: Plan, queries: int, keys: int) -> jax.Array:
  """The part of the bias by distance that each block of queries needs, `[N / g, T / b, g, b + S]`.

  Number m of block t belongs to distance m - b - t * b.
  """
  vector = jnp.pad(distances, ((0, 0), (1, 0)))
  starts = range(queries - plan.block, -1, -plan.block)
  windows = jnp.stack([vector[:, start : start + plan.block + keys] for start in starts], axis=1)
  return windows.reshape(-1, plan.group, *windows.shape[1:]).swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...]) -> jax.Array:
  """`[B, T, N * H]` of queries, keys and values `[B, L, N * H]`, and the windows of the bias."""
  return _run_forward(plan, arrays, integers)


# Jitted, the kernel is traced and lowered once for all layers of an unrolled stack.
@functools.partial(jax.jit, static_argnums=0)
def _run_forward(plan: Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...]) -> jax.Array:
  query = arrays[0]
  grid = (query.shape[0], query.shape[2] // (plan.group * plan.head_dim), pl.cdiv(plan.queries, plan.block))
  return pl.pallas_call(
    functools.partial(forward_kernel, plan),
    grid=grid,
    in_specs=_in_specs(plan, arrays, lambda b, p, t: (b, p, t)),
    out_specs=_query_spec(plan, lambda b, p, t: (b, p, t)),
    out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
    compiler_params=_compiler_params('parallel', 'parallel', 'arbitrary'),
    interpret=plan.settings.interpret,
    name='attention_forward',
  )(*integers, *arrays)


def _forward(plan: Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...]) -> tuple[jax.Array, Any]:
  return _attend(plan, arrays, integers), (arrays, integers)


def _backward(plan: Plan, residuals: Any, cotangent: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
  return _run_backward(plan, *residuals, cotangent), None


_attend.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=0)
def _run_backward(
  plan: Plan, arrays: tuple[jax.Array, ...], integers: tuple[jax.Array, ...], cotangent: jax.Array
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
    functools.partial(backward_kernel, plan),
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


def _in_specs(plan: Plan, arrays: tuple[jax.Array, ...], order: Any) -> list[Any]:
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


def _query_spec(plan: Plan, order: Any) -> pl.BlockSpec:
  def index(*step: Any) -> tuple[Any, ...]:
    b, p, t = order(*step)
    return b, t, p

  return pl.BlockSpec((1, plan.block, plan.group * plan.head_dim), index)


def _key_spec(plan: Plan, order: Any) -> pl.BlockSpec:
  def index(*step: Any) -> tuple[Any, ...]:
    b, p, _ = order(*step)
    return b, 0, p

  return pl.BlockSpec((1, _up(plan.keys, _LANES), plan.group * plan.head_dim), index)


def _compiler_params(*semantics: str) -> Any:
  return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=_VECTOR_MEMORY)


def _up(length: int, step: int) -> int:
  return -(-length // step) * step


def _fill(x: jax.Array, length: int) -> jax.Array:
  """`[B, L, ...]` with zeros up to `length`."""
  return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
