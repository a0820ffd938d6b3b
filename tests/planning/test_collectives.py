"""Transfers are told by kind, bytes and the mesh axes that they go along."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.planning import hlo
from t5x_lite.planning.collectives import collectives, device_groups, spanned_axes

AXES = {'data': 2, 'fsdp': 4, 'tensor': 2}


def program_of(function, mesh, *shapes, out):
  placed = [
    jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
    for shape, spec in shapes
  ]
  jitted = jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec(*out)))
  return hlo.Program(jitted.lower(*placed).compile().as_text())


def test_a_product_with_sharded_parameters_gathers_them_over_fsdp():
  mesh = make_mesh(MeshShape(data=2, fsdp=4))
  rows, whole = ('data', 'fsdp'), NamedSharding(mesh, PartitionSpec())

  def product(x, kernel):
    return x @ jax.lax.with_sharding_constraint(kernel, whole)

  program = program_of(product, mesh, ((4096, 128), (rows,)), ((128, 256), ('fsdp', None)), out=(rows, None))
  (row,) = collectives(program, mesh.shape)
  assert (row.kind, row.axes, row.count) == ('all-gather', ('fsdp',), 1)
  assert row.bytes == 3 * 128 * 256 * 4 // 4  # its own quarter, to three others


def test_a_product_along_a_sharded_dimension_is_summed_over_tensor():
  mesh = make_mesh(MeshShape(data=2, tensor=4))
  program = program_of(
    jnp.matmul, mesh, ((64, 128), ('data', 'tensor')), ((128, 256), ('tensor', None)), out=('data', None)
  )
  (row,) = collectives(program, mesh.shape)
  assert (row.kind, row.axes) == ('all-reduce', ('tensor',))
  assert row.bytes == 2 * 32 * 256 * 4 * 3 // 4


def test_a_sum_over_the_batch_goes_over_both_of_its_axes():
  mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
  program = program_of(lambda x: jnp.sum(x, axis=0), mesh, ((64, 32), (('data', 'fsdp'), None)), out=())
  (row,) = collectives(program, mesh.shape)
  assert (row.kind, row.axes) == ('all-reduce', ('data', 'fsdp'))


def test_what_moves_between_dimensions_is_an_all_to_all():
  mesh = make_mesh(MeshShape(data=1, expert=8))
  program = program_of(lambda x: x * 2, mesh, ((64, 32), ('expert', None)), out=(None, 'expert'))
  (row,) = collectives(program, mesh.shape)
  assert (row.kind, row.axes) == ('all-to-all', ('expert',))
  assert row.bytes == 8 * 32 * 4 * 7 // 8


def test_a_gather_in_every_layer_counts_for_every_layer():
  mesh = make_mesh(MeshShape(data=1, fsdp=8))

  def stack(x, kernels):
    return jax.lax.scan(lambda carry, kernel: (jnp.tanh(carry @ kernel), None), x, kernels)[0]

  def gathered(layers):
    program = program_of(
      stack, mesh, ((64, 128), ('fsdp', None)), ((layers, 128, 128), (None, 'fsdp', None)), out=('fsdp', None)
    )
    return {row.axes: (row.count, row.bytes) for row in collectives(program, mesh.shape) if row.kind == 'all-gather'}

  three, twelve = gathered(3), gathered(12)
  assert three == {('fsdp',): (3, 3 * 7 * 128 * 128 * 4 // 8)}
  assert twelve == {('fsdp',): (12, 4 * three['fsdp',][1])}


def test_one_device_sends_nothing():
  mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
  program = program_of(jnp.matmul, mesh, ((8, 8), ()), ((8, 8), ()), out=())
  assert collectives(program, mesh.shape) == []


def line_of(attributes):
  return hlo.Instruction('c', 'all-reduce', (), (), '', f', channel_id=1, {attributes}, use_global_device_ids=true')


@pytest.mark.parametrize(
  ('attributes', 'axes'),
  [
    ('replica_groups={{0,2,4,6},{8,10,12,14},{1,3,5,7},{9,11,13,15}}', ('fsdp',)),
    ('replica_groups=[4,4]<=[8,2]T(1,0)', ('fsdp',)),
    ('replica_groups=[8,2]<=[16]', ('tensor',)),
    ('replica_groups=[8,2]<=[2,4,2]T(2,1,0)', ('data',)),
    ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0'}", ('data', 'fsdp')),
    ("replica_groups=mesh['axis_0'=8,'axis_1'=1,'axis_2'=2] {'axis_2'}", ('tensor',)),
    ("replica_groups=mesh['a'=16] {'a':(1)2}", ('data',)),
    ("replica_groups=mesh['a'=16] {'a':(2)4}", ('fsdp',)),
    ("replica_groups=mesh['a'=16] {'a':(1)2,'a':(8)2}", ('data', 'tensor')),
    ("replica_groups=mesh['a'=2,'b'=8], device_ids=([8,2]T(1,0)) {'a'}", ('tensor',)),
    ("replica_groups=mesh['a'=2,'b'=8], device_ids=(0,2,4,6,8,10,12,14,1,3,5,7,9,11,13,15) {'a'}", ('tensor',)),
    ('replica_groups={}', ('data', 'fsdp', 'tensor')),
    ('source_target_pairs={{0,2},{2,4},{4,6},{6,0},{1,3},{3,5},{5,7},{7,1}}', ('fsdp',)),
    ('source_target_pairs={{0,8},{8,0}}', ('data',)),
  ],
)
def test_groups_as_compilers_write_them_lie_along_mesh_axes(attributes, axes):
  groups = device_groups(line_of(attributes), 16)
  assert spanned_axes(groups, AXES) == axes
  if 'pairs' not in attributes:
    assert sorted(groups.ravel()) == list(range(16))


def test_what_a_tpu_cuts_into_several_fusions_is_one_collective():
  part = (
    '%{name} (p: bf16[4,8]) -> bf16[32,8] {{\n  %p = bf16[4,8]{{1,0}} parameter(0)\n'
    '  ROOT %all-gather.{number} = bf16[32,8]{{1,0:T(8,128)}} all-gather(%p), channel_id=3, replica_groups=[1,8]<=[8], '
    'dimensions={{0}}, use_global_device_ids=true\n}}\n\n'
  )
  text = 'HloModule m\n\n' + part.format(name='fused', number=1) + part.format(name='async_collective_fusion', number=2)
  text += (
    'ENTRY %main (x: bf16[4,8]) -> bf16[32,8] {\n  %x = bf16[4,8]{1,0} parameter(0)\n'
    '  %f.1 = bf16[32,8]{1,0} fusion(%x), kind=kCustom, calls=%fused\n'
    '  ROOT %f.2 = bf16[32,8]{1,0} fusion(%x), kind=kCustom, calls=%async_collective_fusion\n}\n'
  )
  (row,) = collectives(hlo.Program(text), {'data': 1, 'fsdp': 8})
  assert (row.kind, row.axes, row.is_async, row.count, row.bytes) == ('all-gather', ('fsdp',), True, 1, 7 * 4 * 8 * 2)


def test_groups_are_rows_of_device_numbers():
  np.testing.assert_array_equal(
    device_groups(line_of('replica_groups=[2,4]<=[4,2]T(1,0)'), 8), [[0, 2, 4, 6], [1, 3, 5, 7]]
  )


def test_what_runs_in_parts_beside_other_work_is_one_collective():
  text = """HloModule m

%gather (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[32,8]{1,0} all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY %main (x: bf16[4,8]) -> bf16[32,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  %start = ((bf16[4,8]{1,0}), bf16[32,8]{1,0}, u32[]) async-start(%x), calls=%gather
  %update = ((bf16[4,8]{1,0}), bf16[32,8]{1,0}, u32[]) async-update(%start), calls=%gather
  ROOT %done = bf16[32,8]{1,0} async-done(%update), calls=%gather
}
"""
  (row,) = collectives(hlo.Program(text), {'data': 1, 'fsdp': 8})
  assert (row.kind, row.is_async, row.count, row.bytes) == ('all-gather', True, 1, 7 * 4 * 8 * 2)
