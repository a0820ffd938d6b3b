"""Products of activations and kernels, forward and backward: the one place that knows what makes them fast and exact.

In half precision operands are half precision, sums are float32, and each result is rounded once: the output and the
gradient of the activations to their own dtype, the gradient of the kernel not at all. `jnp.einsum` differentiated by
JAX would round the gradient of the kernel to half precision, and with a float32 output it would multiply a float32
cotangent, without the matrix units.

On the CPU, XLA has fast half-precision products (AMX, AVX512-BF16) under two conditions, both of which are met here:
the result is float32, and the contracted axis of the left operand is the last one. The second is why the gradient of
the kernel contracts two axes, batch and length: XLA then lays its left operand out anew, where with a single axis it
folds that transpose into the product and runs it on a slow path.

A step of decoding is products of a few rows, in which all that counts is that the kernel is read once, from front to
back. On the CPU, XLA walks down the columns of the right operand, a cache line of each of its rows at a time, and along
the rows of the left one. So there the kernel is the left one, and lies as `[F, D]` (`ByOutput`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

# What policies of rematerialisation call the result of `project`, and what attention keeps.
PROJECTION = 'projection'
ATTENTION = 'attention'

_FEW_ROWS = 64  # at most: beyond, the other operand is worth being laid out anew


class ByOutput(struct.PyTreeNode):
  """A kernel of which each output has a row, for decoding on a CPU; nothing is differentiated by it.

  Attributes:
    rows: `[F, D]`.
  """

  rows: jax.Array


def project(x: jax.Array, kernel: jax.Array | ByOutput, dtype: Any) -> jax.Array:
  """`x @ kernel` for `[..., D]` and `[D, F]`: `[..., F]` in `dtype`, which is also that of the operands."""
  if isinstance(kernel, ByOutput):
    dtype = jnp.dtype(dtype)
    return _by_rows(x.astype(dtype), kernel.rows.astype(dtype), _wide(dtype)).astype(dtype)
  return checkpoint_name(_product(x, kernel, 0, jnp.dtype(dtype), jnp.dtype(dtype)), PROJECTION)


def project_each(x: jax.Array, kernels: jax.Array, dtype: Any) -> jax.Array:
  """`project` of every expert's tokens by its own kernel, for `[E, ..., D]` and `[E, D, F]`: `[E, ..., F]`."""
  return jax.vmap(functools.partial(project, dtype=dtype))(x, kernels)


def attend(hidden: jax.Array, table: jax.Array) -> jax.Array:
  """`hidden @ table.T` for `[..., D]` and `[V, D]`: float32 `[..., V]`; operands have the dtype of `hidden`."""
  return _product(hidden, table, 1, hidden.dtype, jnp.dtype(jnp.float32))


def held(y: jax.Array) -> jax.Array:
  """A product that is transposed next: without a barrier XLA would rather exchange its operands, which are as they are
  for a CPU to read them fast.
  """
  return jax.lax.platform_dependent(y, cpu=jax.lax.optimization_barrier, default=lambda y: y)


def outer_sum(x: jax.Array, y: jax.Array) -> jax.Array:
  """`x.T @ y` over all leading axes for `[..., D]` and `[..., F]` of one dtype: `[D, F]`, at least float32."""
  if not _is_half(x.dtype):
    if x.shape[-1] <= y.shape[-1]:
      return _contract_leading(x, y)
    # On the CPU, XLA lays the left operand out anew, and all that was to be fused into it: let that be the smaller one.
    return jax.lax.platform_dependent(x, y, cpu=lambda x, y: _contract_leading(y, x).T, default=_contract_leading)
  return jax.lax.platform_dependent(
    x, y, cpu=lambda x, y: _contract_leading(_two_leading(x), _two_leading(y)), default=_contract_leading
  )


def for_rows(x: jax.Array, rows: int) -> jax.Array:
  """`[1, ...]` as float32 `[rows, ...]`, whose gradient is summed over the rows in float32."""
  return _for_rows(x.astype(jnp.float32), rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _for_rows(x: jax.Array, rows: int) -> jax.Array:
  return jnp.broadcast_to(x, (rows, *x.shape[1:]))


def _sum_of_rows(rows: int, residuals: None, dy: jax.Array) -> tuple[jax.Array]:
  # On the CPU, XLA's sum over few rows of many numbers takes forty times as long as this product.
  product = functools.partial(jnp.tensordot, jnp.ones((1, rows), dy.dtype), axes=1)
  return (jax.lax.platform_dependent(dy, cpu=product, default=lambda dy: jnp.sum(dy, axis=0, keepdims=True)),)


_for_rows.defvjp(lambda x, rows: (_for_rows(x, rows), None), _sum_of_rows)


def _contract_leading(x: jax.Array, y: jax.Array) -> jax.Array:
  axes = tuple(range(x.ndim - 1))
  return _dot(x, y, (axes, axes), _wide(x.dtype))


def _two_leading(x: jax.Array) -> jax.Array:
  """`x` with two leading axes that are not 1, where there is one and it can be cut in half."""
  leading = [size for size in x.shape[:-1] if size > 1]
  if len(leading) != 1 or leading[0] % 2:
    return x
  return x.reshape(2, leading[0] // 2, x.shape[-1])


def _contract_last(x: jax.Array, kernel: jax.Array, kernel_axis: int, out_dtype: jnp.dtype) -> jax.Array:
  """The last axis of `x` against an axis of a matrix of the same dtype."""
  axes = ((x.ndim - 1,), (kernel_axis,))
  by_rows = kernel_axis == 1 and _are_few(x)
  if not _is_half(out_dtype) and not by_rows:
    return _dot(x, kernel, axes, out_dtype)

  def on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    dtype = _wide(out_dtype)
    return (_by_rows(x, kernel, dtype) if by_rows else _dot(x, kernel, axes, dtype)).astype(out_dtype)

  # Accelerators sum in float32 anyway, and need not write it.
  return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=lambda x, kernel: _dot(x, kernel, axes, out_dtype))


def _by_rows(x: jax.Array, rows: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """`x @ rows.T` for `[..., D]` and `[F, D]`: `[..., F]`."""
  if not _are_few(x):
    return _dot(x, rows, ((x.ndim - 1,), (1,)), dtype)
  y = held(_dot(rows, x.reshape(-1, x.shape[-1]), ((1,), (1,)), dtype))
  return y.T.reshape(*x.shape[:-1], len(rows))


def _are_few(x: jax.Array) -> bool:
  return math.prod(x.shape[:-1]) <= _FEW_ROWS


def _dot(x: jax.Array, y: jax.Array, axes: tuple[tuple[int, ...], tuple[int, ...]], dtype: jnp.dtype) -> jax.Array:
  return jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=dtype)


def _is_half(dtype: jnp.dtype) -> bool:
  return jnp.dtype(dtype).itemsize < 4


def _wide(dtype: jnp.dtype) -> jnp.dtype:
  """What products of this dtype are summed in."""
  return jnp.dtype(jnp.float32) if _is_half(dtype) else jnp.dtype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(x: jax.Array, kernel: jax.Array, kernel_axis: int, dtype: jnp.dtype, out_dtype: jnp.dtype) -> jax.Array:
  """`x` `[..., D]` against axis `kernel_axis` of a matrix; operands in `dtype`."""
  return _contract_last(x.astype(dtype), kernel.astype(dtype), kernel_axis, out_dtype)


def _forward(
  x: jax.Array, kernel: jax.Array, kernel_axis: int, dtype: jnp.dtype, out_dtype: jnp.dtype
) -> tuple[jax.Array, tuple]:
  # The kernel is kept as it came, a parameter: kept in half precision, it would be one array more.
  empty = jnp.zeros((0,), x.dtype)  # tells its dtype
  x = x.astype(dtype)
  return _contract_last(x, kernel.astype(dtype), kernel_axis, out_dtype), (x, kernel, empty)


def _backward(kernel_axis: int, dtype: jnp.dtype, out_dtype: jnp.dtype, residuals: tuple, dy: jax.Array) -> tuple:
  x, kernel, empty = residuals
  dy = dy.astype(dtype)
  dx = _contract_last(dy, kernel.astype(dtype), 1 - kernel_axis, empty.dtype)
  d_kernel = outer_sum(x, dy) if kernel_axis == 0 else outer_sum(dy, x)
  return dx, d_kernel.astype(kernel.dtype)


_product.defvjp(_forward, _backward)
