"""The results of a sweep as the page shows them: what each arm reached, and what it took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from t5x_lite.reporting.folders import Sweep
from t5x_lite.sweeps import outcomes
from t5x_lite.sweeps.outcomes import Outcome

_COSTS = ('steps', 'tokens', 'flops', 'parameters', 'seconds')


def tables(sweep: Sweep) -> dict[str, Any]:
  """Sections, each of `title`, `head` and `rows` (`cells`, `baseline`), and remarks, of the runs that have ended."""
  ended = outcomes.read(sweep.path)
  arms = [str(arm['name']) for arm in sweep.plan['arms']]
  by_arm = {arm: [each for each in ended if each.arm == arm] for arm in arms}
  baseline = sweep.plan.get('baseline')
  metrics = dict.fromkeys([*sweep.plan.get('metrics', ()), *(name for each in ended for name in each.metrics)])
  sections = []
  for metric in metrics:
    better = 'less' if outcomes.less_is_better(metric) else 'more'
    rows = [{'cells': _metric_cells(arm, own, metric), 'baseline': arm == baseline} for arm, own in by_arm.items()]
    head = ['arm', 'runs', 'mean', 'std. dev.', 'least', 'most']
    sections.append({'title': f'{metric} ({better} is better)', 'head': head, 'rows': rows})
  names = [name for name in _COSTS if any(name in each.costs for each in ended)]
  rows = [{'cells': _cost_cells(arm, own, names), 'baseline': arm == baseline} for arm, own in by_arm.items()]
  head = ['arm', *outcomes.STATUSES, *names]
  sections.append({'title': 'runs, and what they took on average', 'head': head, 'rows': rows})
  planned = len(arms) * len(sweep.plan.get('seeds', ()))
  notes = [f'{each.arm}/{each.seed}: {each.status}, {each.note}' for each in ended if each.note]
  return {'name': sweep.name, 'sections': sections, 'remarks': [f'{len(ended)} of {planned} runs have ended.', *notes]}


def _metric_cells(arm: str, own: Sequence[Outcome], metric: str) -> list[str]:
  values = [each.metrics[metric] for each in own if each.status == outcomes.COMPLETE and metric in each.metrics]
  if not values:
    return [arm, '0', '', '', '', '']
  deviation = f'{statistics.stdev(values):.3g}' if len(values) > 1 else ''
  spread = [f'{value:.5g}' for value in (min(values), max(values))]
  return [arm, str(len(values)), f'{statistics.fmean(values):.5g}', deviation, *spread]


def _cost_cells(arm: str, own: Sequence[Outcome], names: Sequence[str]) -> list[str]:
  counts = [str(sum(each.status == status for each in own)) for status in outcomes.STATUSES]
  complete = [each for each in own if each.status == outcomes.COMPLETE]
  means = []
  for name in names:
    values = [each.costs[name] for each in complete if name in each.costs]
    means.append(f'{statistics.fmean(values):.4g}' if values else '')
  return [arm, *counts, *means]
