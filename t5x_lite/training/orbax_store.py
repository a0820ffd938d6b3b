"""Orbax, held at arm's length: the one module that imports it, and the settings this project needs of it.

Imported only where a checkpoint is written or read, since importing Orbax takes a noticeable part of a short start-up.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from t5x_lite.core import errors
from t5x_lite.core import tree as tree_lib
from t5x_lite.training import integrity

StepAlreadyExistsError = ocp.checkpoint_manager.StepAlreadyExistsError

STATE = 'state'
TRASH = '.trash'


class _DropOrbax(logging.Filter):
  """Drops what Orbax logs through absl: dozens of lines a save, while every error also reaches us as an exception."""

  def filter(self, record: logging.LogRecord) -> bool:
    return 'orbax' not in pathlib.PurePath(record.pathname).parts


logging.getLogger('absl').addFilter(_DropOrbax())


class _RecordedPath(ocp.path.atomicity.AtomicRenameTemporaryPath):
  """A temporary step folder that gets its integrity record before the rename that makes it a checkpoint."""

  async def finalize(self) -> None:
    temporary, final = pathlib.Path(self.get()), pathlib.Path(self.get_final())
    if integrity.step_of(final) is not None:  # Orbax uses this class for the items inside a step, too.
      await asyncio.to_thread(integrity.write_record, temporary)
      empty_trash(final.parent)
    await super().finalize()


def empty_trash(directory: pathlib.Path) -> None:
  """Deletes the checkpoints that are no longer kept. They were renamed first, so that none is ever half there."""
  shutil.rmtree(directory / TRASH, ignore_errors=True)


def make_manager(directory: pathlib.Path, *, keep: int, keep_best: int) -> ocp.CheckpointManager:
  """A manager that saves asynchronously and keeps the latest `keep` and the `keep_best` of lowest `metrics['loss']`.

  Orbax's own `best_fn` with `max_to_keep` would delete the newest steps when they are not the best, hence the policies;
  `best_fn` is given all the same because without it no metrics are stored.
  """

  def loss_of(metrics: Mapping[str, float]) -> float:
    return metrics['loss']

  policies = ocp.checkpoint_managers.preservation_policy
  best = policies.BestN(get_metric_fn=loss_of, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False)
  options = ocp.CheckpointManagerOptions(
    step_prefix=integrity.PREFIX,
    best_fn=loss_of,
    best_mode='min',
    preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
    temporary_path_class=_RecordedPath,
    cleanup_tmp_directories=True,
    todelete_subdir=TRASH,
  )
  return ocp.CheckpointManager(directory, options=options)


def save_args(state: Any, items: Mapping[str, Mapping[str, Any]]) -> ocp.args.Composite:
  """What to save for one step: a tree of arrays, and JSON objects by name."""
  json_args = {name: ocp.args.JsonSave(dict(value)) for name, value in items.items()}
  return ocp.args.Composite(**{STATE: ocp.args.StandardSave(state)}, **json_args)


def read_json(folder: pathlib.Path, item: str) -> dict[str, Any]:
  """The JSON object saved as `item` in the checkpoint folder of one step."""
  with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
    return checkpointer.restore(folder / item)


def read_shapes(folder: pathlib.Path) -> dict[str, jax.ShapeDtypeStruct]:
  """Name, shape and dtype of every array of a checkpoint, from its metadata; no array is read."""
  with ocp.StandardCheckpointer() as checkpointer:
    metadata = checkpointer.metadata(folder / STATE).item_metadata
  if metadata is None:
    raise errors.UsageError(f'{folder} has no readable description of its arrays')
  leaves = tree_lib.named_leaves(metadata.tree)
  return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}


def read_named(folder: pathlib.Path, shardings: Mapping[str, Any], default: Any) -> dict[str, jax.Array]:
  """All arrays of a checkpoint by name, whatever their tree.

  Args:
    folder: of one step.
    shardings: where they go, by name.
    default: where others go.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    stored = checkpointer.metadata(folder / STATE).item_metadata.tree

  def abstract(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings.get(tree_lib.path_name(path), default))

  return tree_lib.named_leaves(read_arrays(folder, jax.tree_util.tree_map_with_path(abstract, stored)))


def read_arrays(folder: pathlib.Path, abstract: Any, *, partial: bool = False) -> Any:
  """The arrays of a checkpoint.

  Args:
    folder: of one step.
    abstract: tree of `jax.ShapeDtypeStruct` with shardings, which need not be those of the run that saved.
    partial: whether `abstract` may lack some of the stored arrays; they are then not read.
  """
  restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
  args = ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=partial)
  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.restore(folder / STATE, args=args)
