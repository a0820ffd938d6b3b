"""Which checkpoints `RUN`, `RUN@STEP`, `RUN@best` or `RUN@all` means."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from t5x_lite.core import errors
from t5x_lite.core.checkpoint_names import ALL, BEST, LATEST, split_checkpoint
from t5x_lite.training import checkpoints, integrity


class Found(NamedTuple):
  """A checkpoint.

  Attributes:
    path: where it lies.
    run: the folder of its run.
    name: its step, or what there is instead.
    ours: whether it is of a run of ours.
  """

  path: str
  run: pathlib.Path
  name: str
  ours: bool


def locate(checkpoint: str) -> Iterator[Found]:
  """The checkpoints that `RUN`, `RUN@STEP`, `RUN@best` or `RUN@all` means, in the order of their steps.

  Raises:
    UsageError: the run has no such checkpoint, and the line names those that it has.
  """
  source, which = split_checkpoint(checkpoint)
  path = pathlib.Path(source).expanduser().absolute()
  if not integrity.holds_checkpoints(path):
    if which != LATEST:
      raise errors.UsageError(f'{checkpoint}: no run there; expected a folder with checkpoints before @{which}')
    yield Found(source, path if path.exists() else pathlib.Path(), path.name, ours=False)
    return
  step = integrity.step_of(path)
  if step is not None:
    yield Found(str(path), path.parent, str(step), ours=True)
    return
  known = integrity.steps(path)
  if which == ALL:
    wanted = known
  elif which == BEST:
    wanted = [best_step(path)]
  elif which == LATEST:
    wanted = known[-1:]
  else:
    wanted = [int(which)]
  for number in wanted:
    if number not in known:
      raise errors.UsageError(f'{source} has no checkpoint of step {number}: it has {", ".join(map(str, known))}')
    yield Found(str(integrity.step_folder(path, number)), path, str(number), ours=True)


def path_of(checkpoint: str) -> str:
  """Where the one checkpoint lies that `RUN@STEP` or `RUN@best` means; whatever else there is stays as it is.

  Raises:
    UsageError: the run has no such checkpoint, or all of them are meant.
  """
  which = split_checkpoint(checkpoint)[1]
  if which == LATEST:
    return checkpoint
  if which == ALL:
    raise errors.UsageError(f'{checkpoint}: expected one checkpoint, RUN, RUN@STEP or RUN@{BEST}')
  return next(locate(checkpoint)).path


def best_step(run: pathlib.Path) -> int:
  """The step of the best checkpoint of a run: of those that were evaluated as they were saved, if any; else the newest.

  A better evaluation between two saves has left no checkpoint.

  Raises:
    UsageError: all checkpoints are damaged.
  """
  known = checkpoints.saved_metrics(run)
  if known:
    return min(known, key=lambda step: known[step]['loss'])
  latest = checkpoints.latest_step(run)
  if latest is None:
    raise errors.UsageError(f'{run}: every checkpoint is damaged')
  from t5x_lite.training import orbax_store

  progress = orbax_store.read_json(integrity.step_folder(run, latest), checkpoints.PROGRESS)
  remembered = progress.get('improvement', {}).get('best_step')
  return remembered if remembered in integrity.steps(run) else latest
