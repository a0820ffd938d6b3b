"""The results of a sweep's folder: the table for a terminal, and the files with them."""

from __future__ import annotations

import os
import pathlib

from t5x_lite.sweeps import csv_table, html_tables, latex_table, plain_tables, sections, verdicts
from t5x_lite.sweeps import outcomes as outcomes_lib
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.sections import Section
from t5x_lite.sweeps.verdicts import Plan, Result

ALPHA = 0.05

_Folder = str | os.PathLike[str]
_Results = dict[str, tuple[Result, ...]]


def render(folder: _Folder, *, alpha: float = ALPHA, family: str = verdicts.PER_METRIC) -> str:
  """The table for a terminal, of the runs that have ended so far.

  Args:
    folder: of the sweep.
    alpha: see `verdicts.judge`.
    family: see `verdicts.judge`.

  Raises:
    UsageError: no sweep is there.
  """
  return plain_tables.terminal(*_shown(*_judged(folder, alpha, family), alpha, family))


def write(folder: _Folder, *, alpha: float = ALPHA, family: str = verdicts.PER_METRIC) -> list[pathlib.Path]:
  """Writes `results.md`, `.tex`, `.csv` and `.html`, each whole or not at all, and returns their paths.

  Args:
    folder: of the sweep.
    alpha: see `verdicts.judge`.
    family: see `verdicts.judge`.

  Raises:
    UsageError: no sweep is there.
  """
  plan, outcomes, results = _judged(folder, alpha, family)
  shown = _shown(plan, outcomes, results, alpha, family)
  texts = {
    'md': plain_tables.markdown(*shown),
    'tex': latex_table.table(plan, results, outcomes, alpha),
    'csv': csv_table.table(plan, results, outcomes),
    'html': html_tables.page(*shown),
  }
  return [_replace(pathlib.Path(folder) / f'{outcomes_lib.RESULTS}.{kind}', text) for kind, text in texts.items()]


def _judged(folder: _Folder, alpha: float, family: str) -> tuple[Plan, list[Outcome], _Results]:
  plan, outcomes = verdicts.read_plan(folder), outcomes_lib.read(folder)
  return plan, outcomes, verdicts.judge(plan, outcomes, alpha=alpha, family=family)


def _shown(
  plan: Plan, outcomes: list[Outcome], results: _Results, alpha: float, family: str
) -> tuple[str, list[Section], list[str]]:
  """Title, sections and remarks."""
  shown = [sections.of_metric(plan, metric, own, alpha) for metric, own in results.items()]
  if sections.cost_names(sections.costs(plan, outcomes)):
    shown.append(sections.of_costs(plan, outcomes))
  return plan.name, shown, sections.remarks(plan, outcomes, alpha, family)


def _replace(path: pathlib.Path, text: str) -> pathlib.Path:
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)
  return path
