"""Reads what a run writes while it goes on: `metrics.jsonl` as columns, and `samples.jsonl`."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

METRICS, SAMPLES = 'metrics.jsonl', 'samples.jsonl'
TRAIN = 'train'

_NAMES = ('split', 'task')
_LARGE = 1 << 20  # bytes, from which on it pays to import Arrow
_BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Series:
  """One metric of one run.

  Attributes:
    steps: int64 `[N]`, increasing.
    values: float64 `[N]`; NaN where the run wrote null.
  """

  steps: np.ndarray
  values: np.ndarray


Key = tuple[str, str, str]  # split, task ('' in training), metric


@dataclasses.dataclass(frozen=True)
class Metrics:
  """All metrics of one run, each a `Series`."""

  series: Mapping[Key, Series]

  def train(self, name: str) -> Series | None:
    """A metric of training."""
    return self.series.get((TRAIN, '', name))


def read_metrics(folder: pathlib.Path) -> Metrics:
  """The metrics of a run. Broken lines are left out; of a step that is told twice the last row counts."""
  try:
    data = (folder / METRICS).read_bytes()
  except OSError:
    return Metrics({})
  data = data[: data.rfind(b'\n') + 1]  # what follows is being written
  columns = _arrow_columns(data) if len(data) >= _LARGE else None
  return Metrics(_series(_columns(data) if columns is None else columns))


def _arrow_columns(data: bytes) -> dict[str, np.ndarray] | None:
  """The columns by Arrow, in a third of the time that `json` takes for 66 MB; None where it cannot read them."""
  import pyarrow as pa
  from pyarrow import json as arrow_json

  try:
    table = arrow_json.read_json(pa.BufferReader(data), read_options=arrow_json.ReadOptions(block_size=_BLOCK))
    columns = {}
    for name in table.column_names:
      column = table.column(name)
      if name in _NAMES:
        encoded = column.cast(pa.string()).fill_null('').combine_chunks().dictionary_encode()
        columns[name] = np.array(encoded.dictionary.to_pylist(), dtype=object)[np.asarray(encoded.indices)]
      elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        columns[name] = column.cast(pa.float64()).to_numpy()
  except pa.ArrowInvalid:
    return None
  return columns if {'split', 'step'} <= columns.keys() and np.isfinite(columns['step']).all() else None


def _columns(data: bytes) -> dict[str, np.ndarray]:
  """The columns, line by line; NaN and '' where a row has none."""
  rows = [row for row in map(_row, data.splitlines()) if row is not None]
  numbers = {name for row in rows for name, value in row.items() if name not in _NAMES and _is_number(value)}
  columns = {name: np.array([row.get(name, '') for row in rows], dtype=object) for name in _NAMES}
  for name in sorted(numbers):
    columns[name] = np.array([row[name] if _is_number(row.get(name)) else np.nan for row in rows], dtype=np.float64)
  return columns


def _row(line: bytes) -> dict[str, Any] | None:
  """A line as a row of metrics; None if it is none."""
  try:
    row = json.loads(line)
  except ValueError:
    return None
  known = isinstance(row, dict) and isinstance(row.get('split'), str) and _is_number(row.get('step'))
  return row if known and isinstance(row.get('task', ''), str) and math.isfinite(row['step']) else None


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _series(columns: Mapping[str, np.ndarray]) -> dict[Key, Series]:
  """The series of each split and task."""
  found: dict[Key, Series] = {}
  if not columns or 'step' not in columns:
    return found
  splits = columns['split']
  tasks = columns.get('task', np.full(len(splits), '', dtype=object))
  for split in dict.fromkeys(splits):
    of_split = splits == split
    for task in dict.fromkeys(tasks[of_split]):
      places = np.flatnonzero(of_split & (tasks == task))
      places = places[_last_of_each(columns['step'][places])]
      steps = columns['step'][places].astype(np.int64)
      for name, column in columns.items():
        if name not in (*_NAMES, 'step'):
          series = _one(name, steps, column[places])
          if series is not None:
            found[split, task, name] = series
  return found


def _last_of_each(steps: np.ndarray) -> np.ndarray:
  """Places of the last row of each step, by step."""
  if len(steps) < 2 or (np.diff(steps) > 0).all():
    return np.arange(len(steps))
  _, from_behind = np.unique(steps[::-1], return_index=True)
  return len(steps) - 1 - from_behind


def _one(name: str, steps: np.ndarray, values: np.ndarray) -> Series | None:
  """A series without the rows that have no value; of a loss they stay, as not finite, and leave a gap."""
  known = np.isfinite(values)
  if not known.any() and name != 'loss':
    return None
  return Series(steps, values) if name == 'loss' else Series(steps[known], values[known])


def read_samples(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Rows of `samples.jsonl` with `step`, `task` and texts; none where there is no such file."""
  try:
    data = (folder / SAMPLES).read_bytes()
  except OSError:
    return []
  rows = []
  for line in data[: data.rfind(b'\n') + 1].splitlines():
    try:
      row = json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and _is_number(row.get('step')):
      rows.append(row)
  return rows
