"""Logits at predicted positions alone: the same losses, gradients and metrics as with all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.training import learner as learner_lib
from t5x_lite.training import optimizers

SMALL = {'vocab_size': 32, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 48, 'num_layers': 2}
ROWS, LENGTH, MOST = 4, 16, 5


def bert_batch():
  rng = np.random.default_rng(0)
  segments = np.repeat([[1] * 8 + [2] * 6 + [0] * 2], ROWS, 0)
  weights = np.zeros((ROWS, LENGTH), np.float32)
  for row, count in enumerate((MOST, 0, 1, 3)):  # a full row, and one that predicts nothing
    weights[row, rng.choice(14, count, replace=False)] = 1.0
  label_weights = np.zeros((ROWS, LENGTH), np.float32)
  label_weights[:, [0, 8]] = 1.0
  integers = {
    'encoder_input_tokens': rng.integers(1, 32, (ROWS, LENGTH)),
    'encoder_target_tokens': rng.integers(1, 32, (ROWS, LENGTH)),
    'encoder_segment_ids': segments,
    'encoder_positions': np.repeat([[*range(8), *range(6), 0, 0]], ROWS, 0),
    'encoder_token_type_ids': np.zeros((ROWS, LENGTH)),
    'encoder_label': rng.integers(0, 2, (ROWS, LENGTH)),
  }
  batch = {name: jnp.asarray(array, jnp.int32) for name, array in integers.items()}
  return batch | {'encoder_loss_weights': jnp.asarray(weights), 'encoder_label_weights': jnp.asarray(label_weights)}


def xlnet_batch():
  names = ('input_tokens', 'target_tokens', 'segment_ids', 'positions', 'token_type_ids', 'loss_weights')
  bert = bert_batch()
  batch = {f'decoder_{name}': bert[f'encoder_{name}'] for name in names}
  predicted = (batch['decoder_loss_weights'] > 0).astype(jnp.int32)
  return batch | {'decoder_order': jnp.cumsum(predicted, axis=1) * predicted}


CASES = {
  'bert': (lambda: Bert(BertConfig(max_length=LENGTH, dropout_rate=0.1, **SMALL)), bert_batch),
  'xlnet': (lambda: Xlnet(XlnetConfig(dropout_rate=0.1, **SMALL)), xlnet_batch),
}


@pytest.fixture(scope='module', params=CASES)
def case(request):
  """`(learner, parameters, batch)`."""
  make, make_batch = CASES[request.param]
  module, batch = make(), make_batch()
  params = jax.jit(lambda key: nn.unbox(module.init({'params': key}, batch))['params'])(jax.random.key(0))
  return learner_lib.Learner(module, optimizers.sgd(0.1), 0.1, z_loss=1e-2, label_smoothing=0.1), params, batch


@pytest.mark.slow
@pytest.mark.parametrize('normalizer', [None, 'NUM_TOTAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE'])
def test_losses_gradients_and_metrics_are_those_of_all_positions(case, normalizer):
  learner, params, batch = case
  learner = dataclasses.replace(learner, loss_normalizing_factor=normalizer)
  all_of_them, some = (
    jax.jit(dataclasses.replace(learner, max_predictions=most).gradients)(params, batch, jax.random.key(1))
    for most in (None, MOST)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), some, all_of_them)


def test_only_the_logits_that_are_needed_are_computed(case):
  learner, params, batch = case
  step = jax.jit(dataclasses.replace(learner, max_predictions=MOST).gradients)
  text = step.lower(params, batch, jax.random.key(1)).as_text()
  assert f'tensor<{ROWS}x{MOST}x32xf32>' in text
  assert f'tensor<{ROWS}x{LENGTH}x32xf32>' not in text


def test_a_row_with_more_predictions_than_allowed_is_not_silently_cut(case):
  learner, params, batch = case
  gradients = jax.jit(dataclasses.replace(learner, max_predictions=MOST - 1).gradients)
  _, objective, _ = gradients(params, batch, jax.random.key(1))
  assert not np.isfinite(objective)


def test_evaluation_takes_any_number_of_predictions(case):
  learner, params, batch = case
  bounded = jax.jit(dataclasses.replace(learner, max_predictions=1).sums)(params, batch)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), bounded, jax.jit(learner.sums)(params, batch))
