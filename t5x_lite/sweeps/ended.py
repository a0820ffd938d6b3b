"""How a run of a sweep has ended, read from what lies in its folders."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.sweeps import evaluation_sets, outcomes, supervise
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.plan import Plan, PlannedArm

TRAIN = 'train'  # the command of a job that trains; the others are its evaluations, by name
FORGIVEN = 'forgiven'  # in a note among the attempts: the failures before it count no more
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
    metrics, not_finite, note = _metrics(run, whole)
    made = _outcome(run, attempts, outcomes.COMPLETE, metrics, note)
    return dataclasses.replace(made, not_finite=not_finite)
  pruned = next((attempt[PRUNED] for attempt in attempts if PRUNED in attempt), None)
  if pruned is not None:
    return _outcome(run, attempts, outcomes.FAILED, {}, f'pruned at step {pruned} ({whole.sweep.pruner})')
  if codes.get(TRAIN) == _DIVERGED:
    return _outcome(run, attempts, outcomes.DIVERGED, {}, _last_words(run))
  since = max((place + 1 for place, attempt in enumerate(attempts) if FORGIVEN in attempt), default=0)
  codes = {name: code for attempt in attempts[since:] for name, code in attempt['codes'].items()}
  if _BAD_INPUT in codes.values() or len([each for each in attempts[since:] if _died(each)]) > whole.sweep.retries:
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
  told = list(rows(run.model_dir / METRICS))
  steps = max((int(row['step']) for row in told), default=0)
  costs = {
    'steps': steps,
    'tokens': steps * cost.tokens,
    'flops': steps * cost.flops,
    'parameters': cost.parameters,
    'seconds': round(sum(attempt['seconds'] for attempt in attempts), 3),
  }
  return Outcome(*run.key, status, metrics, costs | _trained(told, steps, cost.tokens), note)


def _trained(told: Iterable[Mapping[str, Any]], steps: int, tokens: int) -> dict[str, float]:
  """The tokens that were no padding, and the seconds of the steps, where a run has noted them.

  A row of training is of the steps since the one before; where steps were made again, the later one counts.
  """
  by_step = {int(row['step']): row for row in told if row.get('split') == TRAIN}
  # Steps whose pace was not measured, or that no row of training is of, count as the nearest that were.
  ends = sorted({*by_step, steps} - {0})
  taken = np.diff([0, *ends])
  found = {}
  for name, of, unit in (
    ('useful_tokens', 'useful_token_fraction', tokens),
    ('train_seconds', 'seconds_per_step', 1.0),
  ):
    known = [step for step in sorted(by_step) if isinstance(by_step[step].get(of), int | float)]
    if not known:
      return {}
    each = np.interp(ends, known, [by_step[step][of] for step in known])
    found[name] = round(float(np.sum(taken * each) * unit), 3)
  return found


def _metrics(run: Run, whole: Plan) -> tuple[dict[str, float], tuple[str, ...], str]:
  """The sweep's metrics of a run; those that are no numbers; and which of them it does not have."""
  found: dict[str, float] = {}
  files: dict[str, list[dict[str, Any]]] = {}
  missing, not_finite = [], []
  for metric in whole.sweep.metrics:
    source, task, name = evaluation_sets.source_of(whole.sweep, metric)
    if source not in files:
      folder = run.model_dir / EVALUATIONS / source if source else run.model_dir
      files[source] = list(rows(folder / METRICS))
    own = [row for row in files[source] if row.get('task') == task and row.get('split') != TRAIN]
    value = own[-1].get(name) if own else None
    if isinstance(value, int | float) and math.isfinite(value):
      found[metric] = float(value)
    elif own and name in own[-1]:
      not_finite.append(metric)
      missing.append(f'{metric} is not finite')
    else:
      known = [key for key, given in (own[-1].items() if own else ()) if key not in _STAYS and given is not None]
      near = errors.nearest(name, known)
      hint = f'; did you mean {near}?' if near else ''
      missing.append(f'no {metric} (it has {", ".join(known) or "no evaluation"}{hint})')
  return found, tuple(not_finite), '; '.join(missing)


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
  return (said or told or ['it ended without a word'])[-1].removeprefix('error: ')


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
      outcome = dataclasses.replace(outcome, status=outcomes.FAILED, metrics={}, note=note, not_finite=())
    checked[key] = outcome
  return checked
