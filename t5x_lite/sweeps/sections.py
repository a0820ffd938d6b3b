"""What the tables of a sweep show, as text: a section for each metric, and one of what the arms have cost."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from t5x_lite.sweeps import outcomes as outcomes_lib
from t5x_lite.sweeps import verdicts
from t5x_lite.sweeps.outcomes import COMPLETE, DIVERGED, Outcome
from t5x_lite.sweeps.statistics import PAIRED, Difference
from t5x_lite.sweeps.verdicts import CANNOT_TELL, Plan, Result

COSTS = ('steps', 'tokens', 'useful_tokens', 'flops', 'parameters', 'train_seconds', 'seconds')
NOT_KNOWN = '-'

_OWN = ('arm', 'runs', 'mean', 'std. dev.')
_COMPARED = ('difference', '{level} interval', 'bootstrap', 'p (Holm)', 'verdict', 'seeds to tell')
_HEAD = (*_OWN, *_COMPARED, 'notes')
_UNEQUAL = 0.01  # relative: costs that were to be equal and are further apart are told
_MOST_DECIMALS = 6


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of a table.

  Attributes:
    cells: texts; the first is the arm's name.
    baseline: whether it is the baseline, which tables star.
    best: whether its mean is to be bold.
  """

  cells: tuple[str, ...]
  baseline: bool = False
  best: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
  """A table.

  Attributes:
    title: of it.
    head: of its columns.
    rows: its lines.
    bold: the column that is bold in the rows which are best; None: none.
  """

  title: str
  head: tuple[str, ...]
  rows: tuple[Row, ...]
  bold: int | None = None


def of_metric(plan: Plan, metric: str, results: Sequence[Result], alpha: float) -> Section:
  """The comparison by one metric. Columns in which nothing stands are left out."""
  places = decimals(results)
  head = tuple(name.format(level=percent(1 - alpha)) for name in _HEAD)
  rows = [_cells(plan, result, places) for result in results]
  kept = [column for column in range(len(head)) if column < len(_OWN) or any(row[column] for row in rows)]
  better = 'less' if outcomes_lib.less_is_better(metric) else 'more'
  return Section(
    f'{metric} ({better} is better)',
    tuple(head[column] for column in kept),
    tuple(
      Row(tuple(row[column] for column in kept), result.arm == plan.baseline, result.best)
      for row, result in zip(rows, results, strict=True)
    ),
    bold=2,
  )


def of_costs(plan: Plan, outcomes: Sequence[Outcome]) -> Section:
  """What a run of each arm has really taken, on average: of its complete ones, else of those that diverged."""
  by_arm = costs(plan, outcomes)
  names = cost_names(by_arm)
  counts = verdicts.statuses(plan, outcomes)
  rows = [
    Row((arm, str(counts[arm][COMPLETE]), *(amount(own.get(name)) for name in names)), arm == plan.baseline)
    for arm, own in by_arm.items()
  ]
  return Section('costs of a run, on average', ('arm', 'runs', *names), tuple(rows))


def remarks(plan: Plan, outcomes: Sequence[Outcome], alpha: float, family: str) -> list[str]:
  """What is to be read with the tables: what was held equal, how it was tested, and what is not done yet."""
  counted = sum(verdicts.statuses(plan, outcomes).values(), start=Counter[str]())
  planned, ended = len(plan.arms) * len(plan.seeds), sum(counted.values())
  shown = ', '.join(f'{counted[status]} {status}' for status in outcomes_lib.STATUSES if counted[status])
  lines = [f'{ended} of {planned} runs have ended{f": {shown}" if shown else ""}.']
  if ended < planned:
    lines.append(
      'The sweep is not finished: a verdict that is looked at again and again is wrong more often than said.'
    )
  lines += _budget(plan, outcomes) + _data(plan)
  if plan.baseline is not None:
    arms = 'the arms of a metric' if family == verdicts.PER_METRIC else 'all arms and metrics'
    lines += [
      f'* is the baseline, {plan.baseline}; differences are arm minus baseline, paired by seed unless said otherwise.',
      f'Verdicts: two-sided t tests at level {alpha:g} for {arms} together (Holm 1979); intervals are for each arm '
      'alone, of t and of bootstrap percentiles. Of 3 seeds the latter hold the true difference in 75 % of cases only: '
      'no verdict rests on them.',
      f'{CANNOT_TELL}: at this number of seeds. Seeds to tell: so many would tell a difference as large as the one '
      'observed at 80 % power; as rough as the standard deviation of few seeds.',
    ]
  return lines


def costs(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
  """The mean costs of the complete runs of each arm; of one that has none, of those that diverged."""
  spent: dict[str, dict[str, list[float]]] = {arm: {} for arm in plan.arms}
  complete = {each.arm for each in outcomes if each.status == COMPLETE}
  for each in outcomes:
    wanted = COMPLETE if each.arm in complete else DIVERGED
    if each.status == wanted and each.arm in spent:
      for name, value in each.costs.items():
        spent[each.arm].setdefault(name, []).append(value)
  return {arm: {name: sum(values) / len(values) for name, values in own.items()} for arm, own in spent.items()}


def cost_names(by_arm: Mapping[str, Mapping[str, float]]) -> list[str]:
  """The names of all costs that are known: the usual ones first."""
  known = dict.fromkeys(name for own in by_arm.values() for name in own)
  return [name for name in COSTS if name in known] + [name for name in known if name not in COSTS]


def decimals(results: Sequence[Result]) -> int:
  """How many decimals the numbers of a metric have: two digits of the usual spread, or three of the least mean."""
  spreads = [each.summary.deviation for each in results if each.summary.deviation]
  means = [abs(each.summary.mean) for each in results if each.summary.mean]
  unit = statistics.median_low(spreads) if spreads else min(means, default=1.0) / 10
  return max(0, min(_MOST_DECIMALS, 1 - math.floor(math.log10(unit))))


def number(value: float | None, places: int) -> str:
  """A number with so many decimals."""
  return NOT_KNOWN if value is None else f'{value:,.{places}f}'


def amount(value: float | None) -> str:
  """A cost: whole numbers in full up to ten digits, others with four digits."""
  if value is None:
    return NOT_KNOWN
  return f'{value:,.0f}' if value == round(value) and abs(value) < 1e10 else f'{value:,.4g}'


def percent(share: float) -> str:
  """`95 %`."""
  return f'{100 * share:.4g} %'


def _cells(plan: Plan, result: Result, places: int) -> tuple[str, ...]:
  summary, difference = result.summary, result.difference
  planned = len(plan.seeds)
  runs = str(summary.runs) if summary.runs == planned else f'{summary.runs} of {planned}'
  own = (result.arm, runs, number(summary.mean, places), number(summary.deviation, places))
  if result.verdict is None:
    return (*own, *('' for _ in _COMPARED), '; '.join((*result.missing, *result.notes)))
  # The verdict is never alone where runs are left out: what is left is no fair sample of an arm.
  verdict = '; '.join((result.verdict, *result.missing))
  return (*own, *_compared(difference, result.adjusted, places), verdict, _seeds(result), '; '.join(result.notes))


def _compared(difference: Difference | None, adjusted: float | None, places: int) -> tuple[str, ...]:
  if difference is None:
    return (NOT_KNOWN,) * 4
  p = NOT_KNOWN if difference.p is None or adjusted is None else f'{adjusted:.3f}' if adjusted >= 1e-3 else '< 0.001'
  return (
    f'{difference.mean:+,.{places}f}',
    _interval(difference.interval, places),
    _interval(difference.bootstrap, places),
    p,
  )


def _interval(interval: tuple[float, float] | None, places: int) -> str:
  return NOT_KNOWN if interval is None else f'{interval[0]:+,.{places}f} to {interval[1]:+,.{places}f}'


def _seeds(result: Result) -> str:
  """How many seeds would tell, where these do not."""
  difference = result.difference
  if result.verdict != CANNOT_TELL:
    return ''
  if difference is None or difference.p is None:
    return NOT_KNOWN
  if result.seeds_needed is None:
    return NOT_KNOWN if difference.mean == 0 or difference.without_spread else 'more than 1,000'
  return f'about {result.seeds_needed}' + ('' if difference.kind == PAIRED else ' an arm')


def _budget(plan: Plan, outcomes: Sequence[Outcome]) -> list[str]:
  """What was to be held equal, and whose runs were not."""
  kind, held = plan.budget.get('kind'), plan.budget.get('amount')
  if kind is None:
    return []
  shown = amount(held) if isinstance(held, int | float) else str(held)
  spent_on = 'train_seconds' if kind == 'seconds' else kind
  spent = {arm: own[spent_on] for arm, own in costs(plan, outcomes).items() if spent_on in own}
  lines = [f'Held equal: {kind}{f", {shown}" if held is not None else ""}.']
  middle = spent.get(plan.baseline or '') or next(iter(spent.values()), 0.0)
  unequal = {arm: value for arm, value in spent.items() if middle and abs(value / middle - 1) > _UNEQUAL}
  if unequal:
    told = ', '.join(f'{arm} {amount(value)}' for arm, value in unequal.items())
    others = f'where others spent {amount(middle)} {spent_on}'
    lines.append(f'NOT equal, by more than {percent(_UNEQUAL)}: {told}, {others}.')
  return lines


def _data(plan: Plan) -> list[str]:
  known = {arm: fingerprint for arm, fingerprint in plan.fingerprints.items() if fingerprint is not None}
  if len(known) < len(plan.fingerprints) or not known:
    checked = 'a run that noted other data than the baseline counts as failed' if plan.same_data else 'not compared'
    return [f'The data are not on the machine that planned: {checked}.'] if plan.fingerprints else []
  different = sorted(set(known.values()))
  if len(different) == 1:
    return [f'All arms read the same data, {different[0][:16]}.']
  return [f'The arms read {len(different)} different data: ' + _grouped(known) + '.']


def _grouped(fingerprints: Mapping[str, str]) -> str:
  groups: dict[str, list[str]] = {}
  for arm, fingerprint in fingerprints.items():
    groups.setdefault(fingerprint, []).append(arm)
  return '; '.join(f'{fingerprint[:16]} {", ".join(arms)}' for fingerprint, arms in groups.items())
