"""A run's metrics on disk: JSON lines for programs, TensorBoard events for people. Written by process 0 alone."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import IO, Any

from t5x_lite.training import processes

METRICS = 'metrics.jsonl'
SAMPLES = 'samples.jsonl'
TRAIN = 'train'

_FLUSH_SECONDS = 20


def to_json(row: Mapping[str, Any]) -> str:
  """One line of standard JSON. Numbers that JSON lacks (NaN, infinities) become null."""
  return json.dumps(_clean(row), allow_nan=False, ensure_ascii=False)


def _clean(value: Any) -> Any:
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if isinstance(value, Mapping):
    return {key: _clean(part) for key, part in value.items()}
  return [_clean(part) for part in value] if isinstance(value, list | tuple) else value


def drop_after(path: pathlib.Path, step: int) -> None:
  """Rewrites a file of JSON lines without the rows of later steps, and without a half-written one; atomically."""
  if not path.exists():
    return
  # Not by splitlines(), which cuts at line ends of Unicode too, and these stand in texts.
  lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
  lines = lines if lines[-1] else lines[:-1]
  kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
  if len(kept) == len(lines):
    return
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(''.join(line + '\n' for line in kept), encoding='utf-8')
  os.replace(temporary, path)


def _step_of(line: str) -> int | None:
  try:
    return int(json.loads(line)['step'])
  except (ValueError, KeyError, TypeError):
    return None


class MetricWriter:
  """Writes rows of metrics to `metrics.jsonl`, samples of text to `samples.jsonl`, and both to TensorBoard.

  Event files lie where T5X has them: `train/` for training, `<task>_eval/` for the evaluation of a task.

  Args:
    directory: of the run.
  """

  def __init__(self, directory: str | pathlib.Path):
    self.directory = pathlib.Path(directory)
    self._enabled = processes.is_primary()
    self._files: dict[str, IO[str]] = {}
    self._boards: dict[str, Any] = {}
    self._first_step = 0

  def start(self, step: int) -> None:
    """Forgets what an earlier run wrote beyond `step`, the one it is resumed from; call before the first write."""
    self._first_step = step + 1
    if self._enabled:
      self.directory.mkdir(parents=True, exist_ok=True)
      for name in (METRICS, SAMPLES):
        drop_after(self.directory / name, step)

  def write(self, row: Mapping[str, Any]) -> None:
    """Appends one row and flushes it. `split` and `step` are required, and `task` unless the split is 'train'."""
    if not self._enabled:
      return
    self._append(METRICS, row)
    board = self._board(_folder(row))
    for name, value in row.items():
      if isinstance(value, int | float) and name != 'step':
        board.add_scalar(name, value, row['step'])

  def write_sample(self, row: Mapping[str, Any]) -> None:
    """Appends one sample: `step`, `task`, `input`, `target`, `prediction`."""
    if self._enabled:
      self._append(SAMPLES, row)

  def write_text(self, task: str, name: str, text: str, step: int) -> None:
    """Markdown for TensorBoard's text tab of a task's evaluation."""
    if self._enabled:
      self._board(_eval_folder(task)).add_text(name, text, step)

  def close(self) -> None:
    """Flushes and closes everything."""
    for file in self._files.values():
      file.close()
    for board in self._boards.values():
      board.close()
    self._files, self._boards = {}, {}

  def _append(self, name: str, row: Mapping[str, Any]) -> None:
    if name not in self._files:
      self._files[name] = (self.directory / name).open('a', encoding='utf-8')
    self._files[name].write(to_json(row) + '\n')
    self._files[name].flush()

  def _board(self, folder: str) -> Any:
    """The event writer of a folder. Its first event tells TensorBoard to hide what lies beyond the first step."""
    if folder not in self._boards:
      import tensorboardX

      path = str(self.directory / folder)
      self._boards[folder] = tensorboardX.SummaryWriter(path, purge_step=self._first_step, flush_secs=_FLUSH_SECONDS)
    return self._boards[folder]


def _folder(row: Mapping[str, Any]) -> str:
  return TRAIN if row['split'] == TRAIN else _eval_folder(row['task'])


def _eval_folder(task: str) -> str:
  return f'{task}_eval'.replace('/', '_')
