"""The arms of `generate.py`, each in a process of its own, in the Python that has what it needs.

    PYTHON experiments/benchmarks/generate_arms.py ours --model=t5_small --batch=8 --num_beams=4 --dtype=float32

Random weights of the published sizes, random inputs; no row ends early. One line of JSON: seconds of every repetition
after the first, which compiles, and seconds of that one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

OURS, TRANSFORMERS, T5X = ARMS = ('ours', 'transformers', 'T5X')
SHAPES = {'t5_small': (32000, 128), 'gpt2': (50000, 32)}  # ids, and length of the inputs
NEW = 64

Write = Callable[[], object]


def ours(args: argparse.Namespace, ids: np.ndarray) -> tuple[Write, str]:
  """What writes, and versions."""
  import jax

  from t5x_lite.decoding.config import GenerationConfig
  from t5x_lite.generation import Writer
  from t5x_lite.models.gpt import Gpt, GptConfig
  from t5x_lite.models.t5 import T5, T5Config

  module = T5(T5Config(dtype=args.dtype)) if args.model == 't5_small' else Gpt(GptConfig(dtype=args.dtype))
  sides = ('encoder', 'decoder') if args.model == 't5_small' else ('decoder',)
  names = ('input_tokens', 'target_tokens', 'segment_ids', 'positions')
  batch = {f'{side}_{name}': np.zeros((1, 2), np.int32) for side in sides for name in names}
  from flax import linen as nn

  params = nn.meta.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, batch)['params'])
  config = GenerationConfig(
    max_new_tokens=NEW, num_beams=args.num_beams, decoder_start_token_id=0, pad_token_id=0, eos_token_id=None
  )
  writer = Writer(module, params)

  def write() -> None:
    written, _ = writer(list(ids), config)
    assert int(written.lengths.sum()) >= ids.shape[0] * NEW, written.lengths

  return write, f'jax {jax.__version__}'


def transformers(args: argparse.Namespace, ids: np.ndarray) -> tuple[Write, str]:
  import torch
  import transformers

  if args.model == 't5_small':
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(decoder_start_token_id=0))
  else:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
  model = model.to(getattr(torch, args.dtype)).eval()
  tokens = torch.as_tensor(ids, dtype=torch.long)
  options = {'max_new_tokens': NEW, 'min_new_tokens': NEW, 'num_beams': args.num_beams, 'do_sample': False}

  def write() -> None:
    with torch.no_grad():
      written = model.generate(tokens, attention_mask=torch.ones_like(tokens), pad_token_id=0, **options)
    assert written.shape[-1] >= NEW, written.shape

  return write, f'torch {torch.__version__}, transformers {transformers.__version__}'


def t5x(args: argparse.Namespace, ids: np.ndarray) -> tuple[Write, str]:
  """T5X's own model and decoding: temperature 0 of its sampler, or its beam search; jitted, on one device."""
  import functools

  import jax
  import jax.numpy as jnp
  import t5x_small
  from t5x import decoding

  greedy = functools.partial(decoding.temperature_sample, temperature=0.0, topk=1)
  model = t5x_small.make_model(
    args.dtype, 0.0, eos_id=t5x_small.VOCABULARY - 1, decode=greedy if args.num_beams == 1 else decoding.beam_search
  )
  batch = {
    'encoder_input_tokens': jnp.asarray(ids),
    'decoder_input_tokens': jnp.zeros((ids.shape[0], NEW), jnp.int32),
  }
  shapes = {name: value.shape for name, value in batch.items()}
  types = {name: value.dtype for name, value in batch.items()}
  variables = jax.jit(lambda key: model.get_initial_variables(key, shapes, types))(jax.random.PRNGKey(0))
  key = jax.random.PRNGKey(0)

  @jax.jit
  def predict(params, batch):
    return model.predict_batch_with_aux(params, batch, rng=key, num_decodes=args.num_beams)

  def write() -> None:
    jax.block_until_ready(predict(variables['params'], batch))

  return write, f'T5X on jax {jax.__version__}'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('arm', choices=ARMS)
  parser.add_argument('--model', choices=sorted(SHAPES), required=True)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument('--num_beams', type=int, default=1)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--repetitions', type=int, default=3)
  args = parser.parse_args()
  vocabulary, length = SHAPES[args.model]
  ids = np.random.default_rng(0).integers(2, vocabulary, (args.batch, length)).astype(np.int32)
  start = time.perf_counter()
  write, versions = {OURS: ours, TRANSFORMERS: transformers, T5X: t5x}[args.arm](args, ids)
  write()
  first, seconds = time.perf_counter() - start, []
  for _ in range(args.repetitions):
    start = time.perf_counter()
    write()
    seconds.append(round(time.perf_counter() - start, 3))
  print(json.dumps({'seconds': seconds, 'first': round(first, 1), 'versions': versions}))


if __name__ == '__main__':
  main()
