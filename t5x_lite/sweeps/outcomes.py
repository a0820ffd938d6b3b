"""What a sweep knows of its runs: one row each, in a file that can be read at any moment.

A sweep's folder:

    sweep.json               what was planned: arms, seeds, budget, metrics, the baseline
    arms/<arm>/<seed>/       MODEL_DIR of each run
    outcomes.jsonl           a row for each run that has ended, in the order of arms and seeds
    results.{md,tex,csv,html}
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping

from t5x_lite.core import errors

SWEEP, ARMS, OUTCOMES, RESULTS = 'sweep.json', 'arms', 'outcomes.jsonl', 'results'
COMPLETE, DIVERGED, FAILED = 'complete', 'diverged', 'failed'
STATUSES = (COMPLETE, DIVERGED, FAILED)

# Names, or last parts of names, of metrics of which less is better; of all others more is.
_LESS_IS_BETTER = re.compile(
  r'(^|[/_])(loss|nll|perplexity|(bits|nats|loss|nll)_per_\w+|error|[cwt]er|r?mse|mae|ece|brier|seconds|bytes)$'
)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How one run of a sweep ended.

  Attributes:
    arm: its arm.
    seed: its seed; runs of the same seed are paired.
    status: one of `STATUSES`.
    metrics: the sweep's metrics at the end of the run, by name; those that a run could not say are left out.
    costs: what it took: `steps`; `tokens`, positions of its batches; `useful_tokens`, those that are no padding;
      `flops`, analytic; `parameters`; `train_seconds`, of its steps; `seconds`, of all its commands and attempts.
    note: why it is not complete, or what it could not say.
    not_finite: the metrics that it has said, and that are no numbers.
  """

  arm: str
  seed: int
  status: str
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
  note: str = ''
  not_finite: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    if self.status not in STATUSES:
      raise ValueError(f'status={self.status!r}: expected one of {", ".join(STATUSES)}')


def less_is_better(metric: str) -> bool:
  """Whether less of a metric is better, by its name: losses, perplexities, bits, errors, seconds, bytes."""
  return _LESS_IS_BETTER.search(metric) is not None


def read(folder: str | os.PathLike[str]) -> list[Outcome]:
  """The outcomes of a sweep so far, in the order of the file; none where there is no file.

  Raises:
    UsageError: a line of it is broken.
  """
  path = pathlib.Path(folder) / OUTCOMES
  if not path.exists():
    return []
  found = []
  for number, line in enumerate(path.read_text(encoding='utf-8', errors='replace').split('\n'), 1):
    if not line:
      continue
    try:
      row = json.loads(line)
      found.append(Outcome(**row | {'not_finite': tuple(row.get('not_finite', ()))}))
    except (ValueError, TypeError, AttributeError) as error:
      raise errors.UsageError(
        f'{path}, line {number}: no outcome of a run ({error}); the sweep writes the file anew when it is run again'
      ) from error
  return found


def write(folder: str | os.PathLike[str], outcomes: Iterable[Outcome]) -> None:
  """Replaces the file of outcomes, whole or not at all. A metric that is not finite is left out."""
  path = pathlib.Path(folder) / OUTCOMES
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  temporary.write_text(''.join(_line(outcome) + '\n' for outcome in outcomes), encoding='utf-8')
  os.replace(temporary, path)


def _line(outcome: Outcome) -> str:
  row = dataclasses.asdict(outcome)
  row['metrics'] = {name: value for name, value in row['metrics'].items() if math.isfinite(value)}
  return json.dumps(row, ensure_ascii=False, allow_nan=False)
