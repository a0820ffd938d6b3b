"""The results of a sweep as CSV: a line for each metric and arm, every number in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.sweeps import outcomes as outcomes_lib
from t5x_lite.sweeps import sections, verdicts
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.verdicts import Plan, Result


def table(plan: Plan, results: Mapping[str, Sequence[Result]], outcomes: Sequence[Outcome]) -> str:
  """The text of the file; what is not known is empty."""
  by_arm = sections.costs(plan, outcomes)
  names = sections.cost_names(by_arm)
  counts = verdicts.statuses(plan, outcomes)
  rows = [
    _line(plan, counts[result.arm], result) | {f'cost_{name}': by_arm[result.arm].get(name) for name in names}
    for own in results.values()
    for result in own
  ]
  file = io.StringIO()
  if rows:
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  return file.getvalue()


def _line(plan: Plan, counts: Mapping[str, int], result: Result) -> dict[str, Any]:
  difference = result.difference
  low, high = (difference and difference.interval) or (None, None)
  bootstrap_low, bootstrap_high = (difference and difference.bootstrap) or (None, None)
  return {
    'metric': result.metric,
    'better': 'less' if outcomes_lib.less_is_better(result.metric) else 'more',
    'arm': result.arm,
    'is_baseline': int(result.arm == plan.baseline),
    'seeds': len(plan.seeds),
    **{status: counts.get(status, 0) for status in outcomes_lib.STATUSES},
    'runs': result.summary.runs,
    'mean': result.summary.mean,
    'deviation': result.summary.deviation,
    'test': difference and difference.kind,
    'pairs': difference.runs[0] if difference and len(difference.runs) == 1 else None,
    'difference': difference and difference.mean,
    'difference_deviation': difference and difference.spread,
    'interval_low': low,
    'interval_high': high,
    'bootstrap_low': bootstrap_low,
    'bootstrap_high': bootstrap_high,
    'p': difference and difference.p,
    'p_holm': None if difference is None or difference.p is None else result.adjusted,
    'verdict': result.verdict,
    'seeds_to_tell': result.seeds_needed,
    'within_two_deviations_of_best': int(result.best),
    'notes': '; '.join((*result.missing, *result.notes)),
  }
