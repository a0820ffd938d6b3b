"""What a run prints: one live line on a terminal, one plain line per logging period elsewhere. Process 0 prints."""

from __future__ import annotations

import datetime
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from t5x_lite.training import processes

_BAR_FROM_WIDTH = 100
_REFRESH_PER_SECOND = 4
_ROOM_FOR_ECHO = 3  # What a terminal shows of a Ctrl-C must not wrap: `signals` erases the one line that it stands on.


def count(value: float | None) -> str:
  """A number with a unit prefix in at most five characters: 950, 12.3k, 4.56M; '-' for None."""
  if value is None or not math.isfinite(value):
    return '-'
  for unit in ('', 'k', 'M', 'G', 'T'):
    if abs(value) < 999.5 or unit == 'T':
      digits = 0 if not unit else max(0, 2 - int(math.log10(max(abs(value), 1))))
      return f'{value:.{digits}f}{unit}'
    value /= 1000
  raise AssertionError('unreachable')


def percent(value: float | None) -> str:
  """A fraction as a percentage; '-' for None."""
  return '-' if value is None or not math.isfinite(value) else f'{100 * value:.1f}%'


def duration(seconds: float | None) -> str:
  """H:MM:SS; '-' for None."""
  if seconds is None or not math.isfinite(seconds):
    return '-'
  return str(datetime.timedelta(seconds=round(seconds)))


def train_fields(row: Mapping[str, Any], total_steps: int, eta: float | None) -> list[str]:
  """The parts of a line on training, the most important first; each of a fixed width, so that lines align."""
  loss = row.get('loss')
  return [
    f'step {row["step"]:>{len(str(total_steps))}}/{total_steps}',
    f'loss {"-" if loss is None else f"{loss:.4f}":>7}',
    f'{count(row.get("tokens_per_second")):>5} tok/s',
    f'MFU {percent(row.get("mfu")):>5}',
    f'useful {percent(row.get("useful_token_fraction")):>6}',
    f'ETA {duration(eta):>7}',
  ]


def eval_line(row: Mapping[str, Any], total_steps: int) -> str:
  """One line on an evaluation."""
  scores = [name for name in row if name.startswith('score/')]
  named = scores or ('accuracy', 'perplexity')
  shown = [f'{name.removeprefix("score/")} {row[name]:.4g}' for name in named if name in row]
  parts = [
    f'eval {row["step"]:>{len(str(total_steps))}}/{total_steps}',
    f'loss {row["loss"]:7.4f}',
    *shown,
    row['task'],
  ]
  return '  '.join(parts)


class Console:
  """Prints a run's progress to a stream.

  Args:
    stream: where to; default: standard output.
    live: keep one line up to date instead of printing one per period; default: if the stream is a terminal.
  """

  def __init__(self, stream: TextIO | None = None, *, live: bool | None = None):
    self._stream = stream or sys.stdout
    self._enabled = processes.is_primary()
    self._live = self._enabled and (self._stream.isatty() if live is None else live)
    self._display: _LiveLine | None = None
    self._total_steps = 0

  @property
  def width(self) -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns if self._live else 100

  def start(self, step: int, total_steps: int) -> None:
    """Shows the live line, if there is to be one; until `stop`, all printing and logging goes above it."""
    self._total_steps = total_steps
    if self._live:
      self._display = _LiveLine(self._stream, step, total_steps)

  def step(self, step: int, loss: float) -> None:
    """A step is done: the live line moves on."""
    if self._display is not None:
      self._display.set_step(step, loss)

  def train(self, row: Mapping[str, Any], eta: float | None) -> None:
    """A logging period is over.

    Args:
      row: as written to `metrics.jsonl`.
      eta: seconds that the rest of the run will take.
    """
    if self._display is not None:
      self._display.set_row(row, eta)
    else:
      self.note('  '.join(train_fields(row, self._total_steps, eta)))

  def evaluation(self, row: Mapping[str, Any]) -> None:
    """A task has been evaluated."""
    self.note(eval_line(row, self._total_steps))

  def note(self, text: str) -> None:
    """Prints text that stays."""
    if not self._enabled:
      return
    if self._display is not None:
      self._display.print(text)
    else:
      print(text, file=self._stream, flush=True)

  def stop(self) -> None:
    """Takes the live line away."""
    if self._display is not None:
      self._display.stop()
      self._display = None


class _LiveLine:
  """A line that rich keeps at the bottom of the terminal while everything else scrolls above it."""

  def __init__(self, stream: TextIO, step: int, total_steps: int):
    from rich import console as rich_console
    from rich import live

    self._row: dict[str, Any] = {'step': step}
    self._total_steps = total_steps
    self._eta: float | None = None
    self._console = rich_console.Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
    self._live = live.Live(
      get_renderable=self._render, console=self._console, refresh_per_second=_REFRESH_PER_SECOND, transient=True
    )
    self._live.start()
    self._handlers = _redirect_logging()

  def set_step(self, step: int, loss: float) -> None:
    self._row |= {'step': step, 'loss': loss}

  def set_row(self, row: Mapping[str, Any], eta: float | None) -> None:
    self._row, self._eta = self._row | dict(row), eta

  def print(self, text: str) -> None:
    self._console.print(text, soft_wrap=True)

  def stop(self) -> None:
    self._live.stop()
    for handler, stream in self._handlers:
      handler.setStream(stream)
    if 'tokens_per_second' in self._row:  # The live line is gone; what it said last stays.
      self.print('  '.join(train_fields(self._row, self._total_steps, self._eta)))

  def _render(self) -> Any:
    from rich.text import Text

    width = self._console.width - _ROOM_FOR_ECHO
    fields = train_fields(self._row, self._total_steps, self._eta)
    if width >= _BAR_FROM_WIDTH:
      used = sum(len(field) + 2 for field in fields)
      fields.insert(1, _bar(self._row['step'] / max(self._total_steps, 1), min(30, width - used)))
    while len(fields) > 1 and len('  '.join(fields)) > width:
      fields.pop(-2)  # The time left is what one looks for on a narrow terminal.
    return Text('  '.join(fields), no_wrap=True, overflow='crop')


def _bar(fraction: float, width: int) -> str:
  filled = round(min(fraction, 1.0) * max(width, 0))
  return '━' * filled + '─' * (max(width, 0) - filled)


def _redirect_logging() -> list[tuple[logging.StreamHandler, TextIO]]:
  """Lets log handlers that hold the real standard streams write to rich's stand-ins; returns what to undo."""
  changed = []
  for handler in _stream_handlers():
    for name in ('stdout', 'stderr'):
      if handler.stream is getattr(sys, f'__{name}__'):
        changed.append((handler, handler.stream))
        handler.setStream(getattr(sys, name))
        break
  return changed


def _stream_handlers() -> Iterator[logging.StreamHandler]:
  loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
  for logger in loggers:
    for handler in logger.handlers:
      inner = getattr(handler, 'python_handler', handler)  # absl's handler holds the one that writes.
      if isinstance(inner, logging.StreamHandler) and not isinstance(inner, logging.FileHandler):
        yield inner
