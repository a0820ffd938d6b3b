"""Products: values and gradients are those of plain einsum, rounded once; the fast forms stay what they are."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5x_lite.core import products

SHAPES = [(2, 6, 8), (1, 6, 8), (6, 8), (5, 8), (8,), (2, 3, 4, 8)]


def draws(shape, features, dtype, seed=0):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.standard_normal(shape), dtype)
  kernel = jnp.asarray(rng.standard_normal((shape[-1], features)), jnp.float32)
  return x, kernel


def plain(x, kernel):
  return jnp.einsum('...d,df->...f', x, kernel)


def plain_attend(x, kernel):
  return jnp.einsum('...d,vd->...v', x, kernel.T)


def attend(x, kernel):
  return products.attend(x, kernel.T)


def project(x, kernel):
  return products.project(x, kernel, x.dtype)


def value_and_gradients(function, x, kernel):
  y, pull = jax.vjp(function, x, kernel)
  dy = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), y.dtype)
  return y, *pull(dy)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('ours, theirs', [(project, plain), (attend, plain_attend)])
def test_values_and_gradients_are_those_of_einsum_in_float32(shape, ours, theirs):
  x, kernel = draws(shape, 7, jnp.float32)
  found, expected = (jax.jit(functools.partial(value_and_gradients, f))(x, kernel) for f in (ours, theirs))
  for mine, reference in zip(found, expected, strict=True):
    assert mine.dtype == reference.dtype
    np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('shape', SHAPES)
def test_half_precision_rounds_once_and_the_gradient_of_the_kernel_not_at_all(shape):
  x, kernel = draws(shape, 7, jnp.bfloat16)
  y, dx, d_kernel = value_and_gradients(project, x, kernel)
  exact = value_and_gradients(plain, *(a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel)))
  dy = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), y.dtype).astype(jnp.float32)
  exact_dx, exact_d_kernel = jax.vjp(plain, *(a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel)))[1](dy)
  assert (y.dtype, dx.dtype, d_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
  np.testing.assert_allclose(y.astype(jnp.float32), exact[0], rtol=2**-8, atol=1e-6)
  np.testing.assert_allclose(dx.astype(jnp.float32), exact_dx, rtol=2**-8, atol=1e-6)
  np.testing.assert_allclose(d_kernel, exact_d_kernel, rtol=1e-5, atol=1e-5)


def test_logits_of_half_precision_are_float32_and_not_rounded():
  x, kernel = draws((2, 6, 8), 7, jnp.bfloat16)
  exact = plain(*(a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel)))
  logits = attend(x, kernel)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, rtol=1e-6, atol=1e-6)


def test_operands_of_another_dtype_get_gradients_of_their_own():
  x, kernel = draws((2, 6, 8), 7, jnp.float32)
  _, dx, d_kernel = value_and_gradients(lambda x, kernel: products.project(x, kernel, jnp.bfloat16), x, kernel)
  assert (dx.dtype, d_kernel.dtype) == (jnp.float32, jnp.float32)
  _, exact_dx, exact_d_kernel = value_and_gradients(plain, x, kernel)
  np.testing.assert_allclose(dx, exact_dx, rtol=0.05, atol=0.05)
  np.testing.assert_allclose(d_kernel, exact_d_kernel, rtol=0.05, atol=0.05)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_mapped_over_examples_it_is_the_same(dtype):
  x, kernel = draws((3, 4, 6, 8), 7, dtype)
  mapped = jax.vmap(project, in_axes=(0, None))(x, kernel)
  np.testing.assert_array_equal(mapped, project(x, kernel))


@pytest.mark.parametrize('shape', [(4, 16, 32), (1, 16, 32), (16, 32)])
def test_no_left_operand_is_read_transposed_on_the_cpu(shape):
  # XLA's fast half-precision products want the contracted axis of the left operand last, and a float32 result.
  x, kernel = draws(shape, 64, jnp.bfloat16)
  text = jax.jit(functools.partial(value_and_gradients, project)).lower(x, kernel).compile().as_text()
  dots = re.findall(r'= (\w+)\[.*? dot\(.*?lhs_contracting_dims=\{(\d)\}', text)
  assert dots == [('f32', '1')] * 3, dots


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_of_each_expert_it_is_that_of_its_own_kernel(dtype):
  tokens, dy = (draws((3, 2, 5, width), 1, dtype, seed)[0] for width, seed in ((8, 0), (7, 1)))
  kernels = jnp.stack([draws((8,), 7, dtype, seed)[1] for seed in range(3)])
  y, pull = jax.vjp(lambda x, kernels: products.project_each(x, kernels, dtype), tokens, kernels)
  dx, d_kernels = pull(dy)
  assert (y.dtype, dx.dtype, d_kernels.dtype) == (dtype, dtype, jnp.float32)
  rtol = 2**-8 if dtype == jnp.bfloat16 else 1e-5
  for i in range(3):
    alone, pull = jax.vjp(project, tokens[i], kernels[i])
    for found, expected in zip((y, dx, d_kernels), (alone, *pull(dy[i])), strict=True):
      np.testing.assert_allclose(found[i].astype(jnp.float32), expected.astype(jnp.float32), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_rows_on_many_devices_are_not_gathered(dtype):
  mesh = jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
  x, kernel = draws((8, 16, 32), 64, dtype)
  rows, columns = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in [('data',), (None, 'tensor')])
  step = jax.jit(lambda x, kernel: jax.vjp(project, x, kernel)[1](project(x, kernel)), in_shardings=(rows, columns))
  text = step.lower(x, kernel).compile().as_text()
  assert 'all-gather' not in text
  assert 'all-reduce' in text


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_what_all_rows_share_gets_the_sum_of_their_gradients(dtype):
  rng = np.random.default_rng(0)
  x, dy = jnp.asarray(rng.standard_normal((1, 3, 5)), dtype), jnp.asarray(rng.standard_normal((4, 3, 5)), jnp.float32)
  y, pull = jax.vjp(lambda x: products.for_rows(x, 4), x)
  np.testing.assert_array_equal(y, np.broadcast_to(x.astype(jnp.float32), (4, 3, 5)))
  (dx,) = pull(dy)
  assert dx.dtype == dtype
  np.testing.assert_allclose(dx.astype(jnp.float32), np.sum(dy, 0, keepdims=True), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(('wide', 'narrow'), [(12, 5), (5, 12)])
def test_a_sum_of_outer_products_is_the_same_whichever_side_is_laid_out_anew(wide, narrow):
  rng = np.random.default_rng(0)
  x, y = (jnp.asarray(rng.standard_normal((2, 6, width)), jnp.float32) for width in (wide, narrow))
  np.testing.assert_allclose(products.outer_sum(x, y), np.einsum('btd,btf->df', x, y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(8,), (3, 8), (3, 1, 8), (5, 20, 8)])
def test_a_kernel_with_a_row_for_each_output_makes_the_same(shape, dtype):
  x, kernel = draws(shape, 7, dtype)
  found = products.project(x, products.ByOutput(kernel.T), dtype)
  assert found.dtype == dtype
  exact = plain(*(a.astype(dtype).astype(jnp.float32) for a in (x, kernel)))
  np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=1e-5 if dtype == jnp.float32 else 2**-8, atol=1e-5)


@pytest.mark.parametrize('rows', [1, 8, 64])
def test_of_a_few_rows_the_kernel_is_the_left_operand_on_the_cpu(rows):
  # XLA may neither turn it nor turn the product: it would walk down the columns of the kernel.
  x = jnp.zeros((rows, 1, 96))
  for function in (
    lambda x, kernel: products.project(x, products.ByOutput(kernel), jnp.float32),
    lambda x, table: jnp.argmax(products.attend(x, table), axis=-1),
  ):
    text = jax.jit(function).lower(x, jnp.zeros((160, 96))).compile().as_text()
    (shape,) = re.findall(r'= f32\[([\d,]+)\]\S* dot\(', text)
    assert shape == f'160,{rows}', text
    assert not re.search(r'= f32\[96,160\]', text), text
