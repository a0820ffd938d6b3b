"""The peers of `startup.py`: one training step of T5 small, 4 rows of 512 / 114 random tokens, and the end.

    <python with torch, transformers> experiments/benchmarks/startup_peers.py transformers
    PYTHONPATH=<t5x>:<seqio>:... <python with what T5X needs> experiments/benchmarks/startup_peers.py t5x

Both build the published architecture with random weights and their own optimiser; neither reads data.
"""

from __future__ import annotations

import sys

ROWS, INPUTS, TARGETS, VOCABULARY = 4, 512, 114, 32128
DONE = 'first step done'


def transformers() -> None:
  import torch
  from transformers import Adafactor, T5Config, T5ForConditionalGeneration

  shape = {'d_model': 512, 'd_ff': 2048, 'd_kv': 64, 'num_heads': 8, 'num_layers': 6, 'num_decoder_layers': 6}
  model = T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **shape))
  optimizer = Adafactor(model.parameters(), lr=1e-3, relative_step=False)
  inputs, labels = (torch.randint(2, VOCABULARY, (ROWS, length)) for length in (INPUTS, TARGETS))
  model.train()
  loss = model(input_ids=inputs, labels=labels).loss
  loss.backward()
  optimizer.step()
  print(f'{DONE}, loss {loss.item():.3f}', flush=True)


def t5x() -> None:
  import jax
  import t5x_small

  step, state, batch = t5x_small.make_step(ROWS, INPUTS, TARGETS)
  state, metrics = jax.jit(step, donate_argnums=0)(state, batch, jax.random.PRNGKey(1))
  jax.block_until_ready(state)
  print(f'{DONE}, loss {float(metrics["loss"].total) / (ROWS * TARGETS):.3f}', flush=True)


if __name__ == '__main__':
  {'transformers': transformers, 't5x': t5x}[sys.argv[1]]()
