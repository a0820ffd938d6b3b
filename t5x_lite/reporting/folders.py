"""Which runs the folders on the command line hold, and which of them are arms of one sweep."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.reporting import attention
from t5x_lite.sweeps import outcomes, verdicts

METRICS, CONFIG, RUN_INFO = 'metrics.jsonl', 'config.gin', 'run-info.json'  # of a run's folder
_MOST_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a run lies.

  Attributes:
    path: its folder, absolute.
    name: how the page calls it.
    arm: of which sweep and which arm it is; None: of none.
    seed: of the sweep.
  """

  path: pathlib.Path
  name: str
  arm: tuple[str, str] | None = None
  seed: int | None = None


@dataclasses.dataclass(frozen=True)
class SweepFolder:
  """A sweep's folder and what its `sweep.json` says.

  Attributes:
    path: the folder, absolute.
    name: of the sweep.
    plan: `sweep.json`.
  """

  path: pathlib.Path
  name: str
  plan: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Found:
  """What the page is about: runs given by themselves, sweeps, and files of attention maps beside them."""

  runs: tuple[Place, ...]
  sweeps: tuple[SweepFolder, ...]
  attention: tuple[pathlib.Path, ...] = ()

  def places(self) -> list[Place]:
    """All runs that have begun, those of sweeps in the order of arms and seeds; a sweep may have more of them now."""
    return [*self.runs, *(place for sweep in self.sweeps for place in sweep_places(sweep))]


def find(words: Sequence[str], may_wait: bool = False) -> Found:
  """The runs, sweeps and attention maps that `words` name; what is named twice counts once, and a
  run of a sweep that is named too as the sweep's.

  Args:
    words: paths of folders, and of files of `infer --mode=attention`.
    may_wait: whether a run may still be without metrics.

  Raises:
    UsageError: a path is no folder of a run or sweep, or has no metrics yet; a file holds no maps; there is no folder.
  """
  paths = {pathlib.Path(word).expanduser().absolute(): word for word in words}
  unique = {path.resolve(): path for path in reversed(paths)}
  kept = [path for path in paths if unique[path.resolve()] == path]
  names = _names(kept)
  runs, sweeps, maps = [], [], []
  for path in kept:
    if path.suffix == attention.ENDING and path.is_file():
      attention.check(path, paths[path])
      maps.append(path)
    elif (path / outcomes.SWEEP).is_file():
      sweeps.append(_sweep(path, paths[path], names[path]))
      if not may_wait and not any(has_metrics(place.path) for place in sweep_places(sweeps[-1])):
        raise errors.UsageError(f'{paths[path]}: none of the runs of this sweep has metrics yet')
    else:
      _check_run(path, paths[path], may_wait)
      runs.append(Place(path, names[path]))
  if not runs and not sweeps:
    raise errors.UsageError(f'{", ".join(words)}: attention maps alone, expected the folder of a run or a sweep too')
  inside = {place.path.resolve() for sweep in sweeps for place in sweep_places(sweep)}  # which count as theirs
  return Found(tuple(run for run in runs if run.path.resolve() not in inside), tuple(sweeps), tuple(maps))


def has_metrics(path: pathlib.Path) -> bool:
  """Whether a run's folder holds a row of metrics."""
  try:
    return (path / METRICS).stat().st_size > 0
  except OSError:
    return False


def is_run(path: pathlib.Path) -> bool:
  """Whether a folder is that of a run."""
  return any((path / name).is_file() for name in (METRICS, CONFIG, RUN_INFO))


def _check_run(path: pathlib.Path, word: str, may_wait: bool) -> None:
  if not path.exists():
    near = errors.nearest(path.name, _entries(path.parent))
    raise errors.UsageError(
      f'{word}: no such folder or file' + (f'; did you mean {path.parent / near}?' if near else '')
    )
  if not path.is_dir():
    raise errors.UsageError(f'{word}: expected the folder of a run or a sweep, not a file')
  if not is_run(path):
    inside = [name for name in _entries(path) if is_run(path / name) or (path / name / outcomes.SWEEP).is_file()]
    if inside:
      more = f' and {len(inside) - _MOST_NAMED} more' if len(inside) > _MOST_NAMED else ''
      raise errors.UsageError(
        f'{word}: not a run, but it holds {", ".join(inside[:_MOST_NAMED])}{more}: expected {word.rstrip("/")}/*'
      )
    raise errors.UsageError(f'{word}: neither a run ({METRICS}) nor a sweep ({outcomes.SWEEP}) lies there')
  if not may_wait and not has_metrics(path):
    raise errors.UsageError(f'{word}: this run has no metrics yet (--serve waits for them)')


def _entries(folder: pathlib.Path) -> list[str]:
  """The folders in a folder."""
  try:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
  except OSError:
    return []


def _sweep(path: pathlib.Path, word: str, name: str) -> SweepFolder:
  try:
    plan = json.loads((path / outcomes.SWEEP).read_text(encoding='utf-8'))
    arms = verdicts.read_plan(path).arms
  except (ValueError, OSError) as error:
    raise errors.UsageError(f'{word}/{outcomes.SWEEP}: not what a sweep writes ({error})') from error
  if not arms:
    raise errors.UsageError(f'{word}/{outcomes.SWEEP}: a sweep without arms')
  return SweepFolder(path, str(plan['name'] or name), plan)


def sweep_places(sweep: SweepFolder) -> list[Place]:
  """The runs of a sweep that have begun, by arms as planned, then by seeds."""
  places = []
  for arm in sweep.plan['arms']:
    folder = sweep.path / outcomes.ARMS / arm['name']
    seeds = sorted((name for name in _entries(folder) if name.isdecimal()), key=int)
    places += [
      Place(folder / seed, f'{arm["name"]}/{seed}', (str(sweep.path), arm['name']), int(seed))
      for seed in seeds
      if is_run(folder / seed)
    ]
  return places


def _names(paths: Iterable[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The shortest ends of the paths that tell them apart, and are no mere numbers."""
  names = {}
  paths = list(paths)
  for path in paths:
    for parts in range(1, len(path.parts) + 1):
      name = '/'.join(path.parts[-parts:])
      alone = sum(other.parts[-parts:] == path.parts[-parts:] for other in paths) == 1
      if alone and not path.parts[-parts].isdecimal():
        break
    names[path] = name
  return names


def check_output(output: str) -> None:
  """Raises UsageError if no file can be written at a path."""
  path = pathlib.Path(output)
  if path.is_dir():
    raise errors.UsageError(f'--output={output}: expected a file, not a folder')
  if not path.parent.is_dir():
    raise errors.UsageError(f'--output={output}: there is no folder {path.parent}')
  if not os.access(path.parent, os.W_OK):
    raise errors.UsageError(f'--output={output}: cannot write there')
