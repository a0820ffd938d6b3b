"""The device mesh: five named axes over all devices of all processes, the links of a TPU and slices of it in mind."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from t5x_lite.core.errors import UsageError

DATA = 'data'
FSDP = 'fsdp'
TENSOR = 'tensor'
SEQUENCE = 'sequence'
EXPERT = 'expert'
# From the one whose devices say least to each other to the one whose devices say most: on a TPU, later axes get the
# better links (`mesh_utils.create_device_mesh`); elsewhere they get devices that are counted one after the other.
MESH_AXES = (DATA, FSDP, TENSOR, SEQUENCE, EXPERT)


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Number of devices along each mesh axis; one of them may be -1, for all devices that the others leave.

  Attributes:
    data: copies of the parameters in every slice, each working on its own rows of the batch.
    fsdp: like `data`, but every device keeps only its part of the parameters (Rajbhandari et al. 2020, ZeRO stage 3).
    tensor: parts of every matrix product: heads, MLP width, vocabulary (Shoeybi et al. 2019, Megatron-LM).
    sequence: parts of the length axis of activations.
    expert: groups of experts of a mixture-of-experts layer.
    slices: groups of devices between which there is a data-centre network only. Each works on its own rows with its own
      copy of the parameters, so that nothing but gradients crosses: the axis `data` is as many times as long, and the
      other sizes are those of one slice. -1: as many as the devices tell of, which those of a TPU do (one, if they do
      not); a number makes that many of any devices, process by process.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  sequence: int = 1
  expert: int = 1
  slices: int = -1

  def sizes(self, num_devices: int, num_slices: int = 1) -> tuple[int, ...]:
    """The size of every axis, in the order of `MESH_AXES`, on that many devices.

    Args:
      num_devices: of all slices together.
      num_slices: that the devices tell of.

    Raises:
      UsageError: where the sizes do not multiply to `num_devices`.
    """
    wanted = [getattr(self, name) for name in MESH_AXES]
    bad = any(not isinstance(size, int) or (size < 1 and size != -1) for size in (*wanted, self.slices))
    if bad or wanted.count(-1) > 1:
      raise UsageError(
        f'mesh {self._text()}: expected sizes of 1 and above, and at most one -1 (all remaining devices)'
      )
    slices = self.num_slices(num_devices, num_slices)
    fixed = math.prod(size for size in wanted if size != -1)
    each, rest = divmod(num_devices, slices)
    there = f'there are {num_devices}' + (f' in {slices} slices' if slices > 1 else '')
    if rest:
      raise UsageError(f'mesh {self._text()} needs slices of one size, {there}')
    fits = each % fixed == 0 if -1 in wanted else each == fixed
    if not fits:
      hint = (
        f'the other sizes must multiply to one of {divisors(each)}'
        if -1 in wanted
        else (f'the sizes must multiply to {each}; -1 for one of them takes all devices that remain')
      )
      many = 'a multiple of ' if -1 in wanted else ''
      where = ' in every slice' if slices > 1 else ''
      raise UsageError(f'mesh {self._text()} needs {many}{fixed} devices{where}, {there}: {hint}')
    data, *others = (each // fixed if size == -1 else size for size in wanted)
    return data * slices, *others

  def num_slices(self, num_devices: int, found: int) -> int:
    """How many slices there are, where the devices tell of `found`.

    Raises:
      UsageError: they tell of several, and the shape wants another number.
    """
    if self.slices == -1:
      return found
    if found > 1 and self.slices != found:
      raise UsageError(
        f'mesh {self._text()}, but the {num_devices} devices are in {found} slices: expected slices={found}, or -1 '
        '(as many as there are)'
      )
    return self.slices

  def _text(self) -> str:
    sizes = text([getattr(self, name) for name in MESH_AXES]) or 'of one device'
    return sizes if self.slices == -1 else f'{sizes} slices={self.slices}'


def text(sizes: Sequence[int]) -> str:
  """`data=2 tensor=4`: the axes that are not 1, of sizes in the order of `MESH_AXES`."""
  return ' '.join(f'{name}={size}' for name, size in zip(MESH_AXES, sizes, strict=True) if size != 1)


def divisors(number: int) -> list[int]:
  """All divisors of a positive number, ascending."""
  return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def make_mesh(shape: MeshShape | None = None, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """The mesh of that shape (default: all devices along `data`) over `devices` (default: all devices of all processes).

  Its axes are of type Auto: the compiler propagates shardings between our constraints. On a TPU they follow the links
  of the torus, and only `data` leaves a slice.

  Raises:
    UsageError: where the shape does not fit the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = shape or MeshShape()
  found = count_slices(devices)
  data, *others = shape.sizes(len(devices), found)
  slices = shape.num_slices(len(devices), found)
  groups = [devices] if slices == 1 else _slices(devices, slices, found)
  # Slices one after the other along `data`: its outer part is the network between them.
  arranged = np.concatenate([_arrange((data // slices, *others), group) for group in groups])
  return jax.sharding.Mesh(arranged, MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(MESH_AXES))


def count_slices(devices: Sequence[jax.Device]) -> int:
  """The number of TPU slices that these devices are of; 1 where they do not say, or are no TPUs."""
  return len({slice_of(device) for device in devices})


def slice_of(device: jax.Device) -> int:
  """The TPU slice of a device. JAX gives the GPUs of each host a number too, but fast links may well leave a host."""
  return int(getattr(device, 'slice_index', 0)) if getattr(device, 'platform', 'tpu') == 'tpu' else 0


def _slices(devices: list[jax.Device], slices: int, found: int) -> list[list[jax.Device]]:
  if found > 1:
    groups = [list(group) for _, group in itertools.groupby(sorted(devices, key=slice_of), key=slice_of)]
    if len({len(group) for group in groups}) > 1:
      raise UsageError(f'mesh over slices of {[len(group) for group in groups]} devices: expected slices of one size')
    return groups
  ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
  return [list(group) for group in np.asarray(ordered).reshape(slices, -1)]


def _arrange(sizes: tuple[int, ...], devices: list[jax.Device]) -> np.ndarray:
  """The devices of one slice as an array of these sizes."""
  try:
    return mesh_utils.create_device_mesh(sizes, devices)
  except NotImplementedError:
    # No product of whole axes of the torus has these sizes: one of its axes is cut.
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
