"""Branches: runs that go on from another run's checkpoint with something changed, and remember where they come from.

A branch has a folder of its own, and is a run like any other as soon as it has a checkpoint there. Until then it begins
again where it began: `run-info.json` says which step that was, so that `RUN` and `RUN@best` mean the same step after an
interruption, whatever the parent has done meanwhile.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from t5x_lite import run_folder
from t5x_lite.core import errors
from t5x_lite.core.checkpoint_names import ALL, BEST, LATEST, split_checkpoint
from t5x_lite.data import positions
from t5x_lite.data.pipeline import BatchIterator, State
from t5x_lite.runs import located
from t5x_lite.training import branch_state, checkpoints, integrity, processes
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import Trainer

CONTINUE, RESTART = positions.CHOICES
SCHEDULES = (CONTINUE, RESTART)
KEPT, NEW = 'kept', 'new'
_ANCESTORS = 'ancestors'
_OPTIMIZER, _INITIAL = 'Learner.optimizer', 'train.initial_checkpoint_path'

Lineage = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Origin:
  """The checkpoint that a branch begins with.

  Attributes:
    folder: the checkpoint.
    run: the folder of the parent.
    step: of the checkpoint.
    config: the parent's record of parameters.
    data_state: where the parent's data were.
    lineage: where the parent itself comes from, see `lineage_of`.
  """

  folder: pathlib.Path
  run: pathlib.Path
  step: int
  config: Mapping[str, str]
  data_state: Mapping[str, Any]
  lineage: Lineage


@dataclasses.dataclass(frozen=True)
class Beginning:
  """How a branch begins.

  Attributes:
    origin: with what.
    keep_optimizer: whether the optimiser's state is the parent's.
    restart: whether step and schedules are at 0.
    data_state: where the data begin; None: at their beginning.
    record: what the lineage says of all this.
    told: the same in words.
  """

  origin: Origin
  keep_optimizer: bool
  restart: bool
  data_state: State | None
  record: dict[str, Any]
  told: list[str]

  @property
  def lineage(self) -> Lineage:
    """Of the branch, see `lineage_of`."""
    before = dict(self.origin.lineage)
    older = before.pop(_ANCESTORS, [])
    return {**self.record, _ANCESTORS: [before, *older] if before else []}

  def state(self, trainer: Trainer, seed: int) -> TrainState:
    """The state that the branch begins with."""
    return branch_state.restore(
      trainer, self.origin.folder, seed, keep_optimizer=self.keep_optimizer, restart=self.restart
    )


def lineage_of(run: str | pathlib.Path) -> Lineage:
  """Where a run comes from.

  `parent` is the folder of its parent's run, `step` that of the checkpoint it began with, `config` the hash of that
  checkpoint's record of parameters, `changes` what differs from it; `data`, `schedule` and `optimizer` tell what was
  kept. `ancestors` says the same of the parent, its parent, and so on.

  It is read from the newest checkpoint; where there is none yet, from `run-info.json`. Empty for a run that is none's
  branch.
  """
  folder = pathlib.Path(run)
  good = checkpoints.latest_step(folder)
  if good is None:
    return run_folder.read_lineage(folder)
  return _progress(integrity.step_folder(folder.absolute(), good)).get(checkpoints.LINEAGE, {})


def find(branch_from: str, model_dir: str) -> Origin | None:
  """The checkpoint that a branch begins with; None where the branch has a checkpoint of its own, and goes on from it.

  Args:
    branch_from: `RUN`, `RUN@STEP` or `RUN@best`.
    model_dir: the folder of the branch.

  Raises:
    UsageError: there is no such checkpoint, or the folder holds another run.
  """
  source, which = split_checkpoint(branch_from)
  folder = pathlib.Path(source).expanduser().absolute()
  step = integrity.step_of(folder)
  if step is not None and integrity.holds_checkpoints(folder):
    folder, which = folder.parent, str(step)
  if which == ALL:
    raise errors.UsageError(f'--branch_from={branch_from}: a branch has one parent, expected RUN, RUN@STEP or RUN@best')
  if folder == pathlib.Path(model_dir):
    raise errors.UsageError(f'MODEL_DIR={model_dir} is the parent: expected a folder of its own for the branch')
  own = lineage_of(model_dir)
  is_own = bool(own) and own['parent'] == str(folder) and which in (LATEST, BEST, str(own['step']))
  if integrity.holds_checkpoints(pathlib.Path(model_dir)):
    if not is_own:
      known = f'a branch of {own["parent"]}@{own["step"]}' if own else "a run that is no other's branch"
      raise errors.UsageError(f'MODEL_DIR={model_dir} holds {known}, not of {branch_from}: choose another folder')
    return None
  if not integrity.holds_checkpoints(folder):
    raise errors.UsageError(f'--branch_from={branch_from}: no run there, expected a folder with checkpoints')
  wanted = str(own['step']) if is_own else which
  (found,) = located.locate(f'{folder}@{wanted}')
  step = int(processes.from_primary(found.name))  # A parent that is still running may have saved meanwhile.
  return _read(checkpoints.locate(integrity.step_folder(folder, step)), folder, step)


def begin(
  origin: Origin,
  trainer: Trainer,
  iterator: BatchIterator,
  config: Mapping[str, str],
  changes: list[str],
  data: str | None,
  schedule: str,
) -> Beginning:
  """Decides what a branch keeps.

  Args:
    origin: what it begins with.
    trainer: of the branch.
    iterator: its data.
    config: its record of parameters.
    changes: of the record, in words.
    data: `continue`, `restart` or None, see `positions.taken_over`.
    schedule: `continue` at the checkpoint's step, or `restart` at step 0.

  Raises:
    UsageError: the model is another one, or the data cannot go on.
  """
  other = branch_state.other_optimizer(origin.folder, trainer.abstract_state)
  names = {name: _optimizer(values) for name, values in (('parent', origin.config), ('branch', config))}
  if names['parent'] != names['branch'] and names['parent'] is not None:
    other = f'it was {names["parent"]}, is {names["branch"]}'
  data_state, position = positions.taken_over(iterator.data, origin.data_state, data)
  record = {
    'parent': str(origin.run),
    'step': origin.step,
    'config': config_hash(origin.config),
    'changes': changes,
    'data': position,
    'schedule': schedule,
    'optimizer': KEPT if other is None else NEW,
  }
  at = f'go on at step {origin.step}' if schedule == CONTINUE else 'begin again at step 0'
  told = [
    # What has another value, before what comes and goes with it.
    f'changed: {"; ".join(sorted(changes, key=lambda change: "not set" in change)) or "nothing"}',
    f'optimiser: {"its state is kept" if other is None else f"begins afresh ({other})"}',
    f'step and learning rate schedule: {at}; data: {position}',
  ]
  return Beginning(origin, other is None, schedule == RESTART, data_state, record, told)


def check_values(schedule: str, origin: Origin | None, total_steps: int, initial_checkpoint: str | None) -> None:
  """Raises UsageError for what no branch can do.

  Args:
    schedule: see `begin`.
    origin: None for a branch that has begun.
    total_steps: where the branch ends.
    initial_checkpoint: where a run would start that is no branch; the parent's own is passed over.
  """
  if schedule not in SCHEDULES:
    raise errors.unknown('rule for the schedule (branch_schedule)', schedule, SCHEDULES)
  if origin is None:
    return
  if schedule == CONTINUE and origin.step >= total_steps:
    raise errors.UsageError(
      f'the branch begins at step {origin.step} and TRAIN_STEPS is {total_steps}: expected more, such as '
      f'--gin.TRAIN_STEPS={2 * origin.step or 1}, or --branch_schedule={RESTART}'
    )
  if initial_checkpoint is not None and repr(initial_checkpoint) not in _values(origin.config, _INITIAL):
    raise errors.UsageError(
      f'INITIAL_CHECKPOINT_PATH={initial_checkpoint}: a branch begins with its parent, expected None'
    )


def config_hash(config: Mapping[str, str]) -> str:
  """Hex SHA-256 of a record of parameters."""
  return hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode()).hexdigest()


def _read(folder: pathlib.Path, run: pathlib.Path, step: int) -> Origin:
  from t5x_lite.training import orbax_store

  data_state, config = (orbax_store.read_json(folder, item) for item in (checkpoints.DATA, checkpoints.CONFIG))
  return Origin(folder, run, step, config, data_state, _progress(folder).get(checkpoints.LINEAGE, {}))


def _progress(folder: pathlib.Path) -> dict[str, Any]:
  from t5x_lite.training import orbax_store

  return orbax_store.read_json(folder, checkpoints.PROGRESS)


def _values(config: Mapping[str, str], name: str) -> list[str]:
  return [value for key, value in config.items() if key.rpartition('/')[2] == name]


def _optimizer(config: Mapping[str, str]) -> str | None:
  return next(iter(_values(config, _OPTIMIZER)), None)
