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
  import jax.numpy as jnp
  import numpy as np
  import seqio
  from t5x import adafactor, models, train_state, trainer
  from t5x.examples.t5 import network

  config = network.T5Config(
    vocab_size=VOCABULARY,
    emb_dim=512,
    mlp_dim=2048,
    num_heads=8,
    head_dim=64,
    num_encoder_layers=6,
    num_decoder_layers=6,
    mlp_activations=('relu',),
    logits_via_embedding=True,
  )
  vocabulary = seqio.PassThroughVocabulary(VOCABULARY, eos_id=1)
  rules = adafactor.standard_logical_factor_rules()
  optimizer = adafactor.Adafactor(decay_rate=0.8, step_offset=0, logical_factor_rules=rules)
  model = models.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary, optimizer, z_loss=1e-4)
  rng = np.random.default_rng(0)
  targets = rng.integers(2, VOCABULARY, (ROWS, TARGETS), dtype=np.int32)
  batch = {
    'encoder_input_tokens': rng.integers(2, VOCABULARY, (ROWS, INPUTS), dtype=np.int32),
    'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': targets,
    'decoder_loss_weights': np.ones_like(targets),
  }
  shapes = {name: value.shape for name, value in batch.items()}
  types = {name: jnp.dtype(value.dtype) for name, value in batch.items()}
  variables = jax.jit(lambda key: model.get_initial_variables(key, shapes, types))(jax.random.PRNGKey(0))
  state = train_state.FlaxOptimTrainState.create(optimizer, variables)

  def step(state, batch, key):
    return trainer.train_with_lr(state, batch, jnp.float32(1e-3), key, model, None)

  state, metrics = jax.jit(step, donate_argnums=0)(state, batch, jax.random.PRNGKey(1))
  jax.block_until_ready(state)
  print(f'{DONE}, loss {float(metrics["loss"].total) / targets.size:.3f}', flush=True)


if __name__ == '__main__':
  {'transformers': transformers, 't5x': t5x}[sys.argv[1]]()
