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
LAYERS = ('unrolled', 'scanned', 'remat')  # of ours; the last is scanned, and keeps its projections only

_QUIET = 0.08  # share of the processors that others may use during a step that counts
_FEWEST = 2  # undisturbed steps without which all are taken


@dataclasses.dataclass(frozen=True)
class Work:
  """A model, and the batch of random tokens that it is trained on.

  Attributes:
    model: 't5', 'bert' or 'gpt2', in its small, base and 124M size.
    rows: of a batch.
    length: of a row; on the encoder's side, where there are two.
    targets: length of the decoder's side, if there are two.
    goals: least ratio of a peer's step to ours, best dtype of each, by peer.
  """

  model: str
  rows: int
  length: int
  targets: int = 0
  goals: dict[str, float] = dataclasses.field(default_factory=dict)

  @property
  def predicted(self) -> int:
    """Masked tokens of a row of BERT: 15%."""
    return round(0.15 * self.length)

  @property
  def title(self) -> str:
    """How the table calls it."""
    name = {'t5': 'T5 small', 'bert': 'BERT base, MLM and NSP', 'gpt2': 'GPT-2 124M'}[self.model]
    return f'{name}, {self.rows} x {self.length}' + (f' / {self.targets}' if self.targets else '')


TRANSFORMERS, T5X = 'transformers', 'T5X'
WORKS = {
  't5_small': Work('t5', 4, 512, 114, {T5X: 2.0, TRANSFORMERS: 1.2}),
  'bert_base_128': Work('bert', 4, 128, goals={TRANSFORMERS: 1.0}),
  'bert_base_512': Work('bert', 4, 512, goals={TRANSFORMERS: 1.5}),
  'gpt2_512': Work('gpt2', 2, 512, goals={TRANSFORMERS: 1.2}),
}


def parser() -> argparse.ArgumentParser:
  """The flags of a process that times one arm."""
  flags = argparse.ArgumentParser()
  flags.add_argument('--work', choices=WORKS)
  flags.add_argument('--dtype', choices=('float32', 'bfloat16'))
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


def report(found: dict, **more: object) -> None:
  """Prints what an arm found as one line of JSON, with the most memory that the process had."""
  status = pathlib.Path('/proc/self/status').read_text()
  kibibytes = int(status.partition('VmHWM:')[2].split()[0])
  print(json.dumps({**found, 'peak_gib': round(kibibytes / 2**20, 2), **more}), flush=True)


def median(rows: list[dict], name: str) -> float:
  """Of a number, or of all numbers of a list, over the rounds."""
  values = [row[name] for row in rows]
  return statistics.median(x for value in values for x in (value if isinstance(value, list) else [value]))


def _busy() -> float:
  """Seconds that all processors together have worked since the machine was started."""
  user, nice, system, _, _, irq, soft = map(int, pathlib.Path('/proc/stat').read_text().split(None, 8)[1:8])
  return (user + nice + system + irq + soft) / os.sysconf('SC_CLK_TCK')
