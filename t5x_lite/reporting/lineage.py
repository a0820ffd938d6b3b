"""Where runs come from: their parents, the parents of those, and so on, as far as it was recorded or folders tell."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core.checkpoint_names import split_checkpoint
from t5x_lite.reporting import facts as facts_lib
from t5x_lite.reporting import folders
from t5x_lite.reporting.facts import Facts

_MOST = 100  # generations
_STEP = re.compile(r'checkpoint_(\d+)')
_KEPT = ('data', 'schedule', 'optimizer')


@dataclasses.dataclass(frozen=True)
class Ancestor:
  """A checkpoint that a run, or one of its ancestors, began with.

  Attributes:
    path: the folder of its run, or the name of a published model.
    step: of the checkpoint; None where it is not known.
    changes: what its child changed; None where that was not recorded.
    kept: what became of its data, schedule and optimiser in the child, by name.
    metrics: how the checkpoint was evaluated, where it is still there.
    is_there: whether its run lies at `path`.
  """

  path: str
  step: int | None
  changes: tuple[str, ...] | None
  kept: Mapping[str, str]
  metrics: Mapping[str, float]
  is_there: bool


def ancestors(folder: pathlib.Path, facts: Facts) -> list[Ancestor]:
  """Of a run, the nearest first.

  A branch has recorded all of them that are branches; where its record ends, the folder of the last one tells how that
  run began. What a folder says that is another run's by now is not believed: a checkpoint of a chain comes once.

  Args:
    folder: of the run.
    facts: of the run.
  """
  found: list[Ancestor] = []
  seen: set[tuple[str, int | None]] = {(str(folder), None)}
  waiting = _recorded(facts)
  while waiting and len(found) < _MOST:
    path, step, record = waiting.pop(0)
    if (path, step) in seen:
      break
    seen.add((path, step))
    own = facts_lib.read_facts(pathlib.Path(path)) if folders.is_run(pathlib.Path(path)) else None
    found.append(_ancestor(path, step, record, own))
    if not waiting and own is not None:
      waiting = _recorded(own)
  return found


def collect(runs: Sequence[tuple[pathlib.Path, Facts]]) -> list[dict[str, Any]]:
  """For each run that did not begin from initial values, by its place: its ancestors."""
  found = []
  for place, (folder, facts) in enumerate(runs):
    chain = ancestors(folder, facts)
    if chain:
      found.append({'run': place, 'ancestors': [dataclasses.asdict(own) for own in chain]})
  return found


def _recorded(facts: Facts) -> list[tuple[str, int | None, Mapping[str, Any]]]:
  """What a run says of its beginning: folder, step and record of its parent, and of those before, the nearest first."""
  lineage = facts.info.get('lineage')
  if isinstance(lineage, dict) and isinstance(lineage.get('parent'), str):
    older = lineage.get('ancestors')
    records = [lineage, *(older if isinstance(older, list) else [])]
    return [
      (own['parent'], own['step'] if isinstance(own.get('step'), int) else None, own)
      for own in records
      if isinstance(own, dict) and isinstance(own.get('parent'), str)
    ]
  if facts.parent is None:
    return []
  path, which = split_checkpoint(facts.parent[0])
  step = int(which) if which.isdecimal() else None
  match = _STEP.fullmatch(pathlib.PurePath(path).name)
  if match:
    path, step = str(pathlib.PurePath(path).parent), int(match[1])
  return [(path, step, {})]


def _ancestor(path: str, step: int | None, record: Mapping[str, Any], own: Facts | None) -> Ancestor:
  measured = next((values for at, values in own.checkpoints if at == step), {}) if own is not None else {}
  changes = record.get('changes')
  return Ancestor(
    path=path,
    step=step,
    changes=tuple(map(str, changes)) if isinstance(changes, list) else None,
    kept={name: str(record[name]) for name in _KEPT if name in record},
    metrics={
      name: float(value) for name, value in measured.items() if isinstance(value, int | float) and math.isfinite(value)
    },
    is_there=own is not None,
  )
