"""Watches a run's losses: stops it when it diverges, or when it no longer improves.

Both keep their state in the checkpoint, so that a resumed run stops exactly where an uninterrupted one would.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors


class TrainingDiverged(RuntimeError):
  """The loss is not finite, or has left its usual range. Entry points print its one line and exit with code 3."""


@dataclasses.dataclass(frozen=True)
class DivergenceRule:
  """When a run counts as diverged.

  Attributes:
    max_nonfinite_steps: how many consecutive steps may have a loss or gradient that is not finite. 0 unless the learner
      skips the update of such steps (`skip_nonfinite`), since one such update ruins the parameters.
    factor: a loss above `factor` times its running median is too high ...
    patience: ... and so many too high ones in a row are divergence. 0 switches the rule off.
    window: number of accepted losses that the median is taken over.
    min_history: losses to see before the median means anything.
  """

  max_nonfinite_steps: int = 0
  factor: float = 3.0
  patience: int = 20
  window: int = 200
  min_history: int = 20

  def __post_init__(self):
    least = {'max_nonfinite_steps': 0, 'patience': 0, 'window': 1, 'min_history': 1}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        raise errors.UsageError(f'divergence rule: {name}={getattr(self, name)}: expected at least {bound}')
    if not self.factor > 1:
      raise errors.UsageError(f'divergence rule: factor={self.factor}: expected more than 1')


class DivergenceMonitor:
  """Sees the metrics of every step in turn.

  A loss that is too high is not added to the median, or a run that explodes slowly would take its median along.
  """

  def __init__(self, rule: DivergenceRule):
    self._rule = rule
    self._losses: collections.deque[float] = collections.deque(maxlen=rule.window)
    self._nonfinite = 0
    self._high = 0

  @property
  def suspicious(self) -> bool:
    """Whether the latest step was not finite or too high: no state to save, nor yet a reason to stop."""
    return self._nonfinite > 0 or self._high > 0

  def update(self, step: int, metrics: Mapping[str, float]) -> None:
    """Takes in one step's metrics: `loss`, and `nonfinite` (1 for a bad step) and `param_norm` where there are such.

    Raises:
      TrainingDiverged: saying what happened at which step.
    """
    loss = metrics['loss']
    bad = metrics.get('nonfinite', 0.0) > 0 or not math.isfinite(loss)
    self._nonfinite = self._nonfinite + 1 if bad else 0
    if self._nonfinite > self._rule.max_nonfinite_steps:
      raise TrainingDiverged(f'training diverged at step {step}: {self._describe_nonfinite(loss)}')
    if not math.isfinite(metrics.get('param_norm', 0.0)):
      raise TrainingDiverged(f'training diverged at step {step}: the parameters are no longer finite')
    if not bad:
      self._check_level(step, loss)

  def _describe_nonfinite(self, loss: float) -> str:
    what = f'the loss is {loss}' if not math.isfinite(loss) else 'the gradient is not finite'
    if self._rule.max_nonfinite_steps:
      what += f', as in the {self._nonfinite - 1} steps before ({self._rule.max_nonfinite_steps} are tolerated)'
    return what

  def _check_level(self, step: int, loss: float) -> None:
    rule = self._rule
    if rule.patience and len(self._losses) >= rule.min_history:
      median = statistics.median(self._losses)
      if loss > rule.factor * median > 0:
        self._high += 1
        if self._high >= rule.patience:
          raise TrainingDiverged(
            f'training diverged at step {step}: the loss ({loss:.4g}) has been above {rule.factor:g} times its running '
            f'median ({median:.4g}) for {self._high} steps'
          )
        return
    self._high = 0
    self._losses.append(loss)

  def get_state(self) -> dict[str, Any]:
    """JSON-able; for the checkpoint."""
    return {'losses': list(self._losses), 'nonfinite': self._nonfinite, 'high': self._high}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on from `get_state()`."""
    self._losses = collections.deque(state['losses'], maxlen=self._rule.window)
    self._nonfinite, self._high = state['nonfinite'], state['high']


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
  """When a run that no longer improves ends.

  Attributes:
    patience: evaluations without improvement after which it ends. 0: never.
    min_delta: how much lower than the best so far an evaluation loss must be to count as an improvement.
  """

  patience: int = 0
  min_delta: float = 0.0

  def __post_init__(self):
    if self.patience < 0 or self.min_delta < 0:
      raise errors.UsageError(f'early stopping: expected patience and min_delta >= 0, got {self}')


class ImprovementTracker:
  """Counts evaluations without improvement (Prechelt 1998, "Early stopping - but when?")."""

  def __init__(self, rule: EarlyStopping):
    self._rule = rule
    self.best: float | None = None
    self.best_step: int | None = None
    self._without = 0

  @property
  def exhausted(self) -> bool:
    """Whether the run should end."""
    return self._rule.patience > 0 and self._without >= self._rule.patience

  def update(self, step: int, loss: float) -> None:
    """Takes in the evaluation loss at a step; one that is not finite is no improvement."""
    if math.isfinite(loss) and (self.best is None or loss < self.best - self._rule.min_delta):
      self.best, self.best_step, self._without = loss, step, 0
    else:
      self._without += 1

  def describe(self, metric: str = 'loss') -> str:
    """One line on why the run ended.

    Args:
      metric: that was compared; all but 'loss' are negated in `best`.
    """
    best = 'none was finite'
    if self.best is not None:
      what, value = ('best', self.best) if metric == 'loss' else (f'best {metric}', -self.best)
      best = f'{what} {value:.4f} at step {self.best_step}'
    return f'{self._without} evaluations without improvement ({best})'

  def get_state(self) -> dict[str, Any]:
    """JSON-able; for the checkpoint."""
    return {'best': self.best, 'best_step': self.best_step, 'without': self._without}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes on from `get_state()`."""
    self.best, self.best_step, self._without = state['best'], state['best_step'], state['without']
