"""Signs of life that the processes of a run give, and who is found lost by them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

DATA, DISPATCH, DEVICE, ELSE = 'reading data', 'starting a step', 'waiting for the device', 'not training'


@dataclasses.dataclass(frozen=True)
class Sign:
  """A sign of life.

  Attributes:
    beat: counts up.
    where: host and process number of the system, for people.
    step: that is worked at; None before the first.
    doing: one of the constants above.
    ended: whether the process has nothing more to do with the run.
  """

  beat: int
  where: str
  step: int | None = None
  doing: str = ELSE
  ended: bool = False

  def to_text(self) -> str:
    """For the store."""
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_text(cls, text: str) -> Sign:
    """Back again."""
    return cls(**json.loads(text))

  def describe(self, process: int) -> str:
    """Such as `process 3 (host b, pid 71)`."""
    return f'process {process} ({self.where})'

  def last(self) -> str:
    """What it was doing."""
    return 'before its first step' if self.step is None else f'at step {self.step}, {self.doing}'


class Judge:
  """Process 0's memory of the signs: which process has been silent for too long.

  Args:
    processes: their numbers, this process's own left out.
    timeout: seconds of silence that are too many.
    now: the time at the start.
  """

  def __init__(self, processes: list[int], timeout: float, now: float):
    self._timeout = timeout
    self._signs: dict[int, Sign | None] = dict.fromkeys(processes)
    self._heard = dict.fromkeys(processes, now)
    self._looked = now

  def look(self, signs: Mapping[int, Sign], now: float) -> str | None:
    """Takes in the signs of the moment. Returns who is lost, as one line, or None."""
    own_pause = now - self._looked > self._timeout / 2  # This process was stopped, not the others.
    self._looked = now
    for process in self._heard:
      sign = signs.get(process)
      if own_pause or sign != self._signs[process]:
        self._signs[process], self._heard[process] = sign, now
    for process, heard in self._heard.items():
      sign = self._signs[process]
      if now - heard > self._timeout and not (sign is not None and sign.ended):
        who = f'process {process}' if sign is None else sign.describe(process)
        was = 'it never gave a sign' if sign is None else f'it was {sign.last()}'
        return f'{who} has been silent for {now - heard:.0f} s: {was}'
    return None

  def behind(self, own: Sign) -> str:
    """Which processes the others wait for: those at an earlier step than any other, or not in the step itself."""
    signs = {0: own, **{process: sign for process, sign in self._signs.items() if sign is not None}}
    busy = {process: sign for process, sign in signs.items() if sign.doing != DEVICE} or signs
    return '; '.join(f'{sign.describe(process)} is {sign.last()}' for process, sign in sorted(busy.items())[:4])
