"""Mesh shapes: what fits, and what is said where it does not."""

import jax
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning.mesh import MESH_AXES, MeshShape, make_mesh


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


@pytest.mark.parametrize(
  ('shape', 'words'),
  [
    (MeshShape(tensor=3), ['tensor=3', '8', '[1, 2, 4, 8]']),
    (MeshShape(data=2, tensor=2), ['data=2 tensor=2', '4 devices', '-1']),
    (MeshShape(data=16), ['data=16', '16 devices', 'there are 8']),
    (MeshShape(data=-1, fsdp=-1), ['data=-1 fsdp=-1', 'at most one -1']),
    (MeshShape(tensor=0), ['tensor=0', '1 and above']),
    (MeshShape(data=1), ['1 device', 'there are 8']),
  ],
)
def test_impossible_shapes_say_what_fits(shape, words):
  with pytest.raises(UsageError) as error:
    make_mesh(shape)
  message = str(error.value)
  assert '\n' not in message
  for word in words:
    assert word in message
