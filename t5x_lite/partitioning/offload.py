"""Arrays that wait in the host's memory for the moment of the step that needs them.

The optimiser state is read and written once a step, at its end: in the host's memory it leaves room on the device for
activations, at the price of two copies a step (as in ZeRO-Offload, Ren et al. 2021, but updated on the device).
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh

from t5x_lite.core.errors import UsageError

HOST = 'pinned_host'


def check(mesh: Mesh) -> None:
  """Raises UsageError where the devices of a mesh cannot reach arrays in their host's memory."""
  device = mesh.devices.flat[0]
  try:
    kinds = [memory.kind for memory in device.addressable_memories()]
  except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
    kinds = []
  if HOST not in kinds:
    raise UsageError(
      f'offload_optimizer: a {device.platform} device has memory of kind {", ".join(kinds) or "(none told)"}: '
      f'expected {HOST} among them, so only offload_optimizer=False is possible'
    )


def to_host(arrays: Any) -> Any:
  """Abstract arrays with their shardings, placed in the host's memory; scalars stay where they are."""

  def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    assert leaf.sharding is not None
    return leaf.update(sharding=leaf.sharding.with_memory_kind(HOST)) if leaf.ndim else leaf

  return jax.tree.map(place, arrays)
