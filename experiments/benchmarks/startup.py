"""Seconds from the start of the process to the end of its first training step, against the limits of the README.

    python experiments/benchmarks/startup.py --gin_file=t5_small.gin

The first run has an empty cache (corpus, vocabulary and program are made), the later ones a full one. The ratio is to
the limit: 40 s for the very first run, 15 s for a later one. Below 1 is within it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

LIMITS = {'first': 40.0, 'later': 15.0}


def first_step(gin_file: str, folder: str, cache: str) -> float:
  command = [
    sys.executable, '-m', 't5x_lite.train', f'--gin_file={gin_file}', f'--gin.MODEL_DIR={folder}', '--gin.LOG_PERIOD=1',
  ]  # fmt: skip
  environment = {**os.environ, 'T5X_LITE_CACHE': cache, 'PYTHONUNBUFFERED': '1'}
  start = time.perf_counter()
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
    assert process.stdout is not None
    for line in process.stdout:
      if line.startswith('first step done'):
        seconds = time.perf_counter() - start
        process.kill()
        return seconds
  sys.exit(f'{gin_file} ended before its first step, with exit code {process.returncode}')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--gin_file', default='t5_small.gin')
  parser.add_argument('--later_runs', type=int, default=3)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    for number in range(args.later_runs + 1):
      name = 'first' if number == 0 else 'later'
      seconds = first_step(args.gin_file, f'{folder}/run{number}', f'{folder}/cache')
      print(f'{args.gin_file}  {name:5}  {seconds:5.1f} s  {seconds / LIMITS[name]:.2f} of the limit', flush=True)


if __name__ == '__main__':
  main()
