"""Seconds from the start of a process to its first token, from a stored checkpoint, ours with a filled cache.

    python experiments/benchmarks/first_token.py --transformers_python=PYTHON [--rounds=3]

Each process imports the library, loads T5 small or GPT-2 124M (random weights, as transformers saves them) and writes
one token after one input of 128 or 32 ids. All take turns; round 0 only fills the caches of files and programs. The
limit is the median of transformers and 2 seconds.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

OURS, TRANSFORMERS = 'ours', 'transformers'
LENGTHS = {'t5_small': 128, 'gpt2': 32}
_LIMIT = 2.0  # seconds more than transformers takes


def save(folder: str) -> None:
  """Makes the checkpoints, by transformers."""
  import transformers

  t5 = transformers.T5ForConditionalGeneration(
    transformers.T5Config(decoder_start_token_id=0, pad_token_id=0, architectures=['T5ForConditionalGeneration'])
  )
  t5.save_pretrained(f'{folder}/t5_small')
  transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(f'{folder}/gpt2')


def ours(source: str, ids: list[int]) -> int:
  from t5x_lite import pretrained

  written = pretrained.load_pretrained(source).generate([ids], max_new_tokens=1)
  return int(written.new_ids[0][0])


def transformers(source: str, ids: list[int]) -> int:
  import torch
  from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

  auto = AutoModelForSeq2SeqLM if source.endswith('t5_small') else AutoModelForCausalLM
  model = auto.from_pretrained(source)
  tokens = torch.as_tensor([ids])
  written = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=1, do_sample=False)
  return int(written[0, -1])


def seconds(python: str, whose: str, source: pathlib.Path, environment: dict[str, str]) -> tuple[float, int]:
  """How long one process takes, and the token that it writes."""
  start = time.perf_counter()
  done = subprocess.run(
    [python, __file__, f'--arm={whose}', f'--source={source}'],
    capture_output=True,
    text=True,
    env=os.environ | environment,
    check=False,
  )
  if done.returncode:
    sys.exit(f'{whose} ended with {done.returncode}: {done.stderr[-800:]}')
  return time.perf_counter() - start, int(done.stdout.split()[-1])


def compare(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """Prints the medians of both models."""
  environment = {'JAX_PLATFORMS': 'cpu', 'HF_HUB_OFFLINE': '1', 'CUDA_VISIBLE_DEVICES': ''}
  subprocess.run([args.transformers_python, __file__, '--arm=save', f'--source={folder}'], check=True)
  # As our commands set it.
  environment |= {
    'JAX_COMPILATION_CACHE_DIR': str(folder / 'xla'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }
  pythons = {OURS: sys.executable, TRANSFORMERS: args.transformers_python}
  for model in LENGTHS:
    times: dict[str, list[float]] = {}
    for number in range(args.rounds + 1):
      told = {whose: seconds(pythons[whose], whose, folder / model, environment) for whose in pythons}
      assert len({token for _, token in told.values()}) == 1, told
      for whose, (taken, _) in told.items():
        times.setdefault(whose, []).extend([taken] if number else [])
    medians = {whose: statistics.median(values) for whose, values in times.items()}
    limit = medians[TRANSFORMERS] + _LIMIT
    for whose, middle in medians.items():
      tail = f'  {middle / limit:.2f} of the limit of {limit:.1f} s' if whose == OURS else ''
      print(f'{model:9} {whose:13} {middle:5.1f} s  ({min(times[whose]):.1f} to {max(times[whose]):.1f}){tail}')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--transformers_python', help='a Python with torch and transformers')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--arm', choices=(OURS, TRANSFORMERS, 'save'), help='one process; for the script itself')
  parser.add_argument('--source')
  args = parser.parse_args()
  if args.arm == 'save':
    save(args.source)
  elif args.arm:
    model = pathlib.Path(args.source).name
    ids = [100 + 7 * place for place in range(LENGTHS[model])]
    print({OURS: ours, TRANSFORMERS: transformers}[args.arm](args.source, ids))
  elif not args.transformers_python:
    parser.error('--transformers_python is not given')
  else:
    with tempfile.TemporaryDirectory() as folder:
      compare(args, pathlib.Path(folder))


if __name__ == '__main__':
  main()
