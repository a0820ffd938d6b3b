"""Arms chosen by how those before did, by Optuna's samplers.

A choice is a function of the arms so far and their outcomes: the history is told to a new study in memory each time,
and the sampler's seed is that of the sweep plus the number of the arm. So there is no state that an interruption could
lose. With several runs at once it depends on which of them ends first.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps import outcomes, spec
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.spec import Arm, Sweep

_TRIES = 20  # to find an arm that there is not yet


def optuna(what: str) -> Any:
  """The library. Raises UsageError, which names what needs it, where it is not installed."""
  try:
    import optuna as library
  except ImportError:
    raise errors.UsageError(f"{what} needs Optuna: pip install 't5x_lite[sweep]'") from None
  library.logging.set_verbosity(library.logging.WARNING)
  return library


def propose(sweep: Sweep, arms: Sequence[Arm], ended: Sequence[Outcome], refused: Collection[str] = ()) -> Arm | None:
  """The next arm; None where there are enough, or the sampler finds none that is new.

  Args:
    sweep: whose sampler is one of Optuna's.
    arms: those so far.
    ended: the outcomes so far.
    refused: names of arms that are not wanted.
  """
  if len(arms) >= (sweep.num_arms or 0):
    return None
  library = optuna(f'Sweep.sampler={sweep.sampler!r}')
  known = {*refused, *(arm.name for arm in arms)}
  for attempt in range(_TRIES):
    seed = sweep.sampler_seed + len(arms) + 1000 * attempt
    study = library.create_study(direction=direction(sweep), sampler=_sampler(library, sweep.sampler, seed))
    study.add_trials([trial for arm in arms if (trial := finished(library, sweep, arm, ended)) is not None])
    try:
      params = study.ask(distributions(library, sweep)).params
    except ImportError as error:  # Some samplers have needs of their own.
      raise errors.UsageError(f'Sweep.sampler={sweep.sampler!r}: {" ".join(str(error).split())}') from error
    chosen = {name: f'{params[name]:.6g}' if name in sweep.ranges else params[name] for name in _names(sweep)}
    arm = spec.at(sweep, chosen)
    if arm.name not in known:
      return arm
  return None


def direction(sweep: Sweep) -> str:
  """Of the first metric."""
  return 'minimize' if outcomes.less_is_better(sweep.metrics[0]) else 'maximize'


def distributions(library: Any, sweep: Sweep) -> dict[str, Any]:
  """What can be chosen, by axis."""
  made = {axis: library.distributions.CategoricalDistribution(list(values)) for axis, values in sweep.axes.items()}
  for axis, (_, low, high, *scale) in sweep.ranges.items():
    made[axis] = library.distributions.FloatDistribution(low, high, log=bool(scale))
  return made


def finished(
  library: Any, sweep: Sweep, arm: Arm, ended: Sequence[Outcome], steps: Mapping[int, float] | None = None
) -> Any:
  """The trial of an arm all of whose runs have an outcome; None for any other.

  Its value is the first metric, as the mean over seeds; where a run has none, the trial has failed.

  Args:
    library: Optuna.
    sweep: of the arm.
    arm: which.
    ended: outcomes, of other arms too.
    steps: the first metric at steps before the last one.
  """
  own = [outcome for outcome in ended if outcome.arm == arm.name]
  if len(own) < len(sweep.seeds):
    return None
  values = [outcome.metrics[sweep.metrics[0]] for outcome in own if sweep.metrics[0] in outcome.metrics]
  complete = len(values) == len(own)
  space = distributions(library, sweep)
  return library.trial.create_trial(
    state=library.trial.TrialState.COMPLETE if complete else library.trial.TrialState.FAIL,
    value=statistics.fmean(values) if complete else None,
    params={axis: float(value) if axis in sweep.ranges else value for axis, value in arm.axes.items()},
    distributions={axis: space[axis] for axis in arm.axes},
    user_attrs={'arm': arm.name, 'metrics': {str(each.seed): dict(each.metrics) for each in own}},
    intermediate_values=dict(steps or {}),
  )


def _names(sweep: Sweep) -> list[str]:
  return [*sweep.axes, *sweep.ranges]


def _sampler(library: Any, name: str, seed: int) -> Any:
  made = {
    'tpe': 'TPESampler',
    'qmc': 'QMCSampler',
    'gp': 'GPSampler',
    'cmaes': 'CmaEsSampler',
    'nsgaii': 'NSGAIISampler',
  }
  try:
    return getattr(library.samplers, made[name])(seed=seed)
  except ImportError as error:
    raise errors.UsageError(f'Sweep.sampler={name!r}: {" ".join(str(error).split())}') from error
