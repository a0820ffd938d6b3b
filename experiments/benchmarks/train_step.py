"""Seconds per training step, ours and the peers' on the same shapes of random tokens, with ratios.

    python experiments/benchmarks/train_step.py --transformers_python=PYTHON
      --t5x_python=PYTHON --t5x_path=T5X:SEQIO:AIRIO:JESTIMATOR [--work=t5_small] [--rounds=2] [--write]

Works: T5 small with 4 rows of 512 / 114, BERT base with 4 rows of 128 and of 512 and its next sentences, GPT-2 124M
with 2 rows of 512; in float32 and bfloat16; ours unrolled and scanned. A step is forward, loss, backward and update of
all parameters, dropout 0.1: by Adafactor in T5 here and in T5X, by AdamW after clipping to norm 1 everywhere else,
transformers' T5 included. The arms take turns for `--rounds` rounds, each in a process of its own; a step during which
other processes were busy does not count. Numbers are medians of all steps of all rounds, memory is the most that the
process ever had, compile time that without a compilation cache. `--write` puts the tables into README.md.

Without some Python its arms are left out. Rows are kept in `--rows` (JSON lines) as they come, and the tables are of
all rows in there, so that one work can be measured after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import readme
import train_works
from train_works import T5X, TRANSFORMERS, WORKS

OURS = 'ours'
_HERE = pathlib.Path(__file__).parent
_DTYPES = ('float32', 'bfloat16')
_ENVIRONMENT = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '3', 'HF_HUB_OFFLINE': '1'}


def arms(args: argparse.Namespace, work: str) -> list[dict]:
  """Who is timed: `whose`, `dtype` and `layers`."""
  found = []
  for dtype in args.dtype:
    found += [{'whose': OURS, 'dtype': dtype, 'layers': layers} for layers in args.layers]
    if args.transformers_python:
      found.append({'whose': TRANSFORMERS, 'dtype': dtype, 'layers': 'eager'})
    if args.t5x_python and T5X in WORKS[work].goals:
      found.append({'whose': T5X, 'dtype': dtype, 'layers': 'unrolled'})
  return found


def run(arm: dict, work: str, args: argparse.Namespace) -> dict:
  """One turn of an arm."""
  flags = [f'--work={work}', f'--dtype={arm["dtype"]}', f'--steps={args.steps}', f'--limit={args.limit}']
  peer, environment = [str(_HERE / 'train_peers.py'), arm['whose']], dict(_ENVIRONMENT)
  if arm['whose'] == OURS:
    command = [sys.executable, str(_HERE / 'train_ours.py'), f'--layers={arm["layers"]}']
  elif arm['whose'] == TRANSFORMERS:
    command = [args.transformers_python, *peer]
  else:
    command = [args.t5x_python, *peer]
    environment['PYTHONPATH'] = args.t5x_path
  done = subprocess.run([*command, *flags], capture_output=True, text=True, env=os.environ | environment, check=False)
  lines = [line for line in done.stdout.splitlines() if line.startswith('{')]
  if done.returncode or not lines:
    sys.exit(f'{" ".join([*command, *flags])} ended with {done.returncode}: {done.stderr[-800:]}')
  return {'work': work, **arm, **json.loads(lines[-1])}


def tables(rows: list[dict]) -> str:
  """All that was measured, and the ratios that have a goal, as Markdown."""
  lines = ['| work | whose | dtype | layers | s/step | steps | GFLOP/s | peak GiB | compile s |']
  lines.append('|---|---|---|---|---|---|---|---|---|')
  ratios = ['| work | beside | goal | ratio | best of ours | best of theirs | peak memory, ratio |', '|' + '---|' * 7]
  for name, work in WORKS.items():
    arms_of: dict[tuple, list[dict]] = {}
    for row in rows:
      if row['work'] == name:
        arms_of.setdefault((row['whose'], row['dtype'], row['layers']), []).append(row)
    if not arms_of:
      continue
    flops = next((found[0]['flops'] for found in arms_of.values() if 'flops' in found[0]), float('nan'))
    for arm, found in arms_of.items():
      step = train_works.median(found, 'seconds')
      steps = sum(len(row['seconds']) for row in found)
      peak = max(row['peak_gib'] for row in found)
      compiled = f'{train_works.median(found, "compile"):.0f}' if 'compile' in found[0] else ''
      cells = [work.title, *arm, f'{step:.2f}', steps, f'{flops / step / 1e9:.0f}', f'{peak:.2f}', compiled]
      lines.append(f'| {" | ".join(map(str, cells))} |')
    for peer, goal in work.goals.items():
      best = {}
      for whose in (OURS, peer):
        of = [(train_works.median(found, 'seconds'), arm, found) for arm, found in arms_of.items() if arm[0] == whose]
        best[whose] = min(of, key=lambda item: item[0], default=None)
      if None in best.values():
        continue
      (own, own_arm, own_rows), (other, other_arm, other_rows) = best[OURS], best[peer]
      memory = max(row['peak_gib'] for row in own_rows) / max(row['peak_gib'] for row in other_rows)
      cells = [work.title, peer, f'{goal:.1f}', f'{other / own:.2f}', ', '.join(own_arm[1:]), other_arm[1]]
      ratios.append(f'| {" | ".join([*cells, f"{memory:.2f}"])} |')
  quiet = sum(row['undisturbed'] for row in rows)
  versions = ', '.join(sorted({row['versions'] for row in rows}))
  measured = (
    f'{readme.machine()}; {versions}. Of {sum(len(row["seconds"]) for row in rows)} steps, others used less than 8% of '
    f'the processors during {quiet}, and in the middle {statistics.median(row["others"] for row in rows):.0%} of them.'
  )
  return '\n'.join([measured, '', *ratios, '', *lines])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--work', action='append', choices=WORKS, help='default: all')
  parser.add_argument('--dtype', action='append', choices=_DTYPES, help='default: both')
  parser.add_argument('--layers', action='append', choices=train_works.LAYERS, help='of ours; default: the first two')
  parser.add_argument('--steps', type=int, default=3, help='undisturbed steps of a turn')
  parser.add_argument('--limit', type=float, default=60.0, help='seconds of a turn, after which it may have fewer')
  parser.add_argument('--rounds', type=int, default=2, help='0: only the tables of the rows that there are')
  parser.add_argument('--transformers_python', help='a Python with torch and transformers')
  parser.add_argument('--t5x_python', help='a Python with what T5X needs')
  parser.add_argument('--t5x_path', default='', help='its PYTHONPATH')
  parser.add_argument('--rows', type=pathlib.Path, help='file that rows are added to; default: none is kept')
  parser.add_argument('--write', action='store_true', help='put the tables into README.md')
  args = parser.parse_args()
  args.dtype, args.layers = args.dtype or _DTYPES, args.layers or train_works.LAYERS[:2]
  rows = []
  if args.rows and args.rows.exists():
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
  for work in args.work or WORKS:
    for _ in range(args.rounds):
      for arm in arms(args, work):
        rows.append(run(arm, work, args))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if args.rows:
          with args.rows.open('a') as file:
            file.write(json.dumps(rows[-1]) + '\n')
  text = tables(rows)
  print(text)
  if args.write:
    readme.write('train_step', text)


if __name__ == '__main__':
  main()
