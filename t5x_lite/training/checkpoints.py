"""Checkpoints: saved asynchronously, kept by latest and best, verified before use, restored onto any mesh.

A checkpoint is the folder `checkpoint_<step>` (T5X's name) in the run's directory. It holds the train state, the
position of the data, the loop's own progress and the run's configuration, so that a run continues exactly. A damaged
newest checkpoint is set aside and the one before it is used. Orbax does the writing; see `orbax_store`, `integrity`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from t5x_lite.core import errors
from t5x_lite.core import tree as tree_lib
from t5x_lite.training import architecture, integrity, processes

DATA, CONFIG, PROGRESS = 'data', 'config', 'progress'
STOPPED_EARLY = 'stopped_early'  # Key of the loop's progress: the run ended before its last step, and meant to.
LINEAGE = 'lineage'  # Key of it too, of a branch: the checkpoint that it began with, and that one's run's, and so on.


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """Which checkpoints of a run are kept.

  Attributes:
    keep: how many of the latest.
    keep_best: how many of the lowest evaluation loss besides.
  """

  keep: int = 3
  keep_best: int = 1

  def __post_init__(self):
    if self.keep < 1 or self.keep_best < 0:
      raise errors.UsageError(
        f'expected keep >= 1 and keep_best >= 0 checkpoints, got {self.keep} and {self.keep_best}'
      )


class Restored(NamedTuple):
  """What a checkpoint holds.

  Attributes:
    state: the train state, on the devices that the abstract state asked for.
    data_state: position of the training data, merged over all processes.
    config: the run's record of parameters.
    step: number of optimizer steps taken.
    progress: the loop's own state (see `loop`).
  """

  state: Any
  data_state: dict[str, Any]
  config: dict[str, str]
  step: int
  progress: dict[str, Any]


class Checkpointer:
  """Saves and restores the checkpoints of one run. Every process of the run must make the same calls.

  Args:
    directory: where the step folders are; made at the first save. Local or mounted, and shared by all processes.
    keep: how many of the latest checkpoints are kept.
    keep_best: how many of the lowest evaluation loss are kept besides.
  """

  def __init__(self, directory: str | pathlib.Path, *, keep: int = 3, keep_best: int = 1):
    CheckpointConfig(keep, keep_best)  # refuses impossible numbers
    self.directory = pathlib.Path(directory).absolute()
    self._keep, self._keep_best = keep, keep_best
    self._manager: Any = None
    self._searched = False
    self._found: int | None = None

  def save(
    self,
    step: int,
    state: Any,
    *,
    data_state: Mapping[str, Any],
    config: Mapping[str, str],
    progress: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Copies the state off the devices, and writes it in the background. An earlier save is waited for first.

    Args:
      step: number of optimizer steps taken.
      state: tree of arrays; its buffers may be donated as soon as this returns.
      data_state: JSON-able position of the data, merged over all processes.
      config: the run's record of parameters.
      progress: JSON-able state of the loop.
      metrics: `{'loss': ...}` of an evaluation at this very step, by which the best checkpoint is chosen.

    Raises:
      UsageError: the disk refused this save or the one before, or another run has saved this step.
    """
    from t5x_lite.training import orbax_store

    if self._manager is None:
      self._manager = orbax_store.make_manager(self.directory, keep=self._keep, keep_best=self._keep_best)
    ranked = metrics is not None and math.isfinite(metrics['loss'])
    args = orbax_store.save_args(state, {DATA: data_state, CONFIG: config, PROGRESS: progress or {}})
    try:
      self._manager.save(step, args=args, metrics=dict(metrics) if metrics and ranked else None, force=True)
    except OSError as error:
      raise self._refused(error) from error
    except orbax_store.StepAlreadyExistsError as error:
      folder = integrity.step_folder(self.directory, step)
      raise errors.UsageError(f'{folder} has appeared meanwhile: is another run writing there?') from error

  def wait(self) -> None:
    """Returns when the last save is safely on disk, and what is no longer kept is gone."""
    if self._manager is None:
      return
    from t5x_lite.training import orbax_store

    try:
      self._manager.wait_until_finished()
    except OSError as error:
      raise self._refused(error) from error
    if processes.is_primary():
      orbax_store.empty_trash(self.directory)

  def close(self) -> None:
    """Waits, and ends the background threads."""
    self.wait()
    if self._manager is not None:
      self._manager.close()
      self._manager = None

  def latest_step(self) -> int | None:
    """The newest step that has an undamaged checkpoint, or None where there are no checkpoints at all.

    The first call looks at what an earlier run left. A damaged checkpoint is named in one warning line and renamed to
    `checkpoint_<step>.damaged`.

    Raises:
      UsageError: there are checkpoints, and every one of them is damaged.
    """
    if self._manager is not None:
      return self._manager.latest_step()
    if not self._searched:
      good, damaged = processes.from_primary(integrity.search(self.directory) if processes.is_primary() else None)
      integrity.report(self.directory, good, damaged if processes.is_primary() or good is None else [])
      if processes.is_primary():
        for step, _ in damaged:
          integrity.set_aside(integrity.step_folder(self.directory, step))
      self._found, self._searched = good, True
    return self._found

  def read_config(self) -> dict[str, str] | None:
    """The parameters recorded with the newest good checkpoint; None where there is none."""
    return self._read(CONFIG)

  def read_progress(self) -> dict[str, Any] | None:
    """The loop's state recorded with the newest good checkpoint; None where there is none."""
    return self._read(PROGRESS)

  def restore(self, abstract_state: Any) -> Restored | None:
    """Restores the newest good checkpoint; None where there are no checkpoints.

    Args:
      abstract_state: tree of `jax.ShapeDtypeStruct` with shardings, on whatever mesh this run has.

    Raises:
      UsageError: it holds another architecture (nothing is read then), or all checkpoints are damaged.
    """
    step = self.latest_step()
    if step is None:
      return None
    from t5x_lite.training import orbax_store

    folder = integrity.step_folder(self.directory, step)
    architecture.check(folder, orbax_store.read_shapes(folder), tree_lib.named_leaves(abstract_state))
    return read_beside(folder, orbax_store.read_arrays(folder, abstract_state), step)

  def _read(self, item: str) -> dict[str, Any] | None:
    step = self.latest_step()
    if step is None:
      return None
    from t5x_lite.training import orbax_store

    return orbax_store.read_json(integrity.step_folder(self.directory, step), item)

  def _refused(self, error: OSError) -> errors.UsageError:
    good = integrity.steps(self.directory)
    left = f'the last good one is {integrity.step_folder(self.directory, good[-1])}' if good else 'there is none yet'
    return errors.UsageError(f'cannot save a checkpoint in {self.directory} ({error.strerror or error}); {left}')


def folder_of(directory: pathlib.Path, step: int) -> pathlib.Path:
  """The folder of a step's checkpoint."""
  return integrity.step_folder(directory, step)


def read_beside(folder: pathlib.Path, state: Any, step: int) -> Restored:
  """A state that was restored from a step's folder, with all that lies beside it there."""
  from t5x_lite.training import orbax_store

  data_state, config, progress = (orbax_store.read_json(folder, item) for item in (DATA, CONFIG, PROGRESS))
  return Restored(state, data_state, config, step, progress)


def locate(path: str | pathlib.Path, *, thorough: bool = True) -> pathlib.Path:
  """The step folder that `path` means: itself if it is one, else the newest good one in it. Renames nothing.

  Args:
    path: of a run, or of one step's folder.
    thorough: whether the bytes of the arrays are verified, too.

  Raises:
    UsageError: there is none, or none that is undamaged.
  """
  path = pathlib.Path(path).absolute()
  if integrity.step_of(path) is not None and path.is_dir():
    damage = integrity.find_damage(path, thorough=thorough)
    if damage is not None:
      raise errors.UsageError(f'checkpoint {path} is damaged: {damage}')
    return path
  good, damaged = integrity.search(path, thorough=thorough)
  integrity.report(path, good, damaged)
  if good is None:
    raise errors.UsageError(f'no checkpoint in {path}: expected a folder {integrity.PREFIX}_<step> there')
  return integrity.step_folder(path, good)


def restore_params(path: str | pathlib.Path, abstract_params: Any) -> Any:
  """The parameters alone, for inference.

  Args:
    path: of a run (its newest good checkpoint is taken) or of one step's folder.
    abstract_params: tree of `jax.ShapeDtypeStruct`; one without a sharding goes to the first device.

  Raises:
    UsageError: no good checkpoint, or one of another model.
  """
  from t5x_lite.training import orbax_store

  def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  folder = locate(path)
  abstract = {'params': jax.tree.map(placed, abstract_params)}
  stored = {name: leaf for name, leaf in orbax_store.read_shapes(folder).items() if name.startswith('params/')}
  architecture.check(folder, stored, tree_lib.named_leaves(abstract))
  return orbax_store.read_arrays(folder, abstract, partial=True)['params']


def read_config(path: str | pathlib.Path) -> dict[str, str]:
  """The parameters recorded with a checkpoint: the newest good one of a run, or one step's folder."""
  from t5x_lite.training import orbax_store

  return orbax_store.read_json(locate(path, thorough=False), CONFIG)


def latest_step(path: str | pathlib.Path) -> int | None:
  """The newest step in a run's directory whose checkpoint looks undamaged (arrays are not read), or None."""
  good, _ = integrity.search(pathlib.Path(path), thorough=False)
  return good


def saved_metrics(path: str | pathlib.Path) -> dict[int, dict[str, float]]:
  """`{'loss': ...}` by step, of the checkpoints in a run's directory that look undamaged and were evaluated.

  What counts as loss is what the best checkpoint is chosen by (`LoopConfig.best_by`), less of which is better.
  """
  found = {}
  for step in integrity.steps(pathlib.Path(path)):
    file = integrity.step_folder(pathlib.Path(path).absolute(), step) / 'metrics' / 'metrics'
    if file.is_file() and integrity.find_damage(file.parents[1], thorough=False) is None:
      found[step] = json.loads(file.read_text(encoding='utf-8'))
  return found


def is_finished(path: str | pathlib.Path, total_steps: int) -> bool:
  """Whether the run in this directory has taken `total_steps` steps, or stopped early and meant to."""
  good = latest_step(path)
  if good is None or good >= total_steps:
    return good is not None
  from t5x_lite.training import orbax_store

  progress = orbax_store.read_json(integrity.step_folder(pathlib.Path(path).absolute(), good), PROGRESS)
  return bool(progress.get(STOPPED_EARLY))
