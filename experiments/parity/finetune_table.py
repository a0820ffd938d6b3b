"""The tables of `finetune_heads.py`: means, by how much they differ, and seconds of training."""

from __future__ import annotations

import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import finetune_tasks
from finetune_tasks import WORKS, Work

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
import readme

OURS, THEIRS = 't5x_lite', 'transformers'
NAME = 'finetune_heads'

Row = Mapping[str, Any]
Complete = Mapping[str, Mapping[str, list[Row]]]  # rows by task and system


def difference(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
  """By how much the mean of ours is higher, and the pooled standard error: of n values each sqrt(sum of variances / n).

  With different numbers of values each variance is divided by its own.
  """
  errors = (statistics.variance(values) / len(values) for values in (theirs, ours))
  return statistics.mean(ours) - statistics.mean(theirs), sum(errors) ** 0.5


def in_errors(theirs: Sequence[float], ours: Sequence[float]) -> float:
  """The difference of the means in pooled standard errors; 0 where there is none at all."""
  apart, error = difference(theirs, ours)
  return apart / error if error else (float('inf') if apart else 0.0)


def tables(rows: Sequence[Row]) -> str:
  """Markdown of rows, of the tasks that both have run with at least two seeds."""
  scored, timed = (_complete([row for row in rows if row['timed'] == timed]) for timed in (False, True))
  parts = [_conditions(rows)] if scored or timed else ['No task has been run by both with at least two seeds.']
  parts += [_scores(scored), _settings(scored)] if scored else []
  parts += [_times(timed)] if timed else []
  return '\n\n'.join(parts)


def write(text: str) -> None:
  """Puts tables into README.md of this folder."""
  readme.write(NAME, text, pathlib.Path(__file__).with_name('README.md'))


def _complete(rows: Sequence[Row]) -> Complete:
  found = {
    name: {system: [row for row in rows if (row['task'], row['system']) == (name, system)] for system in (THEIRS, OURS)}
    for name in WORKS
  }
  return {name: both for name, both in found.items() if min(map(len, both.values())) > 1}


def _conditions(rows: Sequence[Row]) -> str:
  versions = sorted({row['versions'] for row in rows})
  return (
    f'On {readme.machine()}; {"; ".join(versions)}. AdamW (betas 0.9 and 0.999, epsilon {finetune_tasks.EPSILON:g}), '
    f'weight decay {finetune_tasks.DECAY:g} but on biases and norms, warm-up over {finetune_tasks.WARMUP:.0%} of the '
    f'steps, linear decay to 0, gradients clipped at a norm of {finetune_tasks.MAX_NORM:g}, dropout 0.1 as the '
    'checkpoint has it, float32.'
  )


def _scores(complete: Complete) -> str:
  lines = [
    '| set | metric, % | seeds | transformers | t5x_lite | difference | in pooled standard errors |',
    '|---|---|---|---|---|---|---|',
  ]
  for name, both in complete.items():
    for metric, title in WORKS[name].metrics.items():
      theirs, ours = ([row[metric] for row in both[system]] for system in (THEIRS, OURS))
      lines.append(
        f'| {WORKS[name].title} | {title} | {_seeds(both)} | {_mean(theirs)} | {_mean(ours)} | '
        f'{difference(theirs, ours)[0]:+.2f} | {in_errors(theirs, ours):+.1f} |'
      )
  return '\n'.join(lines)


def _times(complete: Complete) -> str:
  lines = [
    '| set | runs | ms of a step: transformers | t5x_lite | ratio | processor ms: transformers | t5x_lite | ratio |',
    '|---|---|---|---|---|---|---|---|',
  ]
  for name, both in complete.items():
    cells = []
    for kind in ('seconds', 'processor_seconds'):
      theirs, ours = (statistics.median(row[kind] for row in both[system]) for system in (THEIRS, OURS))
      cells += [f'{1000 * theirs:.0f}', f'{1000 * ours:.0f}', f'{theirs / ours:.2f}']
    lines.append(f'| {WORKS[name].title} | {_seeds(both)} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def _settings(complete: Complete) -> str:
  lines = [
    '| set | trained on | held out | commonest class | tokens of a row | rows of a step | epochs | steps | rate |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  return '\n'.join([*lines, *(_setting(WORKS[name], both) for name, both in complete.items())])


def _setting(work: Work, both: Mapping[str, list[Row]]) -> str:
  steps = ' or '.join(str(count) for count in sorted({int(row['steps']) for rows in both.values() for row in rows}))
  share = both[OURS][0]['commonest']
  commonest = f'{share:.1f}%' if share else ''
  cells = (work.title, *work.sizes, commonest, work.length, work.batch, work.epochs, steps, f'{work.rate:g}')
  return f'| {" | ".join(map(str, cells))} |'


def _seeds(both: Mapping[str, list[Row]]) -> str:
  counts = [len(both[system]) for system in (THEIRS, OURS)]
  return str(counts[0]) if counts[0] == counts[1] else ' and '.join(map(str, counts))


def _mean(values: Sequence[float]) -> str:
  return f'{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}'
