"""How long a run may train, in seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import jax

from t5x_lite.training import processes

_EVERY = 8


class TimeLimit:
  """A clock of the training alone: it starts when the first step is done, and stands still beside the steps.

  Compilation, evaluations and saves are not counted. What earlier parts of a run took is kept with its checkpoints.

  Args:
    seconds: when it is reached; 0: never.
  """

  def __init__(self, seconds: float):
    self._limit = seconds
    self._spent = 0.0
    self._since: float | None = None
    self._asked = 0

  def start(self) -> None:
    """The first step is done."""
    self._since = time.perf_counter()

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Time spent inside is not the training's."""
    self._spent, running, self._since = self.spent, self._since is not None, None
    try:
      yield
    finally:
      if running:
        self.start()

  @property
  def spent(self) -> float:
    """Seconds so far."""
    return self._spent + (0.0 if self._since is None else time.perf_counter() - self._since)

  @property
  def reached(self) -> bool:
    """Whether the run is to end. All processes must ask at the same steps: the first one's clock counts.

    Several processes wait for each other to know, and so they do it at one question of eight.
    """
    self._asked += 1
    if not self._limit or (jax.process_count() > 1 and self._asked % _EVERY):
      return False
    return bool(processes.from_primary(self.spent >= self._limit))

  def exceeded_by(self, spent: float) -> bool:
    """Whether a run that has spent so many seconds has reached the limit."""
    return 0 < self._limit <= spent

  def get_state(self) -> float:
    """For the checkpoint."""
    return self.spent

  def set_state(self, spent: float) -> None:
    """Goes on from `get_state()`."""
    self._spent = spent
