"""The results of a sweep as the page shows them: the sections of its tables, with verdicts, over what has ended."""

from __future__ import annotations

import dataclasses
from typing import Any

from t5x_lite.reporting.folders import SweepFolder
from t5x_lite.sweeps import outcomes, sections, tables, verdicts


def results(sweep: SweepFolder) -> dict[str, Any]:
  """Name, sections (`title`, `head`, `rows`, `bold`) and remarks, as `sweeps.tables` writes them into files.

  Raises:
    UsageError: the sweep's files are none.
  """
  plan, ended = verdicts.read_plan(sweep.path), outcomes.read(sweep.path)
  judged = verdicts.judge(plan, ended, alpha=tables.ALPHA)
  shown = [sections.of_metric(plan, metric, own, tables.ALPHA) for metric, own in judged.items()]
  if sections.cost_names(sections.costs(plan, ended)):
    shown.append(sections.of_costs(plan, ended))
  return {
    'name': sweep.name,
    'sections': [dataclasses.asdict(section) for section in shown],
    'remarks': sections.remarks(plan, ended, tables.ALPHA, verdicts.PER_METRIC),
  }
