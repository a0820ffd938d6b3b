"""How fast and how large a report of long runs is, as ratios to the limits of a goal; below 1 is within.

    python experiments/benchmarks/report_size.py --work=DIRECTORY

makes 20 runs of 100,000 rows with 18 metrics each there (1.3 GB; they stay for the next time), as 5 arms of 4 seeds of
a sweep and, again, as runs given one by one, and measures: seconds to build the page in a new process (limit 20), its
size (limit 10 MB), and seconds until Chromium shows its first curve (limit 3; left out where there is no Chromium).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

RUNS, POINTS, SEEDS = 20, 100_000, 4
SECONDS, BYTES, OPENING = 20.0, 10e6, 3.0
METRICS = (
  *('loss', 'nll', 'z_loss', 'accuracy', 'grad_norm', 'update_norm', 'param_norm', 'learning_rate'),
  *('tokens_per_second', 'seconds_per_step', 'useful_token_fraction', 'mfu', 'useful_mfu', 'data_seconds'),
  *('device_seconds', 'host_seconds', 'peak_host_bytes', 'nonfinite_steps'),
)
_ROOT = pathlib.Path(__file__).parents[2]


def make_run(folder: pathlib.Path, points: int, arm: int, seed: int) -> None:
  """A run that looks like one of training: noise that falls, spikes, a held-out evaluation every hundredth row."""
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng([arm, seed])
  steps = np.arange(1, points + 1) * 10
  columns = {name: np.exp(rng.normal(0, 0.1, points)) for name in METRICS}
  columns['loss'] = 3 + 0.1 * arm + 6 * np.exp(-8 * steps / steps[-1]) + rng.normal(0, 0.05, points)
  columns['grad_norm'][rng.integers(0, points, 20)] *= 50
  columns['learning_rate'] = 1e-3 * np.minimum(steps / 1000, np.sqrt(1000 / steps))
  columns['tokens_per_second'] *= 5e5
  columns['mfu'] *= 0.4
  columns['peak_host_bytes'] *= 2**31
  lines = []
  for place in range(points):
    row = {'split': 'train', 'step': int(steps[place])} | {
      name: float(values[place]) for name, values in columns.items()
    }
    lines.append(json.dumps(row))
    if place % max(1, points // 100) == 0:
      held = {
        'split': 'validation',
        'task': 'c4',
        'step': int(steps[place]),
        'loss': row['loss'] + 0.1,
        'accuracy': 0.4,
      }
      lines.append(json.dumps(held))
  (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  values = {
    'LoopConfig.total_steps': str(points * 10),
    'train.random_seed': str(seed),
    'Learner.z_loss': str(arm / 1e4),
  }
  checkpoint = folder / f'checkpoint_{points * 10}' / 'config'
  checkpoint.mkdir(parents=True, exist_ok=True)
  (checkpoint / 'metadata').write_text(json.dumps(values))
  (folder / 'run-info.json').write_text(json.dumps({'seed': seed, 'flops_per_step': 1e12, 'parameters': 10**8}))


def make_sweep(folder: pathlib.Path, points: int = POINTS, runs: int = RUNS, seeds: int = SEEDS) -> pathlib.Path:
  """A sweep of such runs; those that are there already are kept."""
  arms = [{'name': f'z_loss={arm / 1e4:g}', 'description': '', 'bindings': []} for arm in range(runs // seeds)]
  for arm, planned in enumerate(arms):
    for seed in range(seeds):
      own = folder / 'arms' / planned['name'] / str(seed)
      if not (own / 'run-info.json').exists():
        make_run(own, points, arm, seed)
  plan = {'name': 'synthetic', 'arms': arms, 'baseline': arms[0]['name'], 'seeds': list(range(seeds)), 'metrics': []}
  (folder / 'sweep.json').write_text(json.dumps(plan))
  return folder


def _webdriver():
  path = _ROOT / 'tests' / 'reporting' / 'webdriver.py'
  spec = importlib.util.spec_from_file_location('webdriver', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def opening(page: pathlib.Path) -> float | None:
  """Seconds from the request of a page to its first curve, the best of 3; None where there is no Chromium."""
  webdriver = _webdriver()
  if not webdriver.installed():
    return None
  with webdriver.browser() as browser:
    seconds = []
    for _ in range(3):
      browser.open('about:blank')
      start = time.perf_counter()
      browser.open(page.absolute().as_uri())
      browser.run("document.querySelector('figure').scrollIntoView()")  # curves are drawn when they are seen
      browser.wait("document.querySelector('figure .line')")
      seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(name: str, folders: list[pathlib.Path], page: pathlib.Path) -> None:
  command = [sys.executable, '-m', 't5x_lite.report', *map(str, folders), f'--output={page}']
  start = time.perf_counter()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  found = [('build', time.perf_counter() - start, SECONDS, 's'), ('size', page.stat().st_size / 1e6, BYTES / 1e6, 'MB')]
  opened = opening(page)
  if opened is not None:
    found.append(('opening', opened, OPENING, 's'))
  for what, value, limit, unit in found:
    print(f'{name:14} {what:8} {value:6.2f} {unit:2} of {limit:4g}  ratio {value / limit:.2f}', flush=True)


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--work', required=True, type=pathlib.Path)
  parser.add_argument('--points', type=int, default=POINTS)
  given = parser.parse_args()
  sweep = make_sweep(given.work / f'sweep_{given.points}', given.points)
  measure('arms and seeds', [sweep], given.work / 'sweep.html')
  measure('one by one', sorted(sweep.glob('arms/*/*')), given.work / 'runs.html')


if __name__ == '__main__':
  main()
