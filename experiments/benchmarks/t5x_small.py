"""T5 small of T5X, for the scripts that time it. Imported where T5X is installed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import seqio
from t5x import adafactor, decoding, models, train_state, trainer
from t5x.examples.t5 import network

VOCABULARY = 32128


def make_model(
  dtype: str, dropout_rate: float, *, eos_id: int = 1, decode: Callable[..., Any] = decoding.beam_search
) -> models.EncoderDecoderModel:
  """The published architecture, with its own Adafactor and a z-loss of 1e-4."""
  config = network.T5Config(
    vocab_size=VOCABULARY,
    dtype=jnp.dtype(dtype),
    emb_dim=512,
    mlp_dim=2048,
    num_heads=8,
    head_dim=64,
    num_encoder_layers=6,
    num_decoder_layers=6,
    mlp_activations=('relu',),
    dropout_rate=dropout_rate,
    logits_via_embedding=True,
  )
  vocabulary = seqio.PassThroughVocabulary(VOCABULARY, eos_id=eos_id)
  rules = adafactor.standard_logical_factor_rules()
  optimizer = adafactor.Adafactor(decay_rate=0.8, step_offset=0, logical_factor_rules=rules)
  return models.EncoderDecoderModel(
    network.Transformer(config), vocabulary, vocabulary, optimizer, decode_fn=decode, z_loss=1e-4
  )


def make_step(
  rows: int, inputs: int, targets: int, *, dtype: str = 'float32', dropout_rate: float = 0.1
) -> tuple[Callable[..., Any], Any, dict[str, jax.Array]]:
  """A step `(state, batch, key) -> (state, metrics)` to be jitted, its first state, and a batch of random tokens.

  Random weights, a rate of 1e-3.
  """
  model = make_model(dtype, dropout_rate)
  rng = np.random.default_rng(0)
  wanted = rng.integers(5, 30000, (rows, targets), dtype=np.int32)
  batch = {
    'encoder_input_tokens': rng.integers(5, 30000, (rows, inputs), dtype=np.int32),
    'decoder_input_tokens': np.pad(wanted, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': wanted,
    'decoder_loss_weights': np.ones_like(wanted),
  }
  arrays = jax.tree.map(jnp.asarray, batch)
  shapes = {name: value.shape for name, value in arrays.items()}
  types = {name: value.dtype for name, value in arrays.items()}
  variables = jax.jit(lambda key: model.get_initial_variables(key, shapes, types))(jax.random.PRNGKey(0))
  state = train_state.FlaxOptimTrainState.create(model.optimizer_def, variables)

  def step(state, batch, key):
    return trainer.train_with_lr(state, batch, jnp.float32(1e-3), key, model, None)

  return step, state, arrays
