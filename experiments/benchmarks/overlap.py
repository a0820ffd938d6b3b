"""What the input pipeline and asynchronous saves add to the steps of an accelerator, and what the pipeline makes alone.

    python experiments/benchmarks/overlap.py [--step=0.25] [--rows=128] [--steps=60] [--rounds=3]

The real loop runs with the real pipeline, batches placed on the device, and real checkpoints of T5 small and its
Adafactor state. Only the step itself is replaced: by a device that takes the time of an accelerator's step and uses no
core of this machine (steps queue up on it as on a real one). What the loop takes longer than the device's steps is what
it adds. The arms take turns: the same batch again and again, the pipeline (from text and from ids), and saves.

0.25 s for 128 rows of 512 / 114 tokens are about 35% MFU of T5 small on two TPU v5e chips.

An asynchronous save spans the steps from its begin until all of it is on the disk. Its share is what those steps took
longer than the device needs for them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import jax
import numpy as np

from t5x_lite.data import dataset_config, features, pipeline
from t5x_lite.data.vocabularies import embedded_vocabulary
from t5x_lite.models import t5
from t5x_lite.objectives import span_corruption
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.tasks import pretrain  # noqa: F401, registers the tasks
from t5x_lite.training import checkpoints, console, job, learner, loop, optimizers, steps, writers

LENGTHS = {'inputs': 512, 'targets': 114}
LIMITS = {'pipeline': 0.02, 'save': 0.05}


class Pending:
  """A metric that is there when the device is done with its step."""

  def __init__(self, ready: float):
    self._ready = ready

  def is_ready(self) -> bool:
    return time.perf_counter() >= self._ready

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    time.sleep(max(0.0, self._ready - time.perf_counter()))
    return np.asarray(2.0, np.float32)


class Device:
  """Stands in for `steps.Trainer`: a step takes its time, one after the other, and leaves the state as it is."""

  def __init__(self, trainer: steps.Trainer, seconds: float):
    self.abstract_state, self.batch_spec, self.mesh = trainer.abstract_state, trainer.batch_spec, trainer.mesh
    self._trainer, self._seconds, self._free = trainer, seconds, 0.0
    self.ends: list[float] = []

  def compile(self) -> None:
    """Nothing to do."""

  def shard_batch(self, rows: Any) -> Any:
    return self._trainer.shard_batch(rows)

  def train_step(self, state: Any, batch: Any) -> tuple[Any, dict[str, Pending]]:
    jax.block_until_ready(batch)
    self._free = max(self._free, time.perf_counter()) + self._seconds
    self.ends.append(self._free)
    return state, dict.fromkeys(('loss', 'loss_sum', 'weight_sum', 'tokens'), Pending(self._free))


class SameBatch:
  """The same batch for ever: what the loop itself costs."""

  def __init__(self, batch: Any):
    self._batch = batch

  def __next__(self) -> Any:
    return self._batch

  def get_state(self) -> dict[str, Any]:
    return {}

  def set_state(self, state: dict[str, Any]) -> None:
    del state

  task_names = ('same',)

  def counts(self) -> dict[str, Any]:
    return {name: np.zeros(1, np.int64) for name in ('examples', 'tokens', 'truncated', 'dropped')}


class TimedCheckpointer(checkpoints.Checkpointer):
  """Notes when saves begin and when they are on the disk."""

  def __init__(self, directory: pathlib.Path):
    super().__init__(directory, keep=1)
    self.spans: list[tuple[float, float]] = []
    self.blocked: list[float] = []

  def save(self, *args: Any, **kwargs: Any) -> None:
    start = time.perf_counter()
    super().save(*args, **kwargs)
    self.blocked.append(time.perf_counter() - start)
    final = self.directory / f'checkpoint_{args[0]}'

    def wait() -> None:
      while not final.exists():
        time.sleep(0.005)
      self.spans.append((start, time.perf_counter()))

    threading.Thread(target=wait, daemon=True).start()


def make_dataset(rows: int, entry: Any) -> dataset_config.DatasetConfig:
  return dataset_config.DatasetConfig(
    mixture_or_task_name=entry,
    task_feature_lengths=LENGTHS,
    tokenizer=embedded_vocabulary.embedded_vocabulary(),
    objective=span_corruption.SpanCorruption(),
    features=features.EncoderDecoderFeatures(),
    batch_size=rows,
  )


def run(trainer: steps.Trainer, seconds: float, data: Any, state: Any, count: int, period: int = 0) -> dict[str, Any]:
  """The loop over so many steps; saves in every `period` of them."""
  device = Device(trainer, seconds)
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    checkpointer = TimedCheckpointer(pathlib.Path(folder))
    stack.enter_context(contextlib.closing(checkpointer))
    writer = stack.enter_context(contextlib.closing(writers.MetricWriter(folder)))
    config = job.LoopConfig(count, log_period=10, eval_period=0, checkpoint_period=period, stall_seconds=0)
    null = stack.enter_context(open(os.devnull, 'w', encoding='utf-8'))
    what = job.Job(init=lambda: state, merge_data_states=lambda states: states[0])
    loop.run(config, device, data, checkpointer, writer, console.Console(null), what)  # type: ignore[arg-type]
  return {'ends': device.ends, 'spans': checkpointer.spans, 'blocked': checkpointer.blocked}


def added(ends: list[float], seconds: float) -> float:
  """What the loop took longer than the device, as a share. The first steps fill the queue."""
  taken = ends[-1] - ends[4]
  return taken / ((len(ends) - 5) * seconds) - 1


def added_by_saves(ends: list[float], spans: list[tuple[float, float]], seconds: float) -> list[float]:
  """For each save the share by which the steps that it spans took longer."""
  shares = []
  for start, end in spans[:-1]:  # The last one is the run's own, at its end.
    first = max(i for i, at in enumerate(ends) if at <= start + 0.01)  # The step that was just done.
    last = next(i for i, at in enumerate(ends) if at >= end)
    shares.append((ends[last] - ends[first]) / ((last - first) * seconds) - 1)
  return shares


def useful(batch: Any) -> int:
  """Tokens that are no padding."""
  return sum(int(np.count_nonzero(value)) for name, value in batch.items() if name.endswith('segment_ids'))


def rate(config: dataset_config.DatasetConfig, core: int, number: int, of: int, seconds: float) -> float:
  """Tokens a second that process `number` of so many makes of its rows, on one core."""
  os.sched_setaffinity(0, {core})
  rows = np.array_split(np.arange(config.batch_size), of)[number]
  batches = pipeline.build(dataclasses.replace(config, prefetch=0), rows=rows)
  next(batches)
  tokens, start = 0, time.perf_counter()
  while time.perf_counter() - start < seconds:
    tokens += useful(next(batches))
  return tokens / (time.perf_counter() - start)


def rates(rows: int, processes: int) -> float:
  """The same of so many processes at once, each on a core of its own, together."""
  command = [sys.executable, __file__, f'--rows={rows}', f'--rate_of={processes}']
  running = [
    subprocess.Popen([*command, f'--rate_process={number}'], stdout=subprocess.PIPE, text=True)
    for number in range(processes)
  ]
  return sum(float(process.communicate()[0].splitlines()[-1]) for process in running)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--step', type=float, default=0.25, help='seconds of a step of the device')
  parser.add_argument('--rows', type=int, default=128)
  parser.add_argument('--steps', type=int, default=60)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--rate_of', type=int, default=0, help=argparse.SUPPRESS)
  parser.add_argument('--rate_process', type=int, default=0, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.rate_of:
    core = sorted(os.sched_getaffinity(0))[args.rate_process]
    config = make_dataset(args.rows, 'embedded_text')
    print(rate(config, core, args.rate_process, args.rate_of, 10.0))
    return
  compare(args)


def compare(args: argparse.Namespace) -> None:
  config = make_dataset(args.rows, 'embedded_text')
  spec = features.batch_spec(config.features, LENGTHS, args.rows)
  model = t5.T5(t5.T5Config(vocab_size=32128, scan_layers=True))
  taught = learner.Learner(model, optimizers.adafactor(0.01), 0.01)
  trainer = steps.Trainer(taught, make_mesh(MeshShape()), spec)
  state = trainer.init(0)
  batches = pipeline.build(config)
  same = next(batches)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 2**20
  tokens = useful(same)
  print(f'step {args.step} s, {args.rows} rows, {tokens:,} tokens a step; state {size:.0f} MiB; cores {os.cpu_count()}')
  results: dict[str, list[float]] = {'loop alone': [], 'pipeline': [], 'save': []}
  blocked, spans = [], []
  for _ in range(args.rounds):
    results['loop alone'].append(added(run(trainer, args.step, SameBatch(same), state, args.steps)['ends'], args.step))
    results['pipeline'].append(added(run(trainer, args.step, batches, state, args.steps)['ends'], args.step))
    saved = run(trainer, args.step, SameBatch(same), state, args.steps, period=args.steps // 3)
    results['save'] += added_by_saves(saved['ends'], saved['spans'], args.step)
    blocked += saved['blocked'][:-1]
    spans += [(end - start) / args.step for start, end in saved['spans'][:-1]]
  batches.close()
  for name, values in results.items():
    limit = LIMITS.get(name)
    goal = f'  {statistics.median(values) / limit:.2f} of the limit' if limit else ''
    low, high = min(values), max(values)
    print(f'{name:12} adds {100 * statistics.median(values):6.2f} %  ({100 * low:.2f} to {100 * high:.2f}){goal}')
  print(f'a save spans {statistics.median(spans):.1f} steps and blocks the loop for {statistics.median(blocked):.3f} s')
  needed, cores = tokens / args.step, len(os.sched_getaffinity(0))
  for count in (1, cores):
    made = rates(args.rows, count)
    which = 'core' if count == 1 else f'host of {count} cores, a process on each'
    print(f'pipeline alone: {made / 1e6:.2f} million tokens/s per {which}, {made / needed:.1f} times the need')


if __name__ == '__main__':
  main()
