"""What differs between the configurations of runs, by what the values are in the end, and what of it has an effect."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

from t5x_lite.core import idle
from t5x_lite.reporting.facts import Facts

DIFFERS, HOW, SEED, INERT, SAME = 'differs', 'how', 'seed', 'inert', 'same'
KINDS = (DIFFERS, INERT, HOW, SEED, SAME)  # as they are listed

_SEEDS = ('.seed', '.random_seed')


@dataclasses.dataclass(frozen=True)
class Line:
  """One parameter over all runs.

  Attributes:
    name: of the parameter; with its scopes only where these differ.
    values: by run; None where it is not set, or not known.
    kind: `DIFFERS`; `HOW`: how far, how often or on what a run goes; `SEED`; `INERT`: without effect; or `SAME`.
    reason: why it is inert, also where it is the same.
  """

  name: str
  values: tuple[str | None, ...]
  kind: str
  reason: str = ''


def compare(facts: Sequence[Facts], may_change: Callable[[str], bool]) -> list[Line]:
  """Every parameter of the runs, those that differ first.

  Resolved values are compared. A macro or binding that differs is listed beside them only if it is inert: if all
  resolved values are known and none of them differs between runs that differ in it. A run of which only `config.gin` is
  known (before its first checkpoint) has no resolved values.

  Args:
    facts: of the runs.
    may_change: whether a name, such as `LoopConfig.log_period`, says how a run goes and not what it is.
  """
  lines = [_line(name, values, kept, facts, may_change) for name, values, kept in _by_name(facts)]
  lines += _idle_bindings(facts, lines)
  return sorted(lines, key=lambda line: KINDS.index(line.kind))


def _by_name(facts: Sequence[Facts]) -> list[tuple[str, tuple[str | None, ...], str]]:
  """Name, values and one of the full names of each parameter; scopes that agree in all runs are one."""
  vectors: dict[str, dict[str, tuple[str | None, ...]]] = collections.defaultdict(dict)
  for key in dict.fromkeys(key for run in facts for key in run.values):
    vectors[key.rpartition('/')[2]][key] = tuple(run.values.get(key) for run in facts)
  found = []
  for name, by_key in vectors.items():
    if len(set(by_key.values())) == 1:
      key, values = next(iter(by_key.items()))
      found.append((name, values, key))
    else:
      found += [(key, values, key) for key, values in by_key.items()]
  return found


def _line(
  name: str, values: tuple[str | None, ...], key: str, facts: Sequence[Facts], may_change: Callable[[str], bool]
) -> Line:
  known = {value for run, value in zip(facts, values, strict=True) if run.values}
  reasons = [idle.reason(key, run.values) for run in facts if key in run.values]
  reason = reasons[0] if all(reasons) else ''
  if len(known) < 2:
    return Line(name, values, SAME, reason)
  if reason:
    return Line(name, values, INERT, reason)
  last = name.rpartition('/')[2]
  if last.endswith(_SEEDS):
    return Line(name, values, SEED)
  return Line(name, values, HOW if may_change(last) else DIFFERS)


def _idle_bindings(facts: Sequence[Facts], lines: Sequence[Line]) -> list[Line]:
  """The macros and bindings that differ where no resolved value does."""
  if not all(run.values for run in facts):
    return []
  groups: dict[tuple[str | None, ...], list[int]] = collections.defaultdict(list)
  for place in range(len(facts)):
    groups[tuple(line.values[place] for line in lines if not line.name.endswith('.model_dir'))].append(place)
  found = []
  for name in dict.fromkeys(name for run in facts for name in run.bindings if name != 'MODEL_DIR'):
    values = tuple(run.bindings.get(name) for run in facts)
    within = [{values[place] for place in places} for places in groups.values()]
    if any(len(group) > 1 for group in within) and not _listed(name, lines):
      found.append(Line(name, values, INERT, 'no resolved value differs'))
  return found


def _listed(name: str, lines: Sequence[Line]) -> bool:
  return any(line.name == name for line in lines)


def arms(facts: Sequence[Facts]) -> list[int]:
  """The arm of each run: runs whose resolved values differ in seeds and folders alone are of one arm.

  A run with the same seeds as another one is no further sample: it is an arm of its own.
  """
  known: dict[tuple[object, ...], int] = {}
  copies: collections.Counter[tuple[tuple[str, str], ...]] = collections.Counter()
  found = []
  for place, run in enumerate(facts):
    values = tuple((key, value) for key, value in sorted(run.values.items()) if not key.endswith('.model_dir'))
    shared = tuple((key, value) for key, value in values if not key.endswith(_SEEDS))
    name = (shared, copies[values]) if values else (place,)
    copies[values] += 1
    found.append(known.setdefault(name, len(known)))
  return found
