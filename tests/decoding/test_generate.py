"""Greedy decoding against the definition: at every step the likeliest continuation of all that was written."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.decoding.generate import generate_from_encoder
from t5x_lite.models.t5 import T5, T5Config


def by_rereading(model, variables, batch, length, eos_id):
  """Greedy output without a cache: the whole prefix is read again for each token."""
  rows = batch['encoder_input_tokens'].shape[0]
  apply = jax.jit(model.apply)
  written = np.zeros((rows, length + 1), np.int32)
  ended = np.zeros(rows, bool)
  for t in range(length):
    full = {**batch, 'decoder_input_tokens': written, 'decoder_segment_ids': np.ones_like(written)}
    token = np.asarray(apply(variables, full))[:, t].argmax(-1)
    written[:, t + 1] = np.where(ended, 0, token)
    ended |= token == eos_id
  return written[:, 1:]


@pytest.mark.parametrize('seed', [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_greedy_equals_rereading_the_prefix(seed):
  config = T5Config(
    vocab_size=12, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32, num_encoder_layers=1, num_decoder_layers=2
  )
  model, rng = T5(config), np.random.default_rng(seed)
  batch = {
    'encoder_input_tokens': rng.integers(2, 12, (6, 7)).astype(np.int32),
    'encoder_segment_ids': np.ones((6, 7), np.int32),
  }
  batch['encoder_segment_ids'][2, 4:] = 0
  full = {
    **batch,
    'decoder_input_tokens': batch['encoder_input_tokens'],
    'decoder_segment_ids': np.ones((6, 7), np.int32),
  }
  variables = nn.unbox(jax.jit(model.init)({'params': jax.random.key(seed)}, full))
  variables = jax.tree.map(lambda x: 3 * x, variables)  # far from uniform
  expected = by_rereading(model, variables, batch, 10, eos_id=5)
  got = jax.jit(lambda p, b: generate_from_encoder(model, p, b, max_length=10, eos_id=5))(variables['params'], batch)
  np.testing.assert_array_equal(got, expected)
