"""What cutting a step over devices costs: the same step on 1, 2, 4 and 8 simulated devices of this machine's cores.

    python experiments/benchmarks/scaling.py --devices 1 2 4 8 --axes data fsdp tensor sequence

The devices share the cores that one device has alone, and the work is the same, so no mesh can be faster here: the
ideal ratio to one device is 1.00, and what is above it is the price of partitioning (smaller products, copies between
threads, threads that wait for each other). Links between real devices are not in it. What crosses between devices is
counted in the compiled step, where layers are unrolled so that each collective is there as often as it runs.

Steps of all meshes take turns; a ratio is of medians over the rounds.
"""

from __future__ import annotations

import argparse
import collections
import math
import os
import re
import statistics
import time

import jax
import numpy as np

from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

ROWS, LENGTH = 8, 256
CONFIG = GptConfig(
  vocab_size=8192,
  emb_dim=256,
  num_heads=8,
  head_dim=32,
  mlp_dim=1024,
  num_layers=4,
  max_length=LENGTH,
  dropout_rate=0.0,
  scan_layers=False,
)
KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')


def batch() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, CONFIG.vocab_size, (ROWS, LENGTH)).astype(np.int32)
  return {
    'decoder_input_tokens': tokens,
    'decoder_target_tokens': tokens,
    'decoder_loss_weights': np.ones(tokens.shape, np.float32),
    'decoder_segment_ids': np.ones_like(tokens),
    'decoder_positions': np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
  }


def make(shape: MeshShape, devices: int) -> Trainer:
  learner = Learner(Gpt(CONFIG), optimizers.adamw(1e-4), 1e-4)
  spec = {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in batch().items()}
  return Trainer(learner, make_mesh(shape, jax.devices()[:devices]), spec)


def crossing(text: str) -> dict[str, tuple[int, int]]:
  """Of each kind of collective in a compiled program: how many arrays, and their bytes on one device, all float32."""
  found: dict[str, list[int]] = collections.defaultdict(list)
  for result, kind in re.findall(rf'= (.*?) ({"|".join(KINDS)})(?:-start)?\(', text):
    shapes = re.findall(r'\w+\[([\d,]*)\]', result)
    found[kind] += [4 * math.prod(int(each) for each in dims.split(',') if each) for dims in shapes]
  return {kind: (len(sizes), sum(sizes)) for kind, sizes in sorted(found.items())}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--devices', type=int, nargs='+', default=[1, 2, 4, 8])
  parser.add_argument('--axes', nargs='+', default=['data', 'fsdp', 'tensor', 'sequence'])
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', max(args.devices))

  cases = {('one device', 1): MeshShape()}
  cases |= {(axis, n): MeshShape(**({'data': 1} | {axis: n})) for axis in args.axes for n in args.devices if n > 1}
  trainers = {case: make(shape, case[1]) for case, shape in cases.items()}
  compiled = {case: trainer.compile().as_text() for case, trainer in trainers.items()}
  states = {case: trainer.init(0) for case, trainer in trainers.items()}
  batches = {case: trainer.shard_batch(batch()) for case, trainer in trainers.items()}
  seconds: dict[tuple[str, int], list[float]] = collections.defaultdict(list)
  for number in range(args.rounds + 1):
    for case, trainer in trainers.items():
      start = time.perf_counter()
      states[case], metrics = trainer.train_step(states[case], batches[case])
      jax.block_until_ready((states[case], metrics))
      if number:  # the first round warms up
        seconds[case].append(time.perf_counter() - start)

  alone = statistics.median(seconds['one device', 1])
  cores = len(os.sched_getaffinity(0))
  print(f'{cores} cores, jax {jax.__version__}, {ROWS} x {LENGTH} tokens, {args.rounds} rounds')
  print('| mesh | devices | to one device (ideal 1.00) | arrays that cross, and their bytes on a device |')
  print('|---|---|---|---|')
  for (axis, devices), shape_seconds in seconds.items():
    told = ', '.join(
      f'{n} {kind} {size / 2**20:.1f} MiB' for kind, (n, size) in crossing(compiled[axis, devices]).items()
    )
    ratio = statistics.median(shape_seconds) / alone
    print(f'| {axis} | {devices} | {ratio:.2f} | {told or "none"} |', flush=True)
  print(f'one device: {alone:.2f} s a step')


if __name__ == '__main__':
  main()
