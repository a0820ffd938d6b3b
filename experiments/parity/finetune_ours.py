"""This library's side of `finetune_heads.py`: the command `python -m t5x_lite.train`, in this process.

The time is that of the steps after the first, before which the program is compiled. What the run does besides, the
evaluation after the last step above all, is not in it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import finetune_tasks
from finetune_tasks import Work

from t5x_lite import train
from t5x_lite.training import window


def run(
  work: Work,
  files: pathlib.Path,
  folder: pathlib.Path,
  model_folder: pathlib.Path,
  seed: int,
  more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Trains and evaluates: metrics by name, `seconds` and `processor_seconds` of a step, and the number of `steps`.

  Args:
    work: the task.
    files: its folder of original files.
    folder: of the run, which does not exist yet.
    model_folder: what it starts from.
    seed: of the order, of dropout and of the head.
    more: bindings of gin by name.
  """
  bindings = {
    'TASK_NAME': work.task,
    'TASK_DIRECTORY': str(files),
    'INITIAL_CHECKPOINT_PATH': str(model_folder),
    'MODEL_DIR': str(folder),
    'MAX_LENGTH': work.length,
    'BATCH_SIZE': work.batch,
    'NUM_EPOCHS': work.epochs,
    'PEAK_LEARNING_RATE': work.rate,
    'WARMUP_SHARE': finetune_tasks.WARMUP,
    'adamw.weight_decay': finetune_tasks.DECAY,
    'adamw.eps': finetune_tasks.EPSILON,
    'adamw.max_grad_norm': finetune_tasks.MAX_NORM,
    'EVAL_SPLIT': work.split,
    'EVAL_PERIOD': 0,
    'CHECKPOINT_PERIOD': 0,
    'RANDOM_SEED': seed,
    **(more or {}),
  }
  gin_files = ('models/published.gin', 'runs/finetune_encoder.gin', work.gin_file, 'data/original_files.gin')
  with clock() as times:
    code = train.main(
      [
        'train',
        *(f'--gin_file={file}' for file in gin_files),
        *(f'--gin.{name}={value!r}' for name, value in bindings.items()),
      ]
    )
  if code:
    raise SystemExit(code)
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
  metric = f'score/{next(iter(work.metrics))}'
  scores = next(row for row in reversed(rows) if metric in row)
  steps = max(row['step'] for row in rows)
  return {name: scores[f'score/{name}'] for name in work.metrics} | finetune_tasks.times_of(times, steps)


def versions() -> str:
  """Of what runs here."""
  names = ('t5x_lite', 'jax', 'flax')
  return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in names)


@contextlib.contextmanager
def clock() -> Iterator[list[tuple[float, float]]]:
  """Wall and processor seconds when the loop starts its clock, after the first step, and whenever it logs steps."""
  times: list[tuple[float, float]] = []

  def noting(method: Any) -> Any:
    def noted(*arguments: Any) -> Any:
      times.append((time.perf_counter(), time.process_time()))
      return method(*arguments)

    return noted

  kind = window.Window
  start, take = noting(kind.start_clock), noting(kind.take)
  with mock.patch.object(kind, 'start_clock', start), mock.patch.object(kind, 'take', take):
    yield times
