"""Metrics of a logging period: sums and means over its steps, and how fast they went."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from t5x_lite.core import batch as batch_lib
from t5x_lite.metrics import sums as sums_lib
from t5x_lite.training import flops, memory
from t5x_lite.training.breakdown import Breakdown

_MEANS = ('grad_norm', 'update_norm')
_LAST = ('param_norm', 'learning_rate')


@dataclasses.dataclass(frozen=True)
class Workload:
  """What a step amounts to.

  Attributes:
    positions: of a global batch, both sides, padding included.
    flops: analytic FLOPs of a step, forward and backward; None if unknown.
    num_devices: that share them.
    peak_flops: peak FLOP/s of one of them; None if unknown.
  """

  positions: int
  flops: float | None = None
  num_devices: int = 1
  peak_flops: float | None = None


def count_positions(batch_spec: Mapping[str, Any]) -> int:
  """Positions of a batch of these shapes: the input tokens of all sides, padding included."""
  names = [batch_lib.key(side, batch_lib.INPUT_TOKENS) for side in (batch_lib.ENCODER, batch_lib.DECODER)]
  return sum(math.prod(batch_spec[name].shape) for name in names if name in batch_spec)


class Window:
  """Collects the metrics of steps until a row of the log is due.

  The clock stands still while the run does something else than training (`paused`).

  Attributes:
    breakdown: of the time of the steps.
  """

  def __init__(self, workload: Workload):
    self._workload = workload
    self._started: float | None = None
    self.breakdown = Breakdown()
    self._clear()

  def _clear(self) -> None:
    self._sums: dict[str, float] = {}
    self._last: dict[str, float] = {}
    self._steps = self._timed_steps = self._bad_steps = 0
    self._timed_tokens = 0.0

  @property
  def timed_steps(self) -> int:
    """Steps of this period so far whose speed is measured."""
    return self._timed_steps if self._started is not None else 0

  @contextmanager
  def paused(self) -> Iterator[None]:
    """Time spent inside is not the training's."""
    start = time.perf_counter()
    try:
      yield
    finally:
      if self._started is not None:
        self._started += time.perf_counter() - start

  def start_clock(self, peak_flops: float | None) -> None:
    """Speed is measured from now on; what came before (compilation, the first step) does not count."""
    self._workload = dataclasses.replace(self._workload, peak_flops=peak_flops)
    self._started, self._timed_steps, self._timed_tokens = time.perf_counter(), 0, 0.0
    self.breakdown.clear()

  def add(self, metrics: Mapping[str, float]) -> None:
    """Takes in one step. A step that is not finite is counted, and left out of everything else."""
    self._steps += 1
    self._timed_steps += 1
    self._timed_tokens += metrics.get('tokens', 0.0)
    if metrics.get('nonfinite', 0.0) > 0 or not math.isfinite(metrics['loss']):
      self._bad_steps += 1
      return
    added = {name: value for name, value in metrics.items() if name.endswith(sums_lib.SUFFIX)}
    added |= {name: metrics[name] for name in _MEANS if name in metrics} | {'tokens': metrics.get('tokens', 0.0)}
    self._sums = sums_lib.add(self._sums, added)
    self._last = {name: metrics[name] for name in _LAST if name in metrics}

  def take(self) -> dict[str, Any]:
    """The row of the period that ends now, without split and step; the next period begins."""
    good = self._steps - self._bad_steps
    row: dict[str, Any] = dict(sums_lib.finalise(self._sums)) if self._sums else {'loss': math.nan}
    row |= {name: self._sums[name] / good for name in _MEANS if name in self._sums} | self._last
    row |= self._speed() | memory.peaks() | {'nonfinite_steps': self._bad_steps}
    self._clear()
    return row

  def _speed(self) -> dict[str, float | None]:
    """Rates over the timed steps, all None if there were none; restarts the clock."""
    work, steps, tokens = self._workload, self._timed_steps, self._timed_tokens
    useful = tokens / (steps * work.positions) if steps and work.positions else None
    if self._started is None or not steps:
      seconds = tokens_per_second = mfu = None
    else:
      now = time.perf_counter()
      seconds, self._started = max(now - self._started, 1e-9), now
      tokens_per_second = tokens / seconds
      total_flops = None if work.flops is None else work.flops * steps
      mfu = flops.utilisation(total_flops, seconds, work.num_devices, work.peak_flops)
    return {
      'tokens_per_second': tokens_per_second,
      'seconds_per_step': None if seconds is None else seconds / steps,
      'useful_token_fraction': useful,
      'mfu': mfu,
      'useful_mfu': None if mfu is None or useful is None else mfu * useful,
      **self.breakdown.take(seconds, steps),
    }

  def get_state(self) -> dict[str, Any]:
    """JSON-able; for the checkpoint, so that a period cut in two by a restart still has all its steps in its means."""
    return {'sums': self._sums, 'last': self._last, 'steps': self._steps, 'bad_steps': self._bad_steps}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on from `get_state()`. Speed is measured over the steps from here on alone."""
    self._clear()
    self._sums, self._last = dict(state['sums']), dict(state['last'])
    self._steps, self._bad_steps = state['steps'], state['bad_steps']
