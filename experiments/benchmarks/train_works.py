"""What `train_step.py` times: the shapes, and how a step is timed.

Standard library only: the peers' Pythons import it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

BERT_VOCABULARY, GPT2_VOCABULARY, T5_VOCABULARY = 30522, 50257, 32128
DROPOUT = 0.1  # of everything, as published
EAGER, COMPILED = 'eager', 'compiled'  # of transformers; the second by torch.compile
LAYERS = ('unrolled', 'scanned', 'remat')  # of ours; the last is scanned, and keeps its projections only

_QUIET = 0.08  # share of the processors that others may use during a step that counts
_FEWEST = 2  # undisturbed steps without which all are taken


@dataclasses.dataclass(frozen=True)
class Shape:
  """The published widths of a model.

  Attributes:
    emb_dim: of the stream.
    mlp_dim: of a feed-forward layer.
    num_heads: of attention, of 64 each.
    num_layers: of each stack.
  """

  emb_dim: int
  mlp_dim: int
  num_heads: int
  num_layers: int


SIZES = {
  ('t5', 'small'): Shape(512, 2048, 8, 6),
  ('t5', 'base'): Shape(768, 3072, 12, 12),
  ('t5', 'large'): Shape(1024, 4096, 16, 24),
  ('bert', 'base'): Shape(768, 3072, 12, 12),
  ('bert', 'large'): Shape(1024, 4096, 16, 24),
  ('gpt2', '124M'): Shape(768, 3072, 12, 12),
  ('gpt2', 'medium'): Shape(1024, 4096, 16, 24),
  ('gpt2', 'large'): Shape(1280, 5120, 20, 36),
}
PLATFORMS = CPU, GPU = 'cpu', 'gpu'


@dataclasses.dataclass(frozen=True)
class Work:
  """A model, and the batch of random tokens that it is trained on.

  Attributes:
    model: 't5', 'bert' or 'gpt2'.
    rows: of a batch.
    length: of a row; on the encoder's side, where there are two.
    targets: length of the decoder's side, if there are two.
    goals: least ratio of a peer's step to ours, best dtype of each, by peer.
    size: one of `SIZES` of the model.
    platform: that it is meant for.
  """

  model: str
  rows: int
  length: int
  targets: int = 0
  goals: dict[str, float] = dataclasses.field(default_factory=dict)
  size: str = ''
  platform: str = CPU

  @property
  def shape(self) -> Shape:
    """Widths and layers."""
    return SIZES[self.model, self.size]

  @property
  def tokens(self) -> int:
    """Of a batch, of both sides."""
    return self.rows * (self.length + self.targets)

  @property
  def predicted(self) -> int:
    """Masked tokens of a row of BERT: 15%."""
    return round(0.15 * self.length)

  @property
  def title_without_rows(self) -> str:
    """How the table calls it where batches differ."""
    return self.title.replace(f', {self.rows} x ', ', rows of ')

  @property
  def title(self) -> str:
    """How the table calls it."""
    name = {'t5': 'T5', 'bert': 'BERT', 'gpt2': 'GPT-2'}[self.model]
    also = ', MLM and NSP' if self.model == 'bert' else ''
    return f'{name} {self.size}{also}, {self.rows} x {self.length}' + (f' / {self.targets}' if self.targets else '')


TRANSFORMERS, T5X = 'transformers', 'T5X'
WORKS = {
  't5_small': Work('t5', 4, 512, 114, {T5X: 2.0, TRANSFORMERS: 1.2}, 'small'),
  'bert_base_128': Work('bert', 4, 128, goals={TRANSFORMERS: 1.0}, size='base'),
  'bert_base_512': Work('bert', 4, 512, goals={TRANSFORMERS: 1.5}, size='base'),
  'gpt2_512': Work('gpt2', 2, 512, goals={TRANSFORMERS: 1.2}, size='124M'),
  't5_base': Work('t5', 32, 512, 114, {TRANSFORMERS: 1.3}, 'base', GPU),
  't5_large': Work('t5', 32, 512, 114, {TRANSFORMERS: 1.3}, 'large', GPU),
  'bert_large': Work('bert', 32, 512, goals={TRANSFORMERS: 1.3}, size='large', platform=GPU),
  'gpt2_medium': Work('gpt2', 16, 1024, goals={TRANSFORMERS: 1.3}, size='medium', platform=GPU),
  'gpt2_large': Work('gpt2', 16, 1024, goals={TRANSFORMERS: 1.3}, size='large', platform=GPU),
}


def work_of(args: argparse.Namespace) -> Work:
  """The work that the flags of a process name."""
  work = WORKS[args.work]
  return dataclasses.replace(work, rows=args.batch or work.rows)


def parser() -> argparse.ArgumentParser:
  """The flags of a process that times one arm."""
  flags = argparse.ArgumentParser()
  flags.add_argument('--work', choices=WORKS)
  flags.add_argument('--dtype', choices=('float32', 'bfloat16'))
  flags.add_argument('--platform', choices=PLATFORMS)
  flags.add_argument('--batch', type=int, default=0, help='rows; 0: those of the work')
  flags.add_argument('--steps', type=int)
  flags.add_argument('--limit', type=float, help='seconds after which it ends with the steps that it has')
  return flags


def time_steps(step: Callable[[], None], steps: int, limit: float) -> dict:
  """Times `steps` steps that nobody disturbed, after one that does not count.

  A step is undisturbed where other processes used less than 8% of the processors meanwhile. The answer has `seconds`
  and `cpu` (seconds of the process, all threads) of those steps, or of all where too few were, `undisturbed`, how
  many there were, `others`, the share of the processors that others used in the middle, and `first`, seconds of the
  first step.
  """
  start = time.perf_counter()
  rows = []
  while True:
    others, cpu, wall = _busy(), time.process_time(), time.perf_counter()
    step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    others = (_busy() - others - cpu) / (wall * (os.cpu_count() or 1))
    rows.append((wall, cpu, others))
    quiet = [row for row in rows[1:] if row[2] < _QUIET]
    if len(quiet) >= steps or (len(rows) > _FEWEST and time.perf_counter() - start > limit):
      break
  used = quiet if len(quiet) >= min(_FEWEST, steps) else rows[1:]
  return {
    'seconds': [round(row[0], 4) for row in used],
    'cpu': [round(row[1], 4) for row in used],
    'undisturbed': len(quiet),
    'others': round(statistics.median(row[2] for row in used), 3),
    'first': round(rows[0][0], 2),
  }


def report(found: dict, *, device_bytes: int | None = None, **more: object) -> None:
  """Prints what an arm found as one line of JSON, with the most memory of its device; on a CPU, of the process."""
  status = pathlib.Path('/proc/self/status').read_text()
  kibibytes = int(status.partition('VmHWM:')[2].split()[0])
  peak = kibibytes / 2**20 if device_bytes is None else device_bytes / 2**30
  print(json.dumps({**found, 'peak_gib': round(peak, 2), **more}), flush=True)


def median(rows: list[dict], name: str) -> float:
  """Of a number, or of all numbers of a list, over the rounds."""
  values = [row[name] for row in rows]
  return statistics.median(x for value in values for x in (value if isinstance(value, list) else [value]))


def _busy() -> float:
  """Seconds that all processors together have worked since the machine was started."""
  user, nice, system, _, _, irq, soft = map(int, pathlib.Path('/proc/stat').read_text().split(None, 8)[1:8])
  return (user + nice + system + irq + soft) / os.sysconf('SC_CLK_TCK')
