"""How a run of a sweep has ended, read from what lies in its folders."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t5x_lite.sweeps import outcomes, plan, supervise
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.plan import Plan, PlannedArm

TRAIN = 'train'  # the command of a job that trains; the others are its evaluations, by name
PRUNED = 'pruned'  # in the note on an attempt: the step at which it was ended, see `spec.Sweep.pruner`
EVALUATIONS = 'evaluations'  # their folders, in the run's

_BAD_INPUT, _DIVERGED = 2, 3
METRICS, _INFO = 'metrics.jsonl', 'run-info.json'
_STAYS = ('split', 'task', 'step', 'checkpoint')


Key = tuple[str, int]  # arm and seed


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of an arm.

  Attributes:
    planned: the arm.
    seed: of the run.
    model_dir: its folder.
    job: the folder of what is known of its process; see `supervise`.
  """

  planned: PlannedArm
  seed: int
  model_dir: pathlib.Path
  job: pathlib.Path

  @property
  def key(self) -> Key:
    """Arm and seed."""
    return self.planned.arm.name, self.seed


def judge(run: Run, whole: Plan) -> Outcome | None:
  """The outcome of a run, from the notes on its attempts; None if it is to be begun, or begun again."""
  attempts = supervise.attempts(run.job)
  codes: dict[str, int] = {}
  for attempt in attempts:
    codes |= attempt['codes']
  names = [TRAIN, *whole.sweep.evaluations]
  if all(codes.get(name) == 0 for name in names):
    metrics, note = _metrics(run, whole)
    return _outcome(run, attempts, outcomes.COMPLETE, metrics, note)
  pruned = next((attempt[PRUNED] for attempt in attempts if PRUNED in attempt), None)
  if pruned is not None:
    return _outcome(run, attempts, outcomes.FAILED, {}, f'pruned at step {pruned} ({whole.sweep.pruner})')
  if codes.get(TRAIN) == _DIVERGED:
    return _outcome(run, attempts, outcomes.DIVERGED, {}, _last_words(run))
  if _BAD_INPUT in codes.values() or len([each for each in attempts if _died(each)]) > whole.sweep.retries:
    died = next((f'{name}: ' for name, code in codes.items() if code and name != TRAIN), '')
    return _outcome(run, attempts, outcomes.FAILED, {}, f'{died}{_last_words(run)}')
  return None


def _died(attempt: Mapping[str, Any]) -> bool:
  """Whether an attempt came to an end that nobody had asked for."""
  return not attempt['stopped'] and (not attempt['codes'] or any(attempt['codes'].values()))


def _outcome(
  run: Run, attempts: Sequence[Mapping[str, Any]], status: str, metrics: Mapping[str, float], note: str
) -> Outcome:
  cost = run.planned.cost
  steps = max((int(row['step']) for row in rows(run.model_dir / METRICS)), default=0)
  costs = {
    'steps': steps,
    'tokens': steps * cost.tokens,
    'flops': steps * cost.flops,
    'parameters': cost.parameters,
    'seconds': round(sum(attempt['seconds'] for attempt in attempts), 3),
  }
  return Outcome(*run.key, status, metrics, costs, note)


def _metrics(run: Run, whole: Plan) -> tuple[dict[str, float], str]:
  """The sweep's metrics of a run, and which of them it does not have."""
  found: dict[str, float] = {}
  files: dict[str, list[dict[str, Any]]] = {}
  missing = []
  for metric in whole.sweep.metrics:
    source, task, name = plan.source_of(whole.sweep, metric)
    if source not in files:
      folder = run.model_dir / EVALUATIONS / source if source else run.model_dir
      files[source] = list(rows(folder / METRICS))
    own = [row for row in files[source] if row.get('task') == task and row.get('split') != TRAIN]
    value = own[-1].get(name) if own else None
    if isinstance(value, int | float):
      found[metric] = float(value)
    else:
      known = [key for key, given in (own[-1].items() if own else ()) if key not in _STAYS and given is not None]
      missing.append(f'no {metric} (it has {", ".join(known) or "no evaluation"})')
  return found, '; '.join(missing)


def rows(path: pathlib.Path) -> Iterable[dict[str, Any]]:
  """The rows of a file of JSON lines, without one that was cut off."""
  try:
    lines = path.read_text(encoding='utf-8', errors='replace').split('\n')[:-1]
  except FileNotFoundError:
    return
  for line in lines:
    try:
      yield json.loads(line)
    except ValueError:
      continue


def _last_words(run: Run) -> str:
  """The last error in a run's log, else its last line."""
  try:
    lines = (run.job / supervise.LOG).read_text(encoding='utf-8', errors='replace').splitlines()
  except FileNotFoundError:
    lines = []
  told = [line.strip() for line in lines if line.strip()]
  said = [line for line in told if line.startswith('error: ')]
  return (said or told or ['it died without a word'])[-1].removeprefix('error: ')


def order(run: Run) -> str | None:
  """The hash of the documents that a run has read, in their order, as it has noted it."""
  try:
    return json.loads((run.model_dir / _INFO).read_text(encoding='utf-8'))['data'].get('document_order')
  except (OSError, ValueError, KeyError):
    return None


def fair(whole: Plan, orders: Mapping[Key, str | None], found: Mapping[Key, Outcome]) -> dict[Key, Outcome]:
  """The outcomes, where a run that has read other documents than the baseline's of its seed counts as failed.

  The plan has looked at the first seed, and only where the data are on its machine.

  Args:
    whole: the plan.
    orders: what `order` says of each run.
    found: the outcomes.
  """
  if not whole.sweep.same_data:
    return dict(found)
  checked = {}
  for key, outcome in found.items():
    own, wanted = orders.get(key), orders.get((whole.baseline, key[1]))
    if outcome.status == outcomes.COMPLETE and wanted and own and own != wanted:
      note = f'it read other documents, or in another order, than the baseline {whole.baseline!r} with seed {key[1]}'
      outcome = dataclasses.replace(outcome, status=outcomes.FAILED, metrics={}, note=note)
    checked[key] = outcome
  return checked
