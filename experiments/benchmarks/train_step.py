"""Seconds per training step of T5 small on random tokens, ours in several variants and Hugging Face's, with ratios.

    python experiments/benchmarks/train_step.py
    python experiments/benchmarks/train_step.py --peer_python=/path/to/python   # one that has torch and transformers

The variants take turns for `--rounds` rounds, each in a process of its own; the table gives the median step of all
rounds and its ratio to the first row. Compile time is that of lowering and compiling with no compilation cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

OURS = {
  'scanned float32': {'scan_layers': True},
  'unrolled float32': {'scan_layers': False},
  'scanned bfloat16': {'scan_layers': True, 'dtype': 'bfloat16'},
  'scanned float32, remat minimal': {'scan_layers': True, 'remat_policy': 'minimal'},
}
PEER = 'Hugging Face float32'


def timed_steps(step, count: int) -> list[float]:
  """Seconds of each of `count` calls, after one that is not counted."""
  step()
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - start)
  return seconds


def ours(variant: str, batch_size: int, steps: int) -> dict:
  import jax
  import numpy as np

  from t5x_lite.data import features
  from t5x_lite.models.t5 import T5, T5Config
  from t5x_lite.partitioning.mesh import MeshShape, make_mesh
  from t5x_lite.training import optimizers, schedules
  from t5x_lite.training.learner import Learner
  from t5x_lite.training.steps import Trainer

  module = T5(T5Config(**OURS[variant]))
  spec = features.batch_spec(features.EncoderDecoderFeatures(), {'inputs': 512, 'targets': 114}, batch_size)
  rate = schedules.create_learning_rate_scheduler(factors='constant', base_learning_rate=1e-3)
  trainer = Trainer(Learner(module, optimizers.adafactor(rate), rate), make_mesh(MeshShape()), spec)
  start = time.perf_counter()
  trainer.compile()
  compile_seconds = time.perf_counter() - start
  rng = np.random.default_rng(0)
  host = {
    name: rng.integers(3, 32000, leaf.shape).astype(leaf.dtype) if 'tokens' in name else np.ones(leaf.shape, leaf.dtype)
    for name, leaf in spec.items()
  }
  batch, state = trainer.shard_batch(host), [trainer.init(0)]

  def step() -> None:
    state[0], metrics = trainer.train_step(state[0], batch)
    jax.block_until_ready(metrics)

  seconds = timed_steps(step, steps)
  return {'seconds': seconds, 'compile': compile_seconds, 'flops': module.flops_per_step(spec)}


def peer(batch_size: int, steps: int) -> dict:
  import torch
  import transformers

  config = transformers.T5Config(
    vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, decoder_start_token_id=0
  )
  model = transformers.T5ForConditionalGeneration(config).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
  inputs, labels = (torch.randint(3, 32000, (batch_size, length)) for length in (512, 114))
  mask = torch.ones_like(inputs)

  def step() -> None:
    model(input_ids=inputs, attention_mask=mask, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

  return {'seconds': timed_steps(step, steps)}


def child(args: argparse.Namespace) -> None:
  found = peer(args.batch, args.steps) if args.child == PEER else ours(args.child, args.batch, args.steps)
  found['peak_gib'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(json.dumps(found))


def run(variant: str, args: argparse.Namespace) -> dict:
  python = args.peer_python if variant == PEER else sys.executable
  command = [python, __file__, f'--child={variant}', f'--batch={args.batch}', f'--steps={args.steps}']
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch', type=int, default=4, help='rows of 512 / 114 tokens')
  parser.add_argument('--steps', type=int, default=4, help='timed steps of a round')
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--peer_python', help='a Python with torch and transformers')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    child(args)
    return
  variants = [*OURS, *([PEER] if args.peer_python else [])]
  rounds = [{variant: run(variant, args) for variant in variants} for _ in range(args.rounds)]
  first = statistics.median(second for found in rounds for second in found[variants[0]]['seconds'])
  print(f'T5 small, {args.batch} x 512 / 114, {args.rounds} rounds of {args.steps} steps')
  print(f'{"variant":32} {"s/step":>7} {"ratio":>6} {"compile s":>10} {"GFLOP/s":>8} {"peak GiB":>9}')
  for variant in variants:
    step = statistics.median(second for found in rounds for second in found[variant]['seconds'])
    compiled = [found[variant]['compile'] for found in rounds if 'compile' in found[variant]]
    flops = rounds[0][variants[0]]['flops']
    peak = max(found[variant]['peak_gib'] for found in rounds)
    shown = f'{statistics.median(compiled):10.1f}' if compiled else f'{"-":>10}'
    print(f'{variant:32} {step:7.2f} {step / first:6.2f} {shown} {flops / step / 1e9:8.0f} {peak:9.2f}')


if __name__ == '__main__':
  main()
