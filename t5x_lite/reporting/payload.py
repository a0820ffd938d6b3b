"""All that the page shows, as one JSON value; read again, only what has changed on disk is read."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from t5x_lite.reporting import (
  attention,
  differences,
  encoding,
  facts,
  folders,
  lineage,
  reduction,
  rows,
  samples,
  verdict_tables,
)
from t5x_lite.reporting.facts import Facts
from t5x_lite.reporting.folders import Found, Place
from t5x_lite.reporting.progress import Progress, progress
from t5x_lite.reporting.rows import TRAIN, Key, Metrics, Series
from t5x_lite.sweeps import outcomes

_POINTS = 420_000  # of all curves together, 10.7 bytes each
_MOST, _LEAST = 4000, 24  # points of one curve
_BAND_SHARE = 0.5  # points of a band, which has five numbers each, beside those of a curve
_EVALUATIONS = 20_000  # rows of the table
_FILES = (folders.METRICS, rows.SAMPLES, folders.CONFIG, folders.RUN_INFO)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
  """What has been read of a run, and the state of the files that it was read from."""

  place: Place
  stamp: tuple[Any, ...]
  metrics: Metrics
  facts: Facts
  progress: Progress
  written: float | None


class FolderReader:
  """Reads runs into what the page shows.

  Args:
    found: the runs and sweeps.
    may_change: whether the name of a parameter says how a run goes and not what it is.
    title: of the page.
  """

  def __init__(self, found: Found, may_change: Callable[[str], bool], title: str | None = None):
    self._found, self._may_change = found, may_change
    names = [sweep.name for sweep in found.sweeps] + [place.name for place in found.runs]
    self._title = title or (
      ', '.join(names) if len(names) <= 3 else f'{", ".join(names[:2])} and {len(names) - 2} more'
    )
    self._runs: dict[pathlib.Path, _Run] = {}
    self._maps: dict[pathlib.Path, tuple[Any, attention.File]] = {}

  def stamp(self) -> str:
    """Changes when something on disk has; cheap."""
    states = [(str(place.path), _stamp(place.path)) for place in self._found.places()]
    ended = [_state(sweep.path / outcomes.OUTCOMES) for sweep in self._found.sweeps]
    maps = [_state(path) for path in self._found.attention]
    return f'{hash((tuple(states), tuple(ended), tuple(maps))) & 0xFFFFFFFFFFFFFFFF:016x}'

  def describe(self) -> str:
    """Such as `6 runs, 2 sweeps`."""
    places, sweeps = len(self._found.places()), len(self._found.sweeps)
    text = f'{places} run{"s" * (places != 1)}'
    return text + (f' of {sweeps} sweep{"s" * (sweeps != 1)}' if sweeps and not self._found.runs else '')

  def read(self) -> dict[str, Any]:
    """The value: `encoding` says how its numbers are written, `page.js` how it is read."""
    stamp = self.stamp()
    places = self._found.places()
    self._runs = {place.path: self._run(place) for place in places}
    runs = list(self._runs.values())
    arms = self._arms(runs)
    shown = [run for members in arms for run in members]
    most = _points(shown, arms)
    return {
      'title': self._title,
      'stamp': stamp,
      'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'arms': [_arm(self._found, members, shown, most) for members in arms],
      'runs': [_described(run, place, most) for place, run in enumerate(shown)],
      'evaluations': _evaluations(shown),
      'samples': samples.collect([run.place.path for run in shown]),
      'attention': self._attention(shown),
      'lineage': lineage.collect([(run.place.path, run.facts) for run in shown]),
      'configuration': self._configuration(shown, arms),
      'sweeps': [verdict_tables.results(sweep) for sweep in self._found.sweeps],
    }

  def _run(self, place: Place) -> _Run:
    stamp = _stamp(place.path)
    known = self._runs.get(place.path)
    if known is not None and known.stamp == stamp:
      return dataclasses.replace(known, place=place)
    metrics, found = rows.read_metrics(place.path), facts.read_facts(place.path)
    state = _state(place.path / folders.METRICS)
    return _Run(place, stamp, metrics, found, progress(metrics, found), None if state is None else state[1] / 1e9)

  def _attention(self, runs: Sequence[_Run]) -> dict[str, Any]:
    """The maps in the folders of runs, and those given beside them."""
    paths = [(place, path) for place, run in enumerate(runs) for path in attention.map_files(run.place.path)]
    known = {path.resolve() for _, path in paths}
    every = [*paths, *((None, path) for path in self._found.attention if path.resolve() not in known)]
    read = {}
    for _, path in every:
      state = _state(path)
      before = self._maps.get(path)
      read[path] = before if before is not None and before[0] == state else (state, attention.read(path))
    self._maps = read
    return attention.collect([(place, read[path][1]) for place, path in every])

  def _arms(self, runs: Sequence[_Run]) -> list[list[_Run]]:
    """Runs by arm: those of sweeps as planned, others by what their resolved values say."""
    alone = [run for run in runs if run.place.arm is None]
    grouped: dict[Any, list[_Run]] = {}
    for run, arm in zip(alone, differences.arms([run.facts for run in alone]), strict=True):
      grouped.setdefault(arm, []).append(run)
    for run in runs:
      if run.place.arm is not None:
        grouped.setdefault(run.place.arm, []).append(run)
    return list(grouped.values())

  def _configuration(self, runs: Sequence[_Run], arms: Sequence[Sequence[_Run]]) -> dict[str, Any]:
    lines = []
    for line in differences.compare([run.facts for run in runs], self._may_change):
      values = list(dict.fromkeys(line.values))
      lines.append(
        {
          'name': line.name,
          'kind': line.kind,
          'reason': line.reason,
          'values': values,
          'of': [values.index(value) for value in line.values],
        }
      )
    files = [{'arm': place, 'text': members[0].facts.config} for place, members in enumerate(arms[:40])]
    return {'lines': lines, 'files': [file for file in files if file['text']]}


def _stamp(path: pathlib.Path) -> tuple[Any, ...]:
  """The state of the files of a run, of its attention maps too, and which checkpoints it has."""
  try:
    names = sorted(entry.name for entry in path.iterdir() if entry.name.startswith('checkpoint_'))
  except OSError:
    names = []
  maps = ((own.name, _state(own)) for own in attention.map_files(path))
  return (*(_state(path / name) for name in _FILES), *names, *maps)


def _state(path: pathlib.Path) -> tuple[int, int] | None:
  try:
    found = path.stat()
  except OSError:
    return None
  return found.st_size, found.st_mtime_ns


def _points(runs: Sequence[_Run], arms: Sequence[Sequence[_Run]]) -> int:
  """How many points a curve may have, so that all of them together stay within the page's size."""
  curves = float(sum(len(run.metrics.series) for run in runs))
  for members in arms:
    if len(members) > 1:
      curves += 2.5 * _BAND_SHARE * len({key for run in members for key in run.metrics.series})
  return max(_LEAST, min(_MOST, int(_POINTS / max(curves, 1.0))))


def key_name(key: Key) -> str:
  """A metric's name on the page: `loss`, `validation/glue_cola/loss`."""
  split, task, name = key
  return name if split == TRAIN and not task else '/'.join(part for part in (split, task, name) if part)


def _arm(found: Found, members: Sequence[_Run], shown: Sequence[_Run], most: int) -> dict[str, Any]:
  """An arm with its bands, where it has several runs."""
  first = members[0].place
  names = [run.place.name for run in members]
  name, description, baseline = _arm_name(names), '', False
  for sweep in found.sweeps:
    if first.arm is not None and first.arm[0] == str(sweep.path):
      planned = {arm['name']: arm for arm in sweep.plan['arms']}[first.arm[1]]
      name = planned['name'] if len(found.sweeps) + len(found.runs) == 1 else f'{sweep.name}: {planned["name"]}'
      description, baseline = str(planned.get('description') or ''), sweep.plan.get('baseline') == planned['name']
  bands = {}
  if len(members) > 1:
    for key in dict.fromkeys(itertools.chain.from_iterable(run.metrics.series for run in members)):
      of_runs = [run.metrics.series[key] for run in members if key in run.metrics.series]
      bands[key_name(key)] = _band(of_runs, max(_LEAST, int(most * _BAND_SHARE)))
  places = [shown.index(run) for run in members]
  return {'name': name, 'description': description, 'baseline': baseline, 'runs': places, 'bands': bands}


def _arm_name(names: Sequence[str]) -> str:
  """The name of runs that are one arm: their common folder, or the first of them and how many more."""
  parents = {name.rpartition('/')[0] for name in names}
  if len(names) == 1:
    return names[0]
  return parents.pop() if len(parents) == 1 and '' not in parents else f'{names[0]} and {len(names) - 1} more'


def _band(runs: Sequence[Series], most: int) -> dict[str, Any]:
  band = reduction.band(runs, most)
  return {
    'steps': encoding.steps(band.steps),
    **{name: encoding.floats(getattr(band, name)) for name in ('mean', 'low', 'high', 'deviation')},
    'counts': encoding.floats(band.counts),
  }


def _described(run: _Run, place: int, most: int) -> dict[str, Any]:
  """A run with its curves."""
  curves = {}
  for key, series in run.metrics.series.items():
    short = reduction.shorten(series, most)
    curves[key_name(key)] = {
      'of': len(series.steps),
      'steps': encoding.steps(short.steps),
      'values': encoding.floats(short.values),
    }
  info, made = run.facts.info, run.progress
  seed = run.place.seed if run.place.seed is not None else info.get('seed')
  return {
    'name': run.place.name,
    'path': str(run.place.path),
    'seed': seed if isinstance(seed, int) else None,
    'written': run.written,
    'total_steps': run.facts.total_steps,
    'parameters': run.facts.parameters,
    'spent': {name: encoding.number(value) for name, value in made.last.items()},
    'progress': {
      'steps': encoding.steps(made.steps),
      'tokens': None if made.tokens is None else encoding.floats(made.tokens),
      'seconds': None if made.seconds is None else encoding.floats(made.seconds),
      'flops_per_step': made.flops_per_step,
    },
    'info': {name: str(info[name]) for name in ('t5x_lite', 'jax', 'python', 'devices', 'processes') if name in info},
    'shares': {name: encoding.number(share) for name, share in run.facts.shares.items()},
    'consumed': run.facts.consumed,
    'checkpoints': [[step, _numbers(values)] for step, values in run.facts.checkpoints],
    'parent': run.facts.parent,
    'curves': curves,
  }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _evaluations(runs: Sequence[_Run]) -> dict[str, Any]:
  """The rows of all evaluations: run, split, task, step, metrics; the newest of each run, if there are too many."""
  names: dict[str, int] = {}
  lines: list[list[Any]] = []
  each = max(1, _EVALUATIONS // max(1, len(runs)))
  for place, run in enumerate(runs):
    own: dict[tuple[int, str, str], dict[str, float]] = {}
    for (split, task, name), series in run.metrics.series.items():
      if split != TRAIN:
        for step, value in zip(series.steps[-each:].tolist(), series.values[-each:].tolist(), strict=True):
          own.setdefault((step, split, task), {})[name] = value
    for (step, split, task), values in sorted(own.items())[-each:]:
      for name in values:
        names.setdefault(name, len(names))
      lines.append([place, split, task, step, {names[name]: encoding.number(value) for name, value in values.items()}])
  return {'metrics': list(names), 'rows': lines, 'less_is_better': [outcomes.less_is_better(name) for name in names]}
