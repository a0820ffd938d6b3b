"""Programs are read as they run: instructions, shapes, and how often each of them is executed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from t5x_lite.planning import costs, hlo

# As a TPU prints it: loops have no known trip count, and layouts say what lies in VMEM.
LOOP = """HloModule loop, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add.9 = f32[]{:T(128)} add(%a, %b)
}

%body (state: (u32[], f32[4,8])) -> (u32[], f32[4,8]) {
  %state = (u32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.1 = u32[]{:T(128)} get-tuple-element(%state), index=0
  %get-tuple-element.2 = f32[4,8]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %constant.2 = u32[]{:T(128)} constant(2)
  %add.1 = u32[]{:T(128)} add(%get-tuple-element.1, %constant.2)
  %negate.1 = f32[4,8]{1,0:T(8,128)} negate(%get-tuple-element.2)
  ROOT %tuple.1 = (u32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) tuple(%add.1, %negate.1)
}

%condition (state.1: (u32[], f32[4,8])) -> pred[] {
  %constant.4 = u32[]{:T(128)} constant(9)
  %state.1 = (u32[]{:T(128)}, /*index=1*/f32[4,8]{1,0:T(8,128)}) parameter(0)
  %get-tuple-element.3 = u32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %compare.1 = pred[]{:T(512)} compare(%get-tuple-element.3, %constant.4), direction=LT
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0:T(8,128)} parameter(0), metadata={op_name="batch[\\'x\\']"}
  %constant.1 = u32[]{:T(128)} constant(1)
  %tuple.2 = (u32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) tuple(%constant.1, %x)
  %while.1 = (u32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) while(%tuple.2), condition=%condition, body=%body
  ROOT %get-tuple-element.4 = f32[4,8]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
}
"""


def flops(program):
  return sum(cost.times * cost.flops for cost in costs.costs(program))


def moved(program):
  return sum(cost.times * cost.bytes for cost in costs.costs(program))


def test_a_loop_goes_round_from_its_start_to_its_limit_by_its_step():
  program = hlo.Program(LOOP)
  assert program.counts['body'] == program.counts['condition'] == 4  # 1, 3, 5, 7
  assert program.counts['main'] == 1 and program.counts['sum'] == 0
  # The negation reads and writes float32 [4, 8] in every round; the counter is next to nothing.
  assert 0 <= moved(program) - 4 * 2 * 4 * 8 * 4 <= 4 * 32


def test_a_name_of_an_operation_is_read_and_vmem_is_not_main_memory():
  program = hlo.Program(LOOP)
  assert program.entry.instructions['x'].op_name == "batch[\\'x\\']"
  (array,) = hlo.arrays('bf16[12,64,2,96]{3,1,2,0:T(8,128)(2,1)S(1)}')
  assert (array.dtype, array.dims, array.space, array.bytes) == ('bf16', (12, 64, 2, 96), 1, 2 * 12 * 64 * 2 * 96)
  assert [a.bytes for a in hlo.arrays('(pred[3], s4[8]{0}, f8e4m3fn[2,2], f32[], token[])')] == [3, 4, 4, 4, 0]


@pytest.mark.parametrize('layers', [1, 3, 7])
@pytest.mark.parametrize('unroll', [False, True])
def test_products_of_a_scan_count_once_for_every_layer(layers, unroll):
  def scanned(x, kernels):
    return jax.lax.scan(lambda carry, kernel: (jnp.tanh(carry @ kernel), None), x, kernels, unroll=unroll)[0]

  shapes = jax.ShapeDtypeStruct((32, 64), jnp.float32), jax.ShapeDtypeStruct((layers, 64, 64), jnp.float32)
  program = hlo.Program(jax.jit(scanned).lower(*shapes).compile().as_text())
  assert flops(program) == layers * 2 * 32 * 64 * 64


def test_products_within_nested_loops_multiply():
  def inner(carry, kernel):
    return jax.lax.fori_loop(0, 5, lambda _, x: jnp.sin(x @ kernel), carry), None

  def outer(x, kernels):
    return jax.lax.scan(inner, x, kernels)[0]

  shapes = jax.ShapeDtypeStruct((16, 32), jnp.float32), jax.ShapeDtypeStruct((3, 32, 32), jnp.float32)
  program = hlo.Program(jax.jit(outer).lower(*shapes).compile().as_text())
  assert flops(program) == 3 * 5 * 2 * 16 * 32 * 32


def test_a_loop_that_may_stop_earlier_counts_to_its_limit():
  def write(x):
    def unfinished(carry):
      return (carry[0] < 11) & ~jnp.all(carry[1] > 1e9)

    return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, carry[1] @ carry[1]), (0, x))[1]

  program = hlo.Program(jax.jit(write).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile().as_text())
  assert flops(program) == 11 * 2 * 8**3


def test_a_slice_of_a_stack_is_read_and_not_the_stack():
  def pick(stack, index):
    return jnp.tanh(jax.lax.dynamic_index_in_dim(stack, index, keepdims=False))

  shapes = jax.ShapeDtypeStruct((1000, 64, 64), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
  program = hlo.Program(jax.jit(pick).lower(*shapes).compile().as_text())
  assert 2 * 64 * 64 * 4 <= moved(program) <= 6 * 64 * 64 * 4


@pytest.mark.parametrize(
  ('shapes', 'line', 'expected'),
  [
    # Attention logits of 16 rows and 12 heads, batch axes as dilated windows that meet one position each.
    (
      ('f32[16,512,12,64]', 'f32[16,512,12,64]'),
      'f32[16,12,512,512] convolution(%a, %b), window={size=16x12 stride=15x11 lhs_dilate=16x12}, '
      'dim_labels=0b1f_0o1i->01bf',
      2 * 16 * 12 * 512 * 512 * 64,
    ),
    # A one-hot product of T5's position bias, an axis of 114 queries as a window with padding.
    (
      ('bf16[12,32,1]', 'pred[114,114,32]'),
      'bf16[12,114,114] convolution(%a, %b), window={size=114 pad=113_113 rhs_reversal=1}, dim_labels=bf0_0oi->b0f',
      2 * 12 * 114 * 114 * 32,
    ),
    # A plain product.
    (('f32[8,16]', 'f32[16,4]'), 'f32[8,4] dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}', 1024),
    # One of a library on a GPU.
    (
      ('f32[8,16]', 'f32[4,16]'),
      'f32[8,4] custom-call(%a, %b), custom_call_target="__cublas$gemm", '
      'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}',
      1024,
    ),
  ],
)
def test_products_as_compilers_write_them(shapes, line, expected):
  text = (
    'HloModule m\n\nENTRY %main (a: f32[], b: f32[]) -> f32[] {\n'
    f'  %a = {shapes[0]} parameter(0)\n  %b = {shapes[1]} parameter(1)\n  ROOT %c = {line}\n}}\n'
  )
  assert flops(hlo.Program(text)) == expected
