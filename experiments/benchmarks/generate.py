"""Tokens a second of generation, compilation left out: this library, or transformers on the same shapes.

    python experiments/benchmarks/generate.py ours t5_small --batch=8 --dtype=bfloat16
    python experiments/benchmarks/generate.py ours gpt2 --batch=1
    python experiments/benchmarks/generate.py hf t5_small --batch=8 --num_beams=4

Random weights of the published sizes; no row ends early. The inputs of T5 small have 128 tokens, the prompts of GPT-2
32; 64 tokens are written. One program, one JSON line: run them in turn, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

SHAPES = {'t5_small': (32000, 128), 'gpt2': (50000, 32)}
NEW = 64


def ours(work: str, ids: np.ndarray, beams: int, dtype: str):
  """A function that writes."""
  import jax
  from flax import linen as nn

  from t5x_lite import stored_models
  from t5x_lite.decoding.config import GenerationConfig
  from t5x_lite.generation import Writer
  from t5x_lite.models.gpt import Gpt, GptConfig
  from t5x_lite.models.t5 import T5, T5Config

  module = T5(T5Config(dtype=dtype)) if work == 't5_small' else Gpt(GptConfig(dtype=dtype))
  batch = stored_models._any_batch()
  params = nn.meta.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, batch)['params'])
  writer = Writer(module, params)
  config = GenerationConfig(max_new_tokens=NEW, num_beams=beams, decoder_start_token_id=0, pad_token_id=0)

  def write() -> int:
    written, _ = writer(list(ids), config)
    return int(written.lengths.sum())

  return write


def hf(work: str, ids: np.ndarray, beams: int, dtype: str):
  """The same of transformers."""
  import torch
  import transformers

  if work == 't5_small':
    config = transformers.T5Config(decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config)
  else:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
  model = model.to(getattr(torch, dtype)).eval()
  tokens = torch.as_tensor(ids, dtype=torch.long)
  options = {'max_new_tokens': NEW, 'min_new_tokens': NEW, 'num_beams': beams, 'do_sample': False, 'pad_token_id': 0}

  def write() -> int:
    with torch.no_grad():
      model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    return len(ids) * NEW

  return write


def main() -> None:
  """Times one of them."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('library', choices=('ours', 'hf'))
  parser.add_argument('work', choices=sorted(SHAPES))
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--num_beams', type=int, default=1)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  vocabulary, length = SHAPES[args.work]
  ids = np.random.default_rng(0).integers(2, vocabulary, (args.batch, length)).astype(np.int32)
  start = time.perf_counter()
  write = (ours if args.library == 'ours' else hf)(args.work, ids, args.num_beams, args.dtype)
  write()
  first = time.perf_counter() - start
  seconds, tokens = [], 0
  for _ in range(args.rounds):
    start = time.perf_counter()
    tokens = write()
    seconds.append(time.perf_counter() - start)
  row = {'library': args.library, 'work': args.work, 'batch': args.batch, 'num_beams': args.num_beams}
  row |= {'dtype': args.dtype, 'tokens': tokens, 'seconds': [round(s, 3) for s in seconds], 'first': round(first, 1)}
  print(json.dumps(row | {'tokens_per_second': round(tokens / min(seconds), 1)}))


if __name__ == '__main__':
  main()
