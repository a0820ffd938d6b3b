"""The study of a sweep in Optuna's database: to look at, and to choose arms by.

What is done is never read from it: the notes of the runs say that. So a database that is lost or out of date costs
nothing, and a sweep of a fixed list of arms needs none.
"""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps import outcomes
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.plan import Plan
from t5x_lite.sweeps.spec import Sweep

DATABASE = 'study.db'
_ARM = 'arm'


def open_study(sweep: Sweep, folder: pathlib.Path, storage: str | None, name: str) -> Study | None:
  """The study of a sweep; None where Optuna is not installed and nothing needs it.

  Raises:
    UsageError: it is needed and not installed, or its database does not answer.
  """
  try:
    import optuna
  except ImportError:
    if storage is not None:
      raise errors.UsageError("--storage needs Optuna: pip install 't5x_lite[sweep]'") from None
    return None
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  folder.mkdir(parents=True, exist_ok=True)
  url = storage or f'sqlite:///{folder / DATABASE}'
  direction = 'minimize' if outcomes.less_is_better(sweep.metrics[0]) else 'maximize'
  try:
    return Study(optuna.create_study(storage=url, study_name=name, direction=direction, load_if_exists=True))
  except Exception as error:  # Of the database driver, whichever that is.
    if storage is None:
      raise
    raise errors.UsageError(f'--storage={storage}: {" ".join(str(error).split())}') from error


class Study:
  """A study with a trial for each arm that has ended with all its seeds."""

  def __init__(self, study: Any):
    self._study = study

  def note(self, plan: Plan, ended: Sequence[Outcome]) -> None:
    """Adds the arms that the study does not have. A trial's value is the first metric, as the mean over seeds."""
    import optuna

    known = {trial.user_attrs.get(_ARM) for trial in self._study.get_trials(deepcopy=False)}
    axes = {
      axis: optuna.distributions.CategoricalDistribution(list(values)) for axis, values in plan.sweep.axes.items()
    }
    trials = []
    for planned in plan.arms:
      arm = planned.arm
      own = [outcome for outcome in ended if outcome.arm == arm.name]
      if arm.name in known or len(own) < len(plan.sweep.seeds):
        continue
      values = [outcome.metrics[plan.sweep.metrics[0]] for outcome in own if plan.sweep.metrics[0] in outcome.metrics]
      states = optuna.trial.TrialState
      trials.append(
        optuna.trial.create_trial(
          state=states.COMPLETE if len(values) == len(own) else states.FAIL,
          value=statistics.fmean(values) if len(values) == len(own) else None,
          params=dict(arm.axes),
          distributions={axis: axes[axis] for axis in arm.axes},
          user_attrs={_ARM: arm.name, 'outcomes': {str(each.seed): dict(each.metrics) for each in own}},
        )
      )
    self._study.add_trials(trials)
