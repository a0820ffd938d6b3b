"""Seconds per training step, ours and the peers' on the same shapes of random tokens, with ratios.

    python experiments/benchmarks/train_step.py --transformers_python=PYTHON
      --t5x_python=PYTHON --t5x_path=T5X:SEQIO:AIRIO:JESTIMATOR [--work=t5_small] [--rounds=2] [--write]

Works: T5 small with 4 rows of 512 / 114, BERT base with 4 rows of 128 and of 512 and its next sentences, GPT-2 124M
with 2 rows of 512; in float32 and bfloat16; ours unrolled and scanned. A step is forward, loss, backward and update of
all parameters, dropout 0.1: by Adafactor in T5 here and in T5X, by AdamW after clipping to norm 1 everywhere else,
transformers' T5 included. The arms take turns for `--rounds` rounds, each in a process of its own; a step during which
other processes were busy does not count. Numbers are medians of all steps of all rounds, memory is the most that the
process ever had, compile time that without a compilation cache. `--write` puts the tables into README.md.

On a GPU, where transformers is compiled by torch as well, and the best batch of each counts:

    python experiments/benchmarks/train_step.py --work=t5_base --work=t5_large --work=bert_large --work=gpt2_medium
      --work=gpt2_large --dtype=bfloat16 --batch=8 --batch=16 --batch=32 --batch=64 --transformers_python=PYTHON

Without some Python its arms are left out. Rows are kept in `--rows` (JSON lines) as they come, and the tables are of
all rows in there, so that one work can be measured after the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

import readme
import train_works
from train_works import COMPILED, EAGER, T5X, TRANSFORMERS, WORKS, Work

OURS = 'ours'
_HERE = pathlib.Path(__file__).parent
_DTYPES = ('float32', 'bfloat16')
_ENVIRONMENT = {'TF_CPP_MIN_LOG_LEVEL': '3', 'HF_HUB_OFFLINE': '1'}
_CPU_ENVIRONMENT = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}


def arms(args: argparse.Namespace, work: Work) -> list[dict]:
  """Who is timed: `whose`, `dtype`, `layers` and `rows` of a batch."""
  found = []
  of_peer = (EAGER, COMPILED) if work_platform(args, work) == train_works.GPU else (EAGER,)
  for rows, dtype in itertools.product(args.batch or (work.rows,), args.dtype):
    arm = {'dtype': dtype, 'rows': rows}
    found += [{'whose': OURS, 'layers': layers, **arm} for layers in args.layers]
    if args.transformers_python:
      found += [{'whose': TRANSFORMERS, 'layers': layers, **arm} for layers in args.peer_layers or of_peer]
    if args.t5x_python and T5X in work.goals:
      found.append({'whose': T5X, 'layers': 'unrolled', **arm})
  return found


def work_platform(args: argparse.Namespace, work: Work) -> str:
  """Where a work is timed."""
  return args.platform or work.platform


def run(arm: dict, name: str, args: argparse.Namespace) -> dict:
  """One turn of an arm; `failed` says why there are no figures, which with large batches is want of memory."""
  platform = work_platform(args, WORKS[name])
  flags = [f'--work={name}', f'--platform={platform}', f'--dtype={arm["dtype"]}', f'--batch={arm["rows"]}']
  flags += [f'--steps={args.steps}', f'--limit={args.limit}']
  layers, environment = f'--layers={arm["layers"]}', dict(_ENVIRONMENT)
  if platform == train_works.CPU:
    environment |= _CPU_ENVIRONMENT
  peer = [str(_HERE / 'train_peers.py'), arm['whose']]
  if arm['whose'] == OURS:
    command = [sys.executable, str(_HERE / 'train_ours.py'), layers]
  elif arm['whose'] == TRANSFORMERS:
    command = [args.transformers_python, *peer, layers]
  else:
    command = [args.t5x_python, *peer]
    environment['PYTHONPATH'] = args.t5x_path
  done = subprocess.run([*command, *flags], capture_output=True, text=True, env=os.environ | environment, check=False)
  lines = [line for line in done.stdout.splitlines() if line.startswith('{')]
  row = {'work': name, 'platform': platform, **arm}
  if done.returncode or not lines:
    told = f'{" ".join([*command, *flags])} ended with {done.returncode}: {done.stderr[-800:]}'
    if not args.batch:
      sys.exit(told)
    print(told, file=sys.stderr)
    return row | {'failed': done.stderr.strip().rpartition('\n')[2][:200]}
  return row | json.loads(lines[-1])


@dataclasses.dataclass(frozen=True)
class Measured:
  """All turns of an arm."""

  work: Work
  arm: tuple[str, str, str]  # whose, dtype, layers
  rows: list[dict]

  @property
  def standard_rows(self) -> int:
    """Those that the work has unless told otherwise."""
    return WORKS[self.rows[0]['work']].rows

  @property
  def seconds(self) -> float:
    """Of a step."""
    return train_works.median(self.rows, 'seconds')

  @property
  def speed(self) -> float:
    """Tokens a second."""
    return self.work.tokens / self.seconds

  @property
  def peak_gib(self) -> float:
    """The most memory."""
    return max(row['peak_gib'] for row in self.rows)


def measured(rows: list[dict], name: str) -> list[Measured]:
  """The arms of a work, in the order of their first turns."""
  found: dict[tuple, list[dict]] = {}
  for row in rows:
    if row['work'] == name and 'failed' not in row:
      found.setdefault((row['whose'], row['dtype'], row['layers'], row['rows']), []).append(row)
  return [Measured(dataclasses.replace(WORKS[name], rows=arm[-1]), arm[:-1], of_arm) for arm, of_arm in found.items()]


def tables(rows: list[dict]) -> str:
  """All that was measured, and the ratios that have a goal, as Markdown."""
  lines = ['| work | whose | dtype | layers | s/step | steps | tokens/s | GFLOP/s | MFU | peak GiB | compile s |']
  lines.append('|' + '---|' * 11)
  ratios = ['| work | beside | goal | ratio | best of ours | best of theirs | peak memory, ratio |', '|' + '---|' * 7]
  for name, work in WORKS.items():
    of_work = measured(rows, name)
    own = next((each for each in of_work if each.arm[0] == OURS), None)
    of_token = own.rows[0]['flops'] / own.work.tokens if own else float('nan')
    peaks = [row['peak_flops'] for each in of_work for row in each.rows if row.get('peak_flops')]
    for each in of_work:
      rate = of_token * each.speed
      mfu = f'{rate / statistics.median(peaks):.0%}' if peaks else ''
      compiled = f'{train_works.median(each.rows, "compile"):.0f}' if 'compile' in each.rows[0] else ''
      steps = sum(len(row['seconds']) for row in each.rows)
      cells = [each.work.title, *each.arm, f'{each.seconds:.2f}', steps, f'{each.speed:.0f}', f'{rate / 1e9:.0f}']
      lines.append(f'| {" | ".join(map(str, [*cells, mfu, f"{each.peak_gib:.2f}", compiled]))} |')
    for peer, goal in work.goals.items():
      best = {
        whose: max((each for each in of_work if each.arm[0] == whose), key=lambda each: each.speed, default=None)
        for whose in (OURS, peer)
      }
      ours, theirs = best[OURS], best[peer]
      if ours is None or theirs is None:
        continue
      title = work.title if ours.work.rows == theirs.work.rows == work.rows else work.title_without_rows
      cells = [title, peer, f'{goal:.1f}', f'{ours.speed / theirs.speed:.2f}', _describe(ours), _describe(theirs)]
      ratios.append(f'| {" | ".join([*cells, f"{ours.peak_gib / theirs.peak_gib:.2f}"])} |')
  timed = [row for row in rows if 'failed' not in row]
  quiet = sum(row['undisturbed'] for row in timed)
  versions = ', '.join(sorted({row['versions'] for row in timed}))
  devices = sorted({row['device'] for row in timed if row.get('platform') == train_works.GPU and 'device' in row})
  told = (
    f'{", ".join([*devices, readme.machine()])}; {versions}. Of {sum(len(row["seconds"]) for row in timed)} steps, '
    f'others used less than 8% of the processors during {quiet}, and in the middle '
    f'{statistics.median(row["others"] for row in timed):.0%} of them.'
  )
  return '\n'.join([told, '', *ratios, '', *lines])


def _describe(each: Measured) -> str:
  _, dtype, layers = each.arm
  same = each.work.rows == each.standard_rows
  return f'{dtype}, {layers}' + ('' if same else f', {each.work.rows} rows')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--work', action='append', choices=WORKS, help='default: all that are meant for a CPU')
  parser.add_argument('--dtype', action='append', choices=_DTYPES, help='default: both')
  parser.add_argument('--layers', action='append', choices=train_works.LAYERS, help='of ours; default: the first two')
  parser.add_argument('--platform', choices=train_works.PLATFORMS, help='default: that of the work')
  parser.add_argument('--batch', action='append', type=int, help='rows; default: those of the work; the best counts')
  parser.add_argument('--peer_layers', action='append', choices=(EAGER, COMPILED), help='of transformers')
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
    for row in rows:
      row.setdefault('rows', WORKS[row['work']].rows)
  for name in args.work or [name for name, work in WORKS.items() if work.platform == train_works.CPU]:
    for _ in range(args.rounds):
      for arm in arms(args, WORKS[name]):
        rows.append(run(arm, name, args))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if args.rows:
          with args.rows.open('a') as file:
            file.write(json.dumps(rows[-1]) + '\n')
  text = tables(rows)
  print(text)
  if args.write:
    on_gpu = any(row.get('platform') == train_works.GPU for row in rows)
    readme.write('train_step_gpu' if on_gpu else 'train_step', text)


if __name__ == '__main__':
  main()
