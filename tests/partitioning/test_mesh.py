"""Mesh shapes: what fits, and what is said where it does not."""

import dataclasses
import random
import types

import jax
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning.mesh import MESH_AXES, MeshShape, count_slices, make_mesh


def test_minus_one_takes_all_remaining_devices():
  assert make_mesh().devices.shape == (8, 1, 1, 1, 1)
  assert make_mesh(MeshShape(fsdp=2, tensor=2)).devices.shape == (2, 2, 2, 1, 1)
  assert make_mesh(MeshShape(data=1, fsdp=-1, sequence=2)).devices.shape == (1, 4, 1, 2, 1)
  assert make_mesh(devices=jax.devices()[:1]).devices.shape == (1, 1, 1, 1, 1)


def test_axes_are_auto_and_use_every_device_once():
  mesh = make_mesh(MeshShape(data=2, tensor=4))
  assert mesh.axis_names == MESH_AXES
  assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)
  assert set(mesh.devices.flat) == set(jax.devices())


def test_slices_are_the_outer_part_of_the_data_axis():
  mesh = make_mesh(MeshShape(slices=2, data=2, fsdp=-1))
  assert mesh.devices.shape == (4, 2, 1, 1, 1)
  first, second = mesh.devices.reshape(2, -1)
  assert list(first) == jax.devices()[:4] and list(second) == jax.devices()[4:]


@pytest.mark.parametrize(
  ('name', 'shape'), [('v5e:4x4', MeshShape(data=1, fsdp=-1)), ('v5p:2x2x4', MeshShape(tensor=4))]
)
def test_slices_that_the_devices_tell_of_are_kept_apart(tpu_devices, name, shape):
  devices = tpu_devices(name, num_slices=2)
  random.Random(0).shuffle(devices)
  mesh = make_mesh(shape, devices)
  assert mesh.shape['data'] == 2 * make_mesh(shape, tpu_devices(name)).shape['data']
  halves = mesh.devices.reshape(2, -1)
  assert [{device.slice_index for device in half} for half in halves] == [{0}, {1}]
  with pytest.raises(UsageError, match='devices are in 2 slices: expected slices=2, or -1'):
    make_mesh(dataclasses.replace(shape, slices=4), devices)


def test_gpus_of_several_hosts_are_one_slice():
  def devices(platform):
    return [types.SimpleNamespace(platform=platform, slice_index=n // 8, process_index=n // 8) for n in range(16)]

  assert count_slices(devices('gpu')) == 1 and count_slices(devices('tpu')) == 2


def test_sizes_that_no_whole_axes_of_a_torus_have_cut_one(tpu_devices):
  devices = tpu_devices('v5p:4x4x4')
  mesh = make_mesh(MeshShape(data=1, fsdp=8, tensor=8), devices)
  assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize(
  ('shape', 'words'),
  [
    (MeshShape(tensor=3), ['tensor=3', '8', '[1, 2, 4, 8]']),
    (MeshShape(data=2, tensor=2), ['data=2 tensor=2', '4 devices', '-1']),
    (MeshShape(data=16), ['data=16', '16 devices', 'there are 8']),
    (MeshShape(data=-1, fsdp=-1), ['data=-1 fsdp=-1', 'at most one -1']),
    (MeshShape(tensor=0), ['tensor=0', '1 and above']),
    (MeshShape(data=1), ['1 device', 'there are 8']),
    (MeshShape(slices=3), ['slices=3', 'slices of one size', 'there are 8 in 3 slices']),
    (MeshShape(slices=2, data=1, fsdp=8), ['fsdp=8', '8 devices in every slice', 'multiply to 4']),
    (MeshShape(slices=0), ['slices=0', '1 and above']),
  ],
)
def test_impossible_shapes_say_what_fits(shape, words):
  with pytest.raises(UsageError) as error:
    make_mesh(shape)
  message = str(error.value)
  assert '\n' not in message
  for word in words:
    assert word in message
