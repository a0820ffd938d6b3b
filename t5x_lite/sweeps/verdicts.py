"""What can be said of every arm of a sweep: better than the baseline, worse, or not to be told at this number of seeds.

Verdicts are two-sided tests of t, at level alpha for all arms of one metric together (Holm). Runs are paired by seed
where at least two seeds are shared, for then the spread that seeds bring to both is none of the difference's; otherwise
Welch's test takes all runs of both. Only complete runs have values; how many are missing, and why, is said beside every
verdict, since what did not diverge is no fair sample of an arm.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps import outcomes as outcomes_lib
from t5x_lite.sweeps import statistics
from t5x_lite.sweeps.outcomes import COMPLETE, DIVERGED, FAILED, Outcome
from t5x_lite.sweeps.statistics import Difference, Summary

BETTER, WORSE, CANNOT_TELL = 'better', 'worse', 'cannot tell'
PER_METRIC, ALL_METRICS = 'metric', 'all'
FAMILIES = (PER_METRIC, ALL_METRICS)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a sweep is to compare.

  Attributes:
    name: of the sweep.
    arms: their names, the baseline among them.
    baseline: the name of the arm that the others are compared with; None: nothing is compared.
    seeds: of every arm.
    metrics: what is compared.
    budget: `kind` and `amount` of what is held equal; empty where nothing is.
    fingerprints: of the data of each arm; None where the machine that planned did not have them.
    same_data: whether the arms had to read the same.
  """

  name: str
  arms: tuple[str, ...]
  baseline: str | None
  seeds: tuple[int, ...]
  metrics: tuple[str, ...]
  budget: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fingerprints: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
  same_data: bool = True

  def __post_init__(self) -> None:
    if self.baseline is not None and self.baseline not in self.arms:
      raise errors.unknown('baseline (an arm)', self.baseline, self.arms)


@dataclasses.dataclass(frozen=True)
class Result:
  """One metric of one arm.

  Attributes:
    arm: its name.
    metric: its name.
    summary: of the values of the arm's complete runs.
    difference: to the baseline; None for the baseline itself, and where one of the two has no run.
    adjusted: the p value after Holm, to be compared with alpha; None where there is no difference.
    verdict: `BETTER`, `WORSE` or `CANNOT_TELL`; None for the baseline.
    seeds_needed: see `statistics.seeds_needed`, at the level of the strictest comparison of the family.
    best: whether its mean is within two standard deviations, of the baseline's runs, of the best arm's.
    missing: how many runs of the arm and of the baseline have no value, and why, which no verdict stands without.
    notes: what else is to be known.
  """

  arm: str
  metric: str
  summary: Summary
  difference: Difference | None = None
  adjusted: float | None = None
  verdict: str | None = None
  seeds_needed: int | None = None
  best: bool = False
  missing: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()


def read_plan(folder: str | os.PathLike[str]) -> Plan:
  """The plan in a sweep's folder.

  Raises:
    UsageError: there is none, or it is none.
  """
  path = pathlib.Path(folder) / outcomes_lib.SWEEP
  try:
    values = json.loads(path.read_text(encoding='utf-8'))
    return Plan(
      name=values['name'],
      arms=tuple(arm['name'] for arm in values['arms']),
      baseline=values.get('baseline'),
      seeds=tuple(values['seeds']),
      metrics=tuple(values['metrics']),
      budget=values.get('budget') or {},
      fingerprints=values.get('fingerprints') or {},
      same_data=values.get('same_data', True),
    )
  except FileNotFoundError:
    raise errors.UsageError(f'{folder} is no folder of a sweep: it has no {outcomes_lib.SWEEP}') from None
  except (json.JSONDecodeError, KeyError, TypeError) as error:
    raise errors.UsageError(f'{path} is not the plan of a sweep: {type(error).__name__} {error}') from error


def judge(
  plan: Plan, outcomes: Sequence[Outcome], *, alpha: float = 0.05, family: str = PER_METRIC
) -> dict[str, tuple[Result, ...]]:
  """The results by metric, each in the order of the arms.

  Args:
    plan: of the sweep.
    outcomes: of its runs so far.
    alpha: the chance, at most, that any arm of a family is called better or worse though none is.
    family: what Holm's correction is for: the arms of one metric, each metric being a question of its own
      (`PER_METRIC`), or all arms and metrics together (`ALL_METRICS`).
  """
  if family not in FAMILIES:
    raise errors.unknown('family', family, FAMILIES)
  if not 0 < alpha < 1:
    raise errors.UsageError(f'alpha={alpha}: expected more than 0 and less than 1')
  found = {metric: _compared(plan, outcomes, metric, alpha) for metric in plan.metrics}
  families = [[metric] for metric in found] if family == PER_METRIC else [list(found)]
  for metrics in families:
    places = [(metric, arm) for metric in metrics for arm in plan.arms if plan.baseline not in (None, arm)]
    p_values = [_p(found[metric][arm]) for metric, arm in places]
    for (metric, arm), p in zip(places, statistics.holm(p_values), strict=True):
      found[metric][arm] = _decided(found[metric][arm], p, alpha, len(places))
  return {metric: tuple(_with_best(plan, metric, by_arm)) for metric, by_arm in found.items()}


def statuses(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Counter[str]]:
  """How many of each arm's runs ended how."""
  counts: dict[str, Counter[str]] = {arm: Counter() for arm in plan.arms}
  for each in outcomes:
    if each.arm in counts:
      counts[each.arm][each.status] += 1
  return counts


def _p(result: Result) -> float:
  return 1.0 if result.difference is None or result.difference.p is None else result.difference.p


def _compared(plan: Plan, outcomes: Sequence[Outcome], metric: str, alpha: float) -> dict[str, Result]:
  values: dict[str, dict[int, float]] = {arm: {} for arm in plan.arms}
  for each in outcomes:
    if each.status == COMPLETE and metric in each.metrics and each.arm in values:
      values[each.arm][each.seed] = each.metrics[metric]
  ended = statuses(plan, outcomes)
  not_finite = Counter(each.arm for each in outcomes if metric in each.not_finite)
  missing = {arm: _missing(len(plan.seeds), ended[arm], len(own), not_finite[arm]) for arm, own in values.items()}
  results = {}
  for arm, own in values.items():
    summary, without = statistics.summarise(list(own.values())), missing[arm]
    difference: Difference | None = None
    notes: tuple[str, ...] = ()
    if plan.baseline is not None and arm != plan.baseline:
      baseline = values[plan.baseline]
      difference, notes = _difference(own, baseline, alpha)
      without = (*without, *(f'baseline: {note}' for note in missing[plan.baseline]))
    results[arm] = Result(arm, metric, summary, difference, missing=without, notes=notes)
  return results


def _missing(planned: int, counts: Counter[str], with_metric: int, not_finite: int) -> tuple[str, ...]:
  """How many runs of an arm have no value, and why."""
  found = {
    'diverged': counts[DIVERGED],
    'failed': counts[FAILED],
    'not done yet': planned - sum(counts.values()),
    'not finite': not_finite,
    'without this metric': counts[COMPLETE] - with_metric - not_finite,
  }
  return tuple(f'{number} of {planned} {why}' for why, number in found.items() if number > 0)


def _difference(
  own: Mapping[int, float], baseline: Mapping[int, float], alpha: float
) -> tuple[Difference | None, tuple[str, ...]]:
  """The difference, and what is to be said of it."""
  shared = [seed for seed in own if seed in baseline]
  if not own or not baseline:
    return None, ()
  if len(shared) >= 2 or (len(shared) == 1 and min(len(own), len(baseline)) == 1):
    found = statistics.paired_difference([own[seed] for seed in shared], [baseline[seed] for seed in shared], alpha)
    notes = ['one seed tells nothing of the spread'] if len(shared) == 1 else []
    alone = len(own.keys() ^ baseline.keys())
    if alone and len(shared) > 1:
      notes.append(f'{len(shared)} seeds are shared; {alone} {"run" if alone == 1 else "runs"} without a partner')
  else:
    found = statistics.unpaired_difference(list(own.values()), list(baseline.values()), alpha)
    notes = ['seeds are not shared: not paired (Welch)']
    if found.p is None:
      notes.append('one seed tells nothing of the spread')
  if found.without_spread:
    notes.append('no difference at all' if found.p == 1.0 else 'all differences are the same: exact test, no interval')
  return found, tuple(notes)


def _decided(result: Result, adjusted: float, alpha: float, comparisons: int) -> Result:
  difference = result.difference
  if difference is None:
    return dataclasses.replace(result, verdict=CANNOT_TELL)
  verdict = CANNOT_TELL
  if adjusted <= alpha:
    lower = difference.mean < 0
    verdict = BETTER if lower == outcomes_lib.less_is_better(result.metric) else WORSE
  needed = statistics.seeds_needed(difference, alpha / comparisons)
  return dataclasses.replace(result, adjusted=adjusted, verdict=verdict, seeds_needed=needed)


def _with_best(plan: Plan, metric: str, by_arm: Mapping[str, Result]) -> list[Result]:
  """Marks what tables print bold: Raffel et al. 2020, section 3.1.4, take the baseline's standard deviation for all."""
  means = [result.summary.mean for result in by_arm.values() if result.summary.mean is not None]
  spread = by_arm[plan.baseline].summary.deviation if plan.baseline is not None else None
  sign = 1 if outcomes_lib.less_is_better(metric) else -1
  least = min((sign * mean for mean in means), default=0.0)

  def is_best(mean: float | None) -> bool:
    return mean is not None and sign * mean - least <= 2 * (spread or 0.0)

  return [dataclasses.replace(result, best=is_best(result.summary.mean)) for result in by_arm.values()]
