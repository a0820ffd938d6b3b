"""Where every array lives: parameters, optimiser state, batches, all derived from the rules table.

Abstract first, then place: shardings are computed from shapes, and arrays are born where they belong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t5x_lite.core import axes, tree
from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning import fitting
from t5x_lite.partitioning import rules as rules_lib
from t5x_lite.partitioning.rules import Rules


@contextlib.contextmanager
def scope(mesh: Mesh, rules: Rules) -> Iterator[None]:
  """Within it, `nn.with_logical_constraint` means something: trace and initialise here.

  `with mesh:` would not do: flax then drops every constraint silently.
  """
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    yield


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of an array of which every device holds all."""
  return NamedSharding(mesh, PartitionSpec())


# --- Parameters and optimiser state -----------------------------------------------------------------------------------


def param_shardings(boxed: Any, mesh: Mesh, rules: Rules) -> Any:
  """Shardings of parameters, as a tree without boxes.

  Args:
    boxed: the abstract parameters as `module.init` gives them, leaves boxed by `nn.with_logical_partitioning`.
    mesh: the mesh.
    rules: logical axis -> mesh axes.

  Raises:
    UsageError: where mesh axes do not divide the dimension they shard; names parameter, dimension, axes and what fits.
  """
  rules_lib.check(rules, mesh)
  fitting.check(fitting.of_parameters(boxed, rules), mesh)
  return jax.tree.map(lambda names: NamedSharding(mesh, rules_lib.spec(names, rules)), nn.get_partition_spec(boxed))


def optimizer_shardings(opt_state: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
  """Shardings of an optimiser state: every statistic lives with the parameter it belongs to.

  A leaf belongs to the parameter whose path its own path ends with. It has the parameter's spec where it has its shape,
  the spec without one dimension where that is what it lacks (Adafactor's `v_row`, `v_col`), and is replicated otherwise
  (counts, placeholders).

  Args:
    opt_state: abstract optimiser state.
    params: abstract parameters, unboxed.
    shardings: their shardings.
    mesh: the mesh.
  """
  leaves = jax.tree_util.tree_leaves_with_path(params)
  known = {
    path: (leaf.shape, place.spec) for (path, leaf), place in zip(leaves, jax.tree.leaves(shardings), strict=True)
  }

  def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
    owner = next((path[start:] for start in range(len(path)) if path[start:] in known), None)
    if owner is None:
      return replicated(mesh)
    shape, spec = known[owner]
    return NamedSharding(mesh, _reduced_spec(leaf.shape, shape, spec, tree.path_name(path)))

  return jax.tree_util.tree_map_with_path(place, opt_state)


def _reduced_spec(shape: tuple[int, ...], full: tuple[int, ...], spec: PartitionSpec, name: str) -> PartitionSpec:
  """The spec of a statistic of `shape` of a parameter of shape `full` and that spec."""
  if shape == full:
    return spec
  dims = tuple(spec) + (None,) * (len(full) - len(spec))
  # A square kernel leaves open which dimension is gone: `v_row` lacks the last one, `v_col` the one before it.
  order = list(reversed(range(len(full))))
  order = order[1:] + order[:1] if 'v_col' in name else order
  for dim in order:
    if full[:dim] + full[dim + 1 :] == shape:
      return PartitionSpec(*dims[:dim], *dims[dim + 1 :])
  return PartitionSpec()


# --- Batches ----------------------------------------------------------------------------------------------------------


def batch_sharding(mesh: Mesh, rules: Rules) -> NamedSharding:
  """The sharding of every array of a batch: rows over the axes of `act_batch`, each row whole.

  Whole on a mesh with a `sequence` axis too: ids are a few bytes a token, and every device of the axis needs all
  segments of a row anyway, for the keys' side of its masks. Embedded, they are cut along the length.
  """
  rules_lib.check(rules, mesh)
  return NamedSharding(mesh, rules_lib.spec((axes.ACT_BATCH,), rules))


def check_batch(global_batch: int, mesh: Mesh, rules: Rules, *, num_microbatches: int = 1, hint: str = '') -> None:
  """Raises UsageError where a batch does not cut into microbatches that spread evenly over the devices.

  Args:
    global_batch: its rows.
    mesh: the mesh.
    rules: logical axis -> mesh axes.
    num_microbatches: in how many parts it is computed.
    hint: what else would help, for the error.
  """
  mesh_axes = rules_lib.as_tuple(batch_sharding(mesh, rules).spec[0])
  ways = rules_lib.size(mesh_axes, mesh)
  step = ways * num_microbatches
  if global_batch % step == 0 and global_batch > 0:
    return
  over = ' * '.join(f'{axis}={mesh.shape[axis]}' for axis in mesh_axes if mesh.shape[axis] > 1) or 'one device'
  over = f'{num_microbatches} microbatches on {over}' if num_microbatches > 1 else over
  below = global_batch // step * step
  fits = f'{below} or {below + step}' if below else f'{step}'
  raise UsageError(f'batch of {global_batch} rows does not divide over {over}: {fits} would fit{hint and f"; {hint}"}')


def process_rows(mesh: Mesh, rules: Rules, global_batch: int, *, process_index: int | None = None) -> np.ndarray:
  """The rows of the global batch that a process must supply, ascending.

  Processes whose devices hold the same rows (a tensor axis that spans processes) must all supply them.

  Args:
    mesh: the mesh.
    rules: logical axis -> mesh axes.
    global_batch: number of rows of the global batch.
    process_index: which process; default: this one.
  """
  check_batch(global_batch, mesh, rules)
  process = jax.process_index() if process_index is None else process_index
  indices = batch_sharding(mesh, rules).devices_indices_map((global_batch,))
  rows = [np.arange(global_batch)[index] for device, index in indices.items() if device.process_index == process]
  return np.unique(np.concatenate(rows)) if rows else np.zeros((0,), np.int64)


def shard_batch(
  host_rows: Mapping[str, np.ndarray], mesh: Mesh, rules: Rules, global_batch: int
) -> dict[str, jax.Array]:
  """Global arrays `[global_batch, ...]` of the rows that the processes hold.

  Args:
    host_rows: arrays whose rows are those of `process_rows`, in that order.
    mesh: the mesh.
    rules: logical axis -> mesh axes.
    global_batch: number of rows over all processes.
  """
  rows = process_rows(mesh, rules, global_batch)
  sharding = batch_sharding(mesh, rules)

  def place(name: str, local: np.ndarray) -> jax.Array:
    if len(local) != len(rows):
      raise UsageError(f'{name} has {len(local)} rows, but this process supplies {len(rows)} of {global_batch}')

    def part(index: tuple[slice, ...]) -> np.ndarray:
      start, stop, _ = index[0].indices(global_batch)
      first = int(np.searchsorted(rows, start))
      return local[first : first + stop - start]

    return jax.make_array_from_callback((global_batch, *local.shape[1:]), sharding, part)

  return {name: place(name, np.asarray(local)) for name, local in host_rows.items()}
