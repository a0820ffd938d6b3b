"""A job over many lines: grouped by length, so that few programs are compiled; in order; resumed where it stopped."""

from __future__ import annotations

import collections
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from t5x_lite.core import errors
from t5x_lite.generation import bucket
from t5x_lite.inference import rows
from t5x_lite.inference.modes import Item, Mode
from t5x_lite.inference.rows import Line

WINDOW_BATCHES = 16
_PROGRESS_SECONDS = 0.5


def run(lines: Iterable[Line], mode: Mode, *, batch_size: int, devices: int = 1) -> Iterator[dict[str, Any]]:
  """A row for every line, in order: `line` and what the mode says, or `line` and `error`.

  Args:
    lines: the input.
    mode: what is done with it.
    batch_size: lines at a time, a multiple of `devices`.
    devices: over which the rows of a batch must divide.
  """
  source = iter(lines)
  while window := list(itertools.islice(source, batch_size * WINDOW_BATCHES)):
    found: dict[int, dict[str, Any]] = {}
    by_length = collections.defaultdict(list)
    for line in window:
      try:
        if line.fields is None:
          raise ValueError(line.error)
        item = mode.read(line.fields)
        by_length[bucket(len(item.ids))].append((line.number, item))
      except ValueError as error:
        found[line.number] = {'error': str(error)}
    for length, group in sorted(by_length.items()):
      for start in range(0, len(group), batch_size):
        found |= _batch(mode, group[start : start + batch_size], length, batch_size, devices)
    for line in window:
      yield {'line': line.number, **found[line.number]}


def _batch(
  mode: Mode, chunk: list[tuple[int, Item]], length: int, batch_size: int, devices: int
) -> dict[int, dict[str, Any]]:
  """What becomes of some lines: a full batch, or the next power of two, so that few programs are compiled."""
  numbers, items = zip(*chunk, strict=True)
  size = devices
  while size < len(items):
    size *= 2
  missing = min(size, batch_size) - len(items)
  made = mode.run([*items, *[items[0]] * missing], length, [*numbers, *[numbers[0]] * missing])
  return dict(zip(numbers, made[: len(items)], strict=True))


class Output:
  """Where rows go. A file that was begun with the same settings is gone on with, at its first incomplete row.

  Args:
    path: of the file, or `-` for standard output.
    kind: its format.
    settings: what the rows depend on.
    columns: of a CSV.

  Raises:
    UsageError: the file was begun with other settings.
  """

  def __init__(self, path: str, kind: str, settings: Mapping[str, Any], columns: Sequence[str] = ()):
    self._kind, self._columns = kind, columns
    self._settings = json.dumps(settings, sort_keys=True, default=str)
    self.done = 0
    self._begun = None
    if path == '-':
      self._file: TextIO = sys.stdout
      return
    target = pathlib.Path(path).expanduser()
    self._begun = target.with_name(f'{target.name}.unfinished')
    if self._begun.is_file() and target.is_file():
      if self._begun.read_text(encoding='utf-8') != self._settings:
        raise errors.UsageError(
          f'{path} was begun with other settings, which {self._begun.name} tells: expected the same ones to go on with '
          'it, another --output, or that file deleted to begin anew'
        )
      self.done = self._kept(target)
    try:
      self._file = target.open('a' if self.done else 'w', encoding='utf-8')
      self._begun.write_text(self._settings, encoding='utf-8')
    except OSError as error:
      raise errors.UsageError(f'{path}: {error.strerror}') from error

  def _kept(self, target: pathlib.Path) -> int:
    """How many rows are complete; what follows them is cut off."""
    content = target.read_bytes()
    end = content.rfind(b'\n') + 1
    if self._kind == 'csv':  # a field may have line ends in it, and then stands in quotes
      while content.count(b'"', 0, end) % 2:
        end = content.rfind(b'\n', 0, end - 1) + 1
      count = len(list(rows.read(content[:end].splitlines(keepends=True), 'csv')))
    else:
      count = content[:end].count(b'\n')
    with target.open('r+b') as file:
      file.truncate(end)
    return count

  def write(self, row: Mapping[str, Any]) -> None:
    """Writes a row, at once."""
    print(rows.write(row, self._kind, first=self.done == 0, columns=self._columns), file=self._file, flush=True)
    self.done += 1

  def close(self, complete: bool) -> None:
    """Closes the file; when it is complete, nothing tells of how it was begun."""
    if self._begun is not None:
      self._file.close()
      if complete:
        self._begun.unlink(missing_ok=True)


class Progress:
  """Rows and rows a second, on a terminal."""

  def __init__(self) -> None:
    self._shown = sys.stderr.isatty() and os.environ.get('TERM') != 'dumb'
    self._start = self._last = time.monotonic()
    self._count = 0

  def advance(self) -> None:
    """One row more."""
    self._count += 1
    now = time.monotonic()
    if self._shown and now - self._last >= _PROGRESS_SECONDS:
      self._last = now
      print(
        f'\r{self._count} rows, {self._count / (now - self._start):.1f} a second', end='', file=sys.stderr, flush=True
      )

  def close(self) -> None:
    """Ends the line."""
    if self._shown:
      seconds = max(time.monotonic() - self._start, 1e-9)
      print(f'\r{self._count} rows, {self._count / seconds:.1f} a second', file=sys.stderr)
