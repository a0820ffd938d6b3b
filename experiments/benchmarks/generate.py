"""Tokens a second of generation, compilation left out, ours and the peers' on the same shapes, with ratios.

    python experiments/benchmarks/generate.py --transformers_python=PYTHON
      --t5x_python=PYTHON --t5x_path=T5X:SEQIO:AIRIO:JESTIMATOR [--rounds=2] [--dtype=float32] [--write]
      [--work='GPT-2 124M, greedy, 1 row' --rows=rows.jsonl]

Works: T5 small writes 64 tokens for each of 8 inputs of 128, greedily and with 4 beams; GPT-2 124M goes on with 64
after 1 and after 8 prompts of 32. Random weights; no row ends early. `generate_arms.py` beside this has the arms, which
take turns, each in a process of its own. Figures are medians over all rounds, of the better dtype of each. With a file
of rows, works may be measured one after another: the tables are of all that is in it.
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
from generate_arms import NEW, OURS, T5X, TRANSFORMERS

ARMS = pathlib.Path(__file__).with_name('generate_arms.py')
_ENVIRONMENT = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '3', 'HF_HUB_OFFLINE': '1'}

# Title: model, rows, beams, and the least ratio of our tokens/s to those of each peer.
WORKS: dict[str, tuple[str, int, int, dict[str, float]]] = {
  'T5 small, greedy, 8 rows': ('t5_small', 8, 1, {TRANSFORMERS: 1.5, T5X: 2.0}),
  'T5 small, 4 beams, 8 rows': ('t5_small', 8, 4, {TRANSFORMERS: 2.0, T5X: 3.0}),
  'GPT-2 124M, greedy, 1 row': ('gpt2', 1, 1, {TRANSFORMERS: 1.5}),
  'GPT-2 124M, greedy, 8 rows': ('gpt2', 8, 1, {TRANSFORMERS: 1.5}),
}


def run(whose: str, title: str, dtype: str, args: argparse.Namespace) -> dict:
  """One turn of an arm."""
  model, rows, beams, _ = WORKS[title]
  python = {OURS: sys.executable, TRANSFORMERS: args.transformers_python, T5X: args.t5x_python}[whose]
  command = [python, str(ARMS), whose, f'--model={model}', f'--batch={rows}', f'--num_beams={beams}']
  environment = os.environ | _ENVIRONMENT | ({'PYTHONPATH': args.t5x_path} if whose == T5X else {})
  command += [f'--dtype={dtype}', f'--repetitions={args.repetitions}']
  done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
  if done.returncode:
    sys.exit(f'{" ".join(command)} ended with {done.returncode}: {done.stderr[-800:]}')
  return {'work': title, 'whose': whose, 'dtype': dtype, **json.loads(done.stdout.splitlines()[-1])}


def tables(rows: list[dict]) -> str:
  """Tokens a second of every arm, and ratios, as Markdown."""
  lines = ['| work | whose | dtype | tokens/s | first, s |', '|---|---|---|---|---|']
  ratios = ['| work | beside | goal | ratio |', '|---|---|---|---|']
  for title, (_, batch, _, goals) in WORKS.items():
    best: dict[str, float] = {}
    arms = dict.fromkeys((row['whose'], row['dtype']) for row in rows if row['work'] == title)
    for whose, dtype in arms:
      of_arm = [row for row in rows if (row['work'], row['whose'], row['dtype']) == (title, whose, dtype)]
      speed = batch * NEW / statistics.median(second for row in of_arm for second in row['seconds'])
      first = statistics.median(row['first'] for row in of_arm)
      best[whose] = max(best.get(whose, 0.0), speed)
      lines.append(f'| {title} | {whose} | {dtype} | {speed:.0f} | {first:.1f} |')
    for peer, goal in goals.items():
      if peer in best and OURS in best:
        ratios.append(f'| {title} | {peer} | {goal:.1f} | {best[OURS] / best[peer]:.2f} |')
  versions = ', '.join(sorted({row['versions'] for row in rows}))
  return '\n'.join([f'{readme.machine()}; {versions}.', '', *ratios, '', *lines])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--work', action='append', choices=WORKS, help='default: all')
  parser.add_argument('--dtype', action='append', choices=('float32', 'bfloat16'), help='default: both')
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--repetitions', type=int, default=3, help='of a process, after the first')
  parser.add_argument('--rows', type=pathlib.Path, help='a file that keeps the rows, JSON lines')
  parser.add_argument('--transformers_python', help='a Python with torch and transformers')
  parser.add_argument('--t5x_python', help='a Python with what T5X needs')
  parser.add_argument('--t5x_path', default='', help='its PYTHONPATH')
  parser.add_argument('--write', action='store_true', help='put the tables into README.md')
  args = parser.parse_args()
  there = {OURS: True, TRANSFORMERS: args.transformers_python, T5X: args.t5x_python}
  rows = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows and args.rows.exists() else []
  for title in args.work or WORKS:
    whose = [OURS, *(peer for peer in WORKS[title][3] if there[peer])]
    for _ in range(args.rounds):
      for dtype in args.dtype or ('float32', 'bfloat16'):
        for arm in whose:
          rows.append(run(arm, title, dtype, args))
          print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
          if args.rows:
            args.rows.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  text = tables(rows)
  print(text)
  if args.write:
    readme.write('generate', text)


if __name__ == '__main__':
  main()
