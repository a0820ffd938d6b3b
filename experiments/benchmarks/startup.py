"""Seconds from the start of the process to the end of its first training step, T5 small with 4 rows of 512 / 114.

    python experiments/benchmarks/startup.py [--rounds=3] [--transformers_python=PYTHON]
      [--t5x_python=PYTHON --t5x_path=T5X:SEQIO:AIRIO:JESTIMATOR]

Ours is the command that a user types, data and all: with everything empty (it builds corpus, vocabulary and program),
with an empty compilation cache, and with all caches filled. The peers make one step on random tokens, T5X with an empty
compilation cache and with a filled one. All take turns. Limits: half of T5X's time with an empty compilation cache,
transformers' time with a filled one, and 40 s with everything empty.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

DONE = 'first step done'
PEERS = pathlib.Path(__file__).with_name('startup_peers.py')
EMPTY, COLD, WARM = 'ours, everything empty', 'ours, empty compilation cache', 'ours, all caches filled'
HF, T5X_COLD, T5X_WARM = 'transformers', 'T5X, empty compilation cache', 'T5X, filled compilation cache'


def first_step(command: list[str], environment: dict[str, str]) -> float:
  """Seconds until the command says that it has made its first step; it is then ended."""
  start = time.perf_counter()
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL, 'text': True}
  with subprocess.Popen(command, env=os.environ | environment | {'PYTHONUNBUFFERED': '1'}, **pipes) as process:
    assert process.stdout is not None
    for line in process.stdout:
      if line.startswith(DONE):
        seconds = time.perf_counter() - start
        process.kill()
        return seconds
  sys.exit(f'{" ".join(command)} ended before its first step, with exit code {process.returncode}')


class Arms:
  """What is timed. Caches lie in a folder of their own."""

  def __init__(self, args: argparse.Namespace, folder: pathlib.Path):
    self._args, self._folder, self._number = args, folder, 0

  def ours(self, empty: tuple[str, ...]) -> float:
    """Our command, after the caches of these names (below the cache folder) were emptied."""
    cache = self._folder / 'cache'
    for name in empty:
      shutil.rmtree(cache / name, ignore_errors=True)
    self._number += 1
    command = [sys.executable, '-m', 't5x_lite.train', f'--gin_file={self._args.gin_file}', '--gin.BATCH_SIZE=4']
    command += [f'--gin.MODEL_DIR={self._folder}/run{self._number}', *self._args.flag]
    seconds = first_step(command, {'T5X_LITE_CACHE': str(cache)})
    shutil.rmtree(self._folder / f'run{self._number}', ignore_errors=True)
    return seconds

  def transformers(self) -> float:
    return first_step([self._args.transformers_python, str(PEERS), 'transformers'], {'HF_HUB_OFFLINE': '1'})

  def t5x(self, *, warm: bool) -> float:
    cache = self._folder / 't5x'
    if not warm:
      shutil.rmtree(cache, ignore_errors=True)
    environment = {
      'PYTHONPATH': self._args.t5x_path,
      'JAX_COMPILATION_CACHE_DIR': str(cache),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }
    return first_step([self._args.t5x_python, str(PEERS), 't5x'], environment)

  def round(self, number: int) -> dict[str, float]:
    """Every arm once, those with a filled cache after the one that fills it. Round 0 only warms the file cache."""
    times = {} if number > 1 else {EMPTY: self.ours(('',))}
    times[COLD] = self.ours(('xla',))
    times[WARM] = self.ours(())
    if self._args.transformers_python:
      times[HF] = self.transformers()
    if self._args.t5x_python:
      times[T5X_COLD] = self.t5x(warm=False)
      times[T5X_WARM] = self.t5x(warm=True)
    return times


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--gin_file', default='t5_small.gin')
  parser.add_argument('--flag', action='append', default=[], help='a further flag of our command')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--transformers_python')
  parser.add_argument('--t5x_python')
  parser.add_argument('--t5x_path', default='')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    arms, times = Arms(args, pathlib.Path(folder)), {}
    for number in range(args.rounds + 1):
      for name, seconds in arms.round(number).items():
        if number:
          times.setdefault(name, []).append(seconds)
  medians = {name: statistics.median(values) for name, values in times.items()}
  limits = {EMPTY: 40.0, COLD: medians.get(T5X_COLD, float('nan')) / 2, WARM: medians.get(HF, float('nan'))}
  for name, seconds in medians.items():
    low, high = min(times[name]), max(times[name])
    limit = f'  {seconds / limits[name]:.2f} of the limit of {limits[name]:.1f} s' if limits.get(name, 0) > 0 else ''
    print(f'{name:32} {seconds:5.1f} s  ({low:.1f} to {high:.1f}){limit}')


if __name__ == '__main__':
  main()
