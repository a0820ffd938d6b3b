"""The one table that maps logical axes (`core.axes`) to mesh axes, for parameters and activations.

Data parallelism shards the batch; `fsdp` shards the batch too, and the model width of the parameters; `tensor` shards
heads, MLP width and vocabulary, of parameters and activations alike; `sequence` shards the length of activations;
`expert` shards the batch, and inside a mixture of experts the experts instead. A logical axis without a rule is
replicated. Earlier rules win, and no mesh axis is used twice in one array.

What that makes of a training step, as compiled:

- `fsdp`: every kernel is gathered where it is used, forward and backward, and its gradient reduce-scattered; optimiser
  state is cut as its parameter is. On a TPU only where a part is 128 columns or more: the model width over `fsdp`;
  narrower gradients are added up whole (all-reduce) and cut then. Vectors of norms are whole everywhere.
- `tensor`: activations of a sub-layer are added up (all-reduce), parameters never move. A look-up of tokens reads the
  part of the table that a device has, and the results are added up; of the logits, only maxima and sums cross.
- `sequence`: keys and values are gathered along the length (`act_key_length` has no rule), queries and everything else
  stay in parts. XLNet's relative shift also gathers its scores by distance; its content scores stay in parts.
- `expert`: tokens travel to their experts and back (all-to-all).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from t5x_lite.core import axes, errors
from t5x_lite.partitioning import mesh as mesh_lib

MeshAxes = str | tuple[str, ...] | None
Rules = tuple[tuple[str, MeshAxes], ...]

STANDARD_RULES: Rules = (
  # Parameters.
  (axes.VOCAB, mesh_lib.TENSOR),
  (axes.MLP, mesh_lib.TENSOR),
  (axes.HEADS, mesh_lib.TENSOR),
  (axes.JOINED_KV, mesh_lib.TENSOR),
  (axes.EMBED, mesh_lib.FSDP),
  (axes.EXPERT, mesh_lib.EXPERT),
  # Activations.
  (axes.ACT_BATCH, (mesh_lib.DATA, mesh_lib.FSDP, mesh_lib.EXPERT)),
  (axes.ACT_EXPERT_BATCH, (mesh_lib.DATA, mesh_lib.FSDP)),
  (axes.ACT_EXPERT, mesh_lib.EXPERT),
  (axes.ACT_LENGTH, mesh_lib.SEQUENCE),
  (axes.ACT_MLP, mesh_lib.TENSOR),
  (axes.ACT_HEADS, mesh_lib.TENSOR),
  (axes.ACT_VOCAB, mesh_lib.TENSOR),
)


def as_tuple(mesh_axes: MeshAxes) -> tuple[str, ...]:
  """The mesh axes of one dimension as a tuple, empty for None."""
  if mesh_axes is None:
    return ()
  return (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes)


def check(rules: Rules, mesh: Mesh) -> None:
  """Raises UsageError where a rule names a mesh axis that the mesh does not have."""
  for _, mesh_axes in rules:
    for name in as_tuple(mesh_axes):
      if name not in mesh.axis_names:
        raise errors.unknown('mesh axis in the partitioning rules', name, mesh.axis_names)


def spec(names: Iterable[str | None], rules: Rules) -> PartitionSpec:
  """The partition spec of an array whose dimensions have these logical names (None, or no rule: replicated)."""
  return nn.logical_to_mesh_axes(tuple(names), rules)


def size(mesh_axes: MeshAxes, mesh: Mesh) -> int:
  """Into how many parts these mesh axes cut a dimension."""
  return math.prod(mesh.shape[name] for name in as_tuple(mesh_axes))
