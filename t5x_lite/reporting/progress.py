"""How far a run is at each step: tokens, seconds and FLOPs so far, which the page draws curves over."""

from __future__ import annotations

import dataclasses

import numpy as np

from t5x_lite.reporting.facts import Facts
from t5x_lite.reporting.rows import Metrics

_POINTS = 256  # between which the page interpolates


@dataclasses.dataclass(frozen=True)
class Progress:
  """What a run has taken up to some of its steps.

  Attributes:
    steps: int64 `[N]`, from 0.
    tokens: float64 `[N]`, without padding; None where the run does not say.
    seconds: float64 `[N]` of training, without compilation, evaluations and checkpoints; None where unknown.
    flops_per_step: None where unknown.
  """

  steps: np.ndarray
  tokens: np.ndarray | None
  seconds: np.ndarray | None
  flops_per_step: float | None

  @property
  def last(self) -> dict[str, float | None]:
    """What the run has taken so far."""
    steps = float(self.steps[-1])
    return {
      'steps': steps,
      'tokens': None if self.tokens is None else float(self.tokens[-1]),
      'seconds': None if self.seconds is None else float(self.seconds[-1]),
      'flops': None if self.flops_per_step is None else steps * self.flops_per_step,
    }


def progress(metrics: Metrics, facts: Facts) -> Progress:
  """The progress of a run. Steps whose speed was not measured count as the nearest that was."""
  flops = facts.info.get('flops_per_step')
  flops = float(flops) if isinstance(flops, int | float) and flops > 0 else None
  pace, speed = metrics.train('seconds_per_step'), metrics.train('tokens_per_second')
  loss = metrics.train('loss')
  if loss is None or not len(loss.steps):
    return Progress(np.zeros(1, np.int64), None, None, flops)
  steps = np.concatenate([[0], loss.steps])
  taken = np.diff(steps)
  seconds = tokens = None
  if pace is not None and len(pace.steps):
    each = np.interp(loss.steps, pace.steps, pace.values)
    seconds = np.concatenate([[0.0], np.cumsum(taken * each)])
    if speed is not None and len(speed.steps) == len(pace.steps):
      per_step = np.interp(loss.steps, pace.steps, pace.values * speed.values)
      tokens = np.concatenate([[0.0], np.cumsum(taken * per_step)])
  kept = np.unique(np.linspace(0, len(steps) - 1, _POINTS).astype(np.int64))
  return Progress(
    steps[kept], None if tokens is None else tokens[kept], None if seconds is None else seconds[kept], flops
  )
