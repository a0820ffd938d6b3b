"""Where the time of a step goes, and which of data, host and device limits a run.

The loop keeps steps queued on the device and spends its own time in three ways: waiting for data, waiting for the
device, and everything else (starting steps, logging). The three add up to the time of a step. As long as it waits for
the device, that one is the limit and all else is hidden behind it. A step before which the device had run dry (it was
done with all that was queued) is counted as starved; only then do data or host cost time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

DATA, DEVICE = 'data_seconds', 'device_seconds'
HOST, STARVED = 'host_seconds', 'starved_steps'

_SHARE = 0.05  # of a step's time: what is less is not worth a word
_LEAST_STEPS = 20  # to judge by
_ADVICE = {
  DATA: 'the input pipeline',
  HOST: 'the host',
}
_HOW = {
  DATA: 'prepare the data as ids (prepare tokenise), read from a faster disk, or run more processes',
  HOST: 'log less often (LOG_PERIOD), or give each step more to do (BATCH_SIZE)',
}


class Breakdown:
  """Sums up the time that a period's steps spent waiting."""

  def __init__(self) -> None:
    self.clear()

  def clear(self) -> None:
    """A period begins."""
    self._spent = {DATA: 0.0, DEVICE: 0.0}
    self._starved = 0

  @contextmanager
  def waiting(self, part: str) -> Iterator[None]:
    """Time spent inside is spent waiting for `DATA` or the `DEVICE`."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._spent[part] += time.perf_counter() - start

  def starved(self) -> None:
    """The device had nothing to do when a step reached it."""
    self._starved += 1

  def take(self, seconds: float | None, steps: int) -> dict[str, float | None]:
    """The means over the steps of a period of so many seconds, None where it was not timed; the next period begins."""
    row: dict[str, float | None] = dict.fromkeys((DATA, HOST, DEVICE, STARVED))
    if seconds is not None and steps:
      row = {part: spent / steps for part, spent in self._spent.items()}
      row |= {HOST: max(seconds - sum(self._spent.values()), 0.0) / steps, STARVED: self._starved}
    self.clear()
    return row


class Bottleneck:
  """Says once for each thing that limits a run, in one line, what to do about it.

  Args:
    parts: of which there is something to say. On a CPU the host is the device.
  """

  def __init__(self, parts: tuple[str, ...] = (DATA, HOST)):
    self._parts = set(parts)
    self._clear()

  def _clear(self) -> None:
    self._steps, self._starved = 0, 0.0
    self._seconds = {DATA: 0.0, HOST: 0.0, DEVICE: 0.0}

  def update(self, row: Mapping[str, Any], steps: int) -> str | None:
    """Takes in the row of a period of so many steps; returns what there is to say."""
    if row.get(DEVICE) is None:
      return None
    self._steps += steps
    self._starved += row[STARVED]
    for part in self._seconds:
      self._seconds[part] += row[part] * steps
    if self._steps < _LEAST_STEPS:
      return None
    total, starved = sum(self._seconds.values()), self._starved > self._steps / 2
    worst = max((DATA, HOST), key=self._seconds.__getitem__)
    waited, step = self._seconds[worst] / self._steps, total / self._steps
    self._clear()
    if worst not in self._parts or not starved or waited <= _SHARE * step:
      return None
    self._parts.remove(worst)
    return (
      f'{_ADVICE[worst]} limits this run: the device waits for it, {waited:.3g} of the {step:.3g} s of a step; '
      f'{_HOW[worst]}'
    )
