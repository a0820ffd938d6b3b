"""What arms have in common besides the factor that is varied: how much each may spend."""

from __future__ import annotations

import dataclasses

from t5x_lite.core import errors
from t5x_lite.sweeps import spec

STEPS_BINDING = 'TRAIN_STEPS'
SECONDS_BINDING = 'LoopConfig.max_seconds'


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a run takes, known before it runs.

  Attributes:
    parameters: of the model.
    flops: of a step, forward and backward, analytic.
    tokens: positions of a step's batch, both sides, padding included.
    steps: of the run.
  """

  parameters: int
  flops: float
  tokens: int
  steps: int

  @property
  def total_tokens(self) -> int:
    """Of the run."""
    return self.tokens * self.steps

  @property
  def total_flops(self) -> float:
    """Of the run."""
    return self.flops * self.steps


def amount(sweep: spec.Sweep, baseline: Cost) -> float:
  """What every run may spend, in the unit of the budget."""
  if sweep.amount is not None:
    return sweep.amount
  return {
    spec.STEPS: baseline.steps,
    spec.TOKENS: baseline.total_tokens,
    spec.FLOPS: baseline.total_flops,
    spec.PARAMETERS: baseline.parameters,
  }[sweep.budget]


def binding(sweep: spec.Sweep, arm: str, cost: Cost, total: float) -> str | None:
  """The binding that holds an arm to the budget; None where there is nothing to bind.

  Args:
    sweep: whose budget it is.
    arm: the name of the arm.
    cost: of the arm as its gin files have it.
    total: what `amount` says.

  Raises:
    UsageError: it cannot be held.
  """
  if sweep.budget == spec.SECONDS:
    return f'{SECONDS_BINDING}={total!r}'
  if sweep.budget == spec.PARAMETERS:
    if abs(cost.parameters - total) > sweep.tolerance * total:
      raise _not_held(sweep, arm, f'it has {cost.parameters:,} parameters, and {total:,.0f} are to be held equal')
    return None
  if sweep.budget == spec.STEPS:
    if sweep.amount is None and cost.steps != total:
      raise _not_held(sweep, arm, f'it takes {cost.steps:,} steps, and {total:,.0f} are to be held equal')
    if total != int(total):
      raise errors.UsageError(f'Sweep.amount={total}: expected a whole number of steps')
    return f'{STEPS_BINDING}={int(total)}'
  each = cost.tokens if sweep.budget == spec.TOKENS else cost.flops
  steps = max(round(total / each), 1)
  if abs(steps * each - total) > sweep.tolerance * total:
    raise _not_held(sweep, arm, f'a step takes {each:.4g}, and {steps} of them are not {total:.4g}')
  return f'{STEPS_BINDING}={steps}'


def _not_held(sweep: spec.Sweep, arm: str, why: str) -> errors.UsageError:
  return errors.UsageError(
    f'arm {arm!r} cannot be held to the budget of {sweep.budget}: {why} (Sweep.tolerance = {sweep.tolerance:g})'
  )
