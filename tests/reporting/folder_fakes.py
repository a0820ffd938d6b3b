"""Folders of runs and sweeps, as training and sweeps leave them."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from t5x_lite.sweeps import outcomes
from t5x_lite.sweeps.outcomes import Outcome


def write_run(folder, losses, *, values=None, seed=0, samples=(), evals=(), shares=None, config='', lineage=None):
  """A run with a row of training for each loss, every 10 steps."""
  folder.mkdir(parents=True)
  rows = [
    {'split': 'train', 'step': 10 * n, 'loss': loss, 'grad_norm': 1.0 + n, 'learning_rate': 0.01}
    | {'tokens_per_second': 200.0, 'seconds_per_step': 0.5, 'mfu': 0.3, 'peak_host_bytes': 2**30 + n}
    for n, loss in enumerate(losses, 1)
  ]
  rows += [{'split': 'validation', 'task': task, 'step': step} | metrics for task, step, metrics in evals]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  if samples:
    (folder / 'samples.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in samples))
  info = {
    't5x_lite': '0.1.0',
    'seed': seed,
    'parameters': 1000,
    'flops_per_step': 1e6,
    'data': {'shares': shares or {}},
  }
  (folder / 'run-info.json').write_text(json.dumps(info | ({'lineage': lineage} if lineage else {})))
  (folder / 'config.gin').write_text(config)
  if values is not None:
    write_checkpoint(folder, 10 * len(losses), values, shares or {})
  return folder


def write_checkpoint(folder, step, values, shares):
  """What a report reads of a checkpoint."""
  state = {'fingerprint': {'shares': shares}, 'shards': {}}
  for shard in range(2):
    sums = {'examples': [3] * len(shares), 'part_tokens': [100 * (n + 1) for n in range(len(shares))]}
    state['shards'][str(shard)] = {'sums': sums}
  parts = {'config/metadata': values, 'metrics/metrics': {'loss': 1.5}, 'data/metadata': state}
  for name, value in parts.items():
    path = folder / f'checkpoint_{step}' / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value))


def write_sweep(folder, arms, seeds=(0, 1)):
  """A sweep of two-row runs, the loss of which is that of the arm plus a tenth of the seed."""
  for name, loss in arms.items():
    for seed in seeds:
      values = {'Learner.z_loss': repr(loss), 'train.random_seed': str(seed), 'LoopConfig.total_steps': '20'}
      write_run(folder / 'arms' / name / str(seed), [loss + 1, loss + seed / 10], values=values, seed=seed)
  planned = [{'name': name, 'description': f'loss {loss}', 'bindings': []} for name, loss in arms.items()]
  plan = {'name': 'mine', 'arms': planned, 'baseline': next(iter(arms)), 'seeds': list(seeds), 'metrics': ['loss']}
  (folder / 'sweep.json').write_text(json.dumps(plan))
  ended = [Outcome(name, seed, 'complete', {'loss': loss + seed / 10}) for name, loss in arms.items() for seed in seeds]
  outcomes.write(folder, ended)
  return pathlib.Path(folder)


def attention_row(text, length, seed):
  """A row of `infer --mode=attention`: two layers of an encoder and two of cross-attention, with two heads each."""
  rng = np.random.default_rng(seed)
  written = max(2, length // 2)
  maps = {'encoder': (length, length), 'cross': (written, length)}
  arrays = {name: rng.dirichlet(np.full(shape[1], 0.1), (2, 2, shape[0])) for name, shape in maps.items()}
  return {
    'line': 1,
    'text': text,
    'targets': 'written',
    'tokens': {'encoder': [f' in{n}' for n in range(length)], 'decoder': [f' out{n}' for n in range(written)]},
    'layers': {'encoder': [0, 1], 'cross': [0, 3]},
    'attention': {name: np.round(array, 6).tolist() for name, array in arrays.items()},
  }
