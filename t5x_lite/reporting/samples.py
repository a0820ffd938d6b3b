"""Samples of what models wrote, over a run's steps, as many as a page can hold."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from t5x_lite.reporting import rows

_FIELDS = ('input', 'target', 'prediction')
_MOST_STEPS = 20  # of one run and task
_MOST_TEXT = 1500  # characters of one text
_BUDGET = 1_500_000  # characters of all


def collect(folders: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
  """For each run and task that has samples: the steps, and at each of them texts in the order of the file.

  Too many steps are thinned out evenly, the first and the last stay; long texts are cut, which an ellipsis shows.
  """
  found = []
  limit = _BUDGET // max(1, len(folders))
  for place, folder in enumerate(folders):
    by_task: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in rows.read_samples(folder):
      by_task.setdefault(str(row.get('task', '')), {}).setdefault(int(row['step']), []).append(row)
    for task, by_step in by_task.items():
      steps = _thinned(sorted(by_step), _MOST_STEPS)
      length = min(_MOST_TEXT, limit // max(1, len(by_task) * len(steps) * len(_FIELDS)))
      per_step = max(1, limit // max(1, len(by_task) * len(steps) * len(_FIELDS) * max(80, length)))
      texts = [
        [[_cut(row.get(name), length) for name in _FIELDS] for row in by_step[step][:per_step]] for step in steps
      ]
      found.append({'run': place, 'task': task, 'steps': steps, 'texts': texts})
  return found


def _thinned(steps: Sequence[int], most: int) -> list[int]:
  """At most so many of the steps, evenly, with the first and the last."""
  if len(steps) <= most:
    return list(steps)
  return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def _cut(text: Any, length: int) -> str:
  text = '' if text is None else str(text)
  return text if len(text) <= length else text[: max(1, length)] + ' …'
