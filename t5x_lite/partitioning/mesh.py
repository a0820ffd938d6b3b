"""The device mesh: five named axes over all devices of all processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax

from t5x_lite.core.errors import UsageError

DATA = 'data'
FSDP = 'fsdp'
TENSOR = 'tensor'
SEQUENCE = 'sequence'
EXPERT = 'expert'
MESH_AXES = (DATA, FSDP, TENSOR, SEQUENCE, EXPERT)


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Number of devices along each mesh axis; one of them may be -1, for all devices that the others leave.

  Attributes:
    data: copies of the parameters, each working on its own rows of the batch.
    fsdp: like `data`, but every device keeps only its part of the parameters (Rajbhandari et al. 2020, ZeRO stage 3).
    tensor: parts of every matrix product: heads, MLP width, vocabulary (Shoeybi et al. 2019, Megatron-LM).
    sequence: parts of the length axis of activations.
    expert: groups of experts of a mixture-of-experts layer.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  sequence: int = 1
  expert: int = 1

  def sizes(self, num_devices: int) -> tuple[int, ...]:
    """The size of every axis, in the order of `MESH_AXES`, on that many devices.

    Raises:
      UsageError: where the sizes do not multiply to `num_devices`.
    """
    sizes = [getattr(self, name) for name in MESH_AXES]
    text = (
      ' '.join(f'{name}={size}' for name, size in zip(MESH_AXES, sizes, strict=True) if size != 1) or 'of one device'
    )
    if any(not isinstance(size, int) or (size < 1 and size != -1) for size in sizes) or sizes.count(-1) > 1:
      raise UsageError(f'mesh {text}: expected sizes of 1 and above, and at most one -1 (all remaining devices)')
    fixed = math.prod(size for size in sizes if size != -1)
    fits = num_devices % fixed == 0 if -1 in sizes else num_devices == fixed
    if not fits:
      rest = (
        f'the other sizes must multiply to one of {divisors(num_devices)}'
        if -1 in sizes
        else (f'the sizes must multiply to {num_devices}; -1 for one of them takes all devices that remain')
      )
      raise UsageError(
        f'mesh {text} needs {"a multiple of " * (-1 in sizes)}{fixed} devices, there are {num_devices}: {rest}'
      )
    return tuple(num_devices // fixed if size == -1 else size for size in sizes)


def divisors(number: int) -> list[int]:
  """All divisors of a positive number, ascending."""
  return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def make_mesh(shape: MeshShape | None = None, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """The mesh of that shape (default: all devices along `data`) over `devices` (default: all devices of all processes).

  Its axes are of type Auto: the compiler propagates shardings between our constraints.

  Raises:
    UsageError: where the shape does not fit the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = (shape or MeshShape()).sizes(len(devices))
  auto = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
  return jax.make_mesh(sizes, MESH_AXES, axis_types=auto, devices=devices)
