"""What watches the loop's steps: the breakdown of their time, the profile of some of them, the watch for hangs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax

from t5x_lite.training import breakdown, processes, watch
from t5x_lite.training.profiling import Profile
from t5x_lite.training.watch import Watch
from t5x_lite.training.window import Window

DATA, DEVICE = breakdown.DATA, breakdown.DEVICE

_DOING = {DATA: watch.DATA, DEVICE: watch.DEVICE}
_STALLED_STEPS = 10  # First steps of a run, with all that they wait for: no later one takes so long.

_log = logging.getLogger(__name__)


class Timing:
  """Is told by the loop what it does, and tells all that time it.

  Args:
    window: counts the time of steps.
    watch: looks whether they go on.
    profile: traces some; None: none.
    mesh: on a CPU the host's work is the device's as well, and no word is worth saying about it.
  """

  def __init__(self, window: Window, watch: Watch, profile: Profile | None, mesh: jax.sharding.Mesh):
    self._window, self._watch, self._profile = window, watch, profile
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    self._bottleneck = breakdown.Bottleneck((breakdown.DATA,) if on_cpu else (breakdown.DATA, breakdown.HOST))

  def resumed(self, step: int) -> str | None:
    """Steps up to this one are done. Returns a line where the profile will not be made."""
    if self._profile is None or self._profile.first > step:
      return None
    first, self._profile = self._profile.first, None
    return f'nothing is profiled: step {first} is done already'

  def first_step(self, seconds: float, stall_seconds: float, pause_seconds: float) -> None:
    """The first step took so long; from now on the run hangs where it makes no progress for `stall_seconds`."""
    self._watch.arm(max(stall_seconds, _STALLED_STEPS * seconds) if stall_seconds else 0.0, pause_seconds)

  @contextmanager
  def waiting(self, step: int, part: str) -> Iterator[None]:
    """The loop waits for `DATA` or the `DEVICE`."""
    self._watch.at(step, _DOING[part])
    with self._window.breakdown.waiting(part):
      yield

  def dispatch(self, step: int, before: Mapping[str, Any] | None) -> contextlib.AbstractContextManager[Any]:
    """Inside, a step is queued on the device, behind the one with the metrics `before`."""
    self._watch.at(step, watch.DISPATCH)
    if before is not None and before['loss'].is_ready():
      self._window.breakdown.starved()
    return contextlib.nullcontext() if self._profile is None else self._profile.step(step)

  @contextmanager
  def not_training(self) -> Iterator[None]:
    """What happens inside is no part of the steps' time, and may take longer than a step."""
    with self._window.paused(), self._watch.paused():
      yield

  def starts_profile(self, step: int) -> bool:
    """Whether the trace begins with this step."""
    return self._profile is not None and step == self._profile.first

  def ends_profile(self, step: int) -> bool:
    """Whether the trace ends with this step."""
    return self._profile is not None and step == self._profile.last

  def start_profile(self) -> None:
    """Begins the trace."""
    if self._profile is not None:
      self._profile.start()

  def stop_profile(self) -> str | None:
    """Writes the trace; a line about it, where there is something to say."""
    if self._profile is None:
      return None
    with self.not_training():
      return self._profile.stop()

  def judge(self, row: Mapping[str, Any], steps: int) -> None:
    """Warns if data or the host limit the run, by the row of a period of so many timed steps."""
    limit = self._bottleneck.update(row, steps)
    if limit is not None:
      _log.warning('%s%s', processes.prefix(), limit)
