"""Normalisers as T5X has them, and microbatches that change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core.errors import UsageError
from t5x_lite.metrics import sums as metric_sums
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.training import learner as learner_lib
from t5x_lite.training import optimizers

NORMALIZERS = [None, 233472.0, 'NUM_REAL_TARGET_TOKENS', 'NUM_TOTAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE']


@pytest.fixture(scope='module')
def params(tiny_lm, packed_batch):
  init = jax.jit(lambda key: nn.unbox(tiny_lm().init({'params': key}, packed_batch(8)))['params'])
  return init(jax.random.key(0))


@pytest.fixture
def make(tiny_lm):
  """`make(**settings)`: a learner of the tiny model."""
  return lambda dropout_rate=0.0, **settings: learner_lib.Learner(
    tiny_lm(dropout_rate=dropout_rate), optimizers.sgd(0.1), 0.1, **settings
  )


def objective_by_hand(token_loss, batch, normalizer):
  """Sums over Python loops."""
  weights, segments = batch['decoder_loss_weights'], batch['decoder_segment_ids']
  total = float(np.sum(token_loss * weights))
  if normalizer == 'NUM_REAL_TARGET_TOKENS':
    return total / weights.sum()
  if normalizer == 'NUM_TOTAL_TARGET_TOKENS':
    return total / weights.size
  if normalizer == 'AVERAGE_PER_SEQUENCE':
    means = []
    for row in range(len(weights)):
      for segment in range(1, segments[row].max() + 1):
        here = segments[row] == segment
        if weights[row, here].sum() > 0:
          means.append(np.sum(token_loss[row, here] * weights[row, here]) / weights[row, here].sum())
    return np.mean(means)
  return total / (normalizer or 1.0)


@pytest.mark.parametrize('normalizer', [*NORMALIZERS, 'average_per_sequence'])
def test_objective_is_normalised_as_in_t5x(packed_batch, normalizer):
  batch = packed_batch(8)
  batch['decoder_loss_weights'][0, batch['decoder_segment_ids'][0] == 2] = 0.0  # a sequence of no weight counts nothing
  token_loss = np.random.default_rng(0).normal(3.0, 1.0, (8, 12))
  weights, total = learner_lib.objective_weights(jax.tree.map(jnp.asarray, batch), normalizer)
  expected = objective_by_hand(token_loss, batch, normalizer.upper() if isinstance(normalizer, str) else normalizer)
  np.testing.assert_allclose(np.sum(token_loss * np.asarray(weights)) / total, expected, rtol=1e-5)


@pytest.mark.parametrize('normalizer', [None, 'NUM_REAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE'])
def test_microbatches_equal_one_batch(make, params, packed_batch, normalizer):
  """Rows hold different numbers of tokens, so a normaliser per microbatch would show."""
  batch = packed_batch(8)
  whole, parts = (
    jax.jit(make(loss_normalizing_factor=normalizer, z_loss=1e-2, num_microbatches=count).gradients)(
      params, batch, jax.random.key(1)
    )
    for count in (1, 4)
  )
  scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(whole[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * scale), parts[0], whole[0])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), parts[1:], whole[1:])
  _, objective, sums = whole
  np.testing.assert_allclose(sums.weight, batch['decoder_loss_weights'].sum(), rtol=1e-6)
  assert (objective == sums.loss) == (normalizer is None)  # the sums are never normalised


def test_microbatches_have_dropout_of_their_own(make, params, packed_batch):
  """Two microbatches of the same rows: with one key for both, their sum would be twice the one."""
  batch = packed_batch(8)
  twice = {name: np.repeat(rows, 2, axis=0) for name, rows in batch.items()}
  gradients = jax.jit(make(dropout_rate=0.5, num_microbatches=2).gradients)
  first, again, other = (gradients(params, twice, jax.random.key(key))[1] for key in (1, 1, 2))
  one = jax.jit(make(dropout_rate=0.5).gradients)(params, batch, jax.random.key(1))[1]
  assert first == again
  assert first != other
  assert abs(float(first) - 2 * float(one)) > 1e-3


def test_microbatches_take_every_nth_row():
  rows = {'x': np.arange(12).reshape(6, 2)}
  parts = learner_lib.split_microbatches(jax.tree.map(jnp.asarray, rows), 3)
  np.testing.assert_array_equal(parts['x'][1], rows['x'][1::3])


@pytest.mark.parametrize('normalizer', NORMALIZERS)
def test_a_batch_of_padding_costs_nothing(packed_batch, normalizer):
  batch = packed_batch(8)
  batch['decoder_loss_weights'][:] = 0.0
  weights, total = learner_lib.objective_weights(jax.tree.map(jnp.asarray, batch), normalizer)
  assert not np.any(np.asarray(weights))
  assert total > 0


@pytest.mark.parametrize(
  ('settings', 'words'),
  [
    ({'loss_normalizing_factor': 'NUM_REAL_TARGET_TOKEN'}, "did you mean 'NUM_REAL_TARGET_TOKENS'"),
    ({'loss_normalizing_factor': 0.0}, 'expected a positive number'),
    ({'label_smoothing': 1.0}, 'label_smoothing=1.0'),
    ({'z_loss': -1e-4}, 'z_loss=-0.0001'),
    ({'num_microbatches': 0}, 'num_microbatches=0'),
    ({'vocab_chunk': 0}, 'vocab_chunk=0'),
  ],
)
def test_bad_settings_are_named(make, settings, words):
  with pytest.raises(UsageError, match=words):
    make(**settings)


def test_microbatches_must_divide_the_batch(make, params, packed_batch):
  with pytest.raises(UsageError, match='num_microbatches=3 does not divide a batch of 8 rows'):
    make(num_microbatches=3).gradients(params, packed_batch(8), jax.random.key(0))


@pytest.mark.parametrize('normalizer', [pytest.param(None, marks=pytest.mark.slow), 'NUM_REAL_TARGET_TOKENS'])
def test_what_layers_add_counts_once_for_every_target_and_reaches_the_router(packed_batch, normalizer):
  sizes = {'vocab_size': 24, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 8, 'num_layers': 2}
  batch = packed_batch(8)

  def run(weight):
    module = Gpt(GptConfig(**sizes, max_length=16, num_experts=4, load_balancing_loss=weight, dropout_rate=0.0))
    learner = learner_lib.Learner(module, optimizers.sgd(0.1), 0.1, loss_normalizing_factor=normalizer)
    params = nn.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, batch))['params']
    grads, objective, sums = jax.jit(learner.gradients)(params, batch, jax.random.key(1))
    return grads['blocks']['layers']['mlp']['router'], objective, sums

  plain_router, plain, plain_sums = run(0.0)
  router, objective, sums = run(0.5)
  np.testing.assert_allclose(sums.loss, plain_sums.loss, rtol=1e-6)  # what is reported is the loss of the targets
  per_target = 1.0 if normalizer else float(sums.weight)
  # Two layers, each adding its weight times a number that is about 1 where the shares are about even.
  added = (objective - plain) / per_target
  assert 0.8 < added < 2.5
  assert np.max(np.abs(router - plain_router)) > 1e-3 * per_target


# --- Labels of examples: BERT's next sentence -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def pairs():
  """Eight rows of pairs, two in every other row, with the labels at their first positions."""
  rng = np.random.default_rng(0)
  segments = np.ones((8, 12), np.int32)
  segments[::2, 6:] = 2
  segments[:, 11] = 0
  first = np.diff(segments, axis=1, prepend=0) > 0
  return {
    'encoder_input_tokens': rng.integers(1, 32, (8, 12), np.int32),
    'encoder_target_tokens': rng.integers(1, 32, (8, 12), np.int32),
    'encoder_loss_weights': (rng.random((8, 12)) < 0.3).astype(np.float32) * (segments > 0),
    'encoder_segment_ids': segments,
    'encoder_positions': np.where(segments == 2, np.arange(12) - 6, np.arange(12)).astype(np.int32),
    'encoder_token_type_ids': (np.arange(12) % 6 > 3).astype(np.int32) * np.ones((8, 1), np.int32),
    'encoder_label': rng.integers(0, 2, (8, 12), np.int32) * first,
    'encoder_label_weights': first.astype(np.float32),
  }


def bert_learner(heads=('mlm', 'nsp'), **settings):
  module = Bert(BertConfig(32, 16, 2, mlp_dim=32, num_layers=1, max_length=12, heads=heads, dropout_rate=0.0))
  return learner_lib.Learner(
    module, optimizers.sgd(0.1), 0.1, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS', **settings
  )


@pytest.fixture(scope='module')
def bert_params(pairs):
  return nn.unbox(jax.jit(bert_learner().module.init)({'params': jax.random.key(0)}, pairs)['params'])


def test_the_loss_is_the_mean_over_tokens_plus_the_mean_over_labels(pairs, bert_params):
  learner = bert_learner()
  _, objective, sums = jax.jit(learner.gradients)(bert_params, pairs, jax.random.key(1))
  assert sums.labels.weight == 12
  expected = sums.loss / sums.weight + sums.labels.loss / 12
  np.testing.assert_allclose(objective, expected, rtol=1e-5)
  means = metric_sums.finalise(jax.jit(learner.sums)(bert_params, pairs).named())
  np.testing.assert_allclose(means['label_loss'], sums.labels.loss / 12, rtol=1e-5)
  assert 0.0 <= means['label_accuracy'] <= 1.0 and means['accuracy'] != means['label_accuracy']


def test_the_label_of_an_example_depends_on_that_example_alone(pairs, bert_params):
  """Of a row with two pairs, the second is as if it had the row to itself."""
  sums = jax.jit(bert_learner().sums)
  alone = {name: np.zeros_like(array) for name, array in pairs.items()}
  for name, array in pairs.items():
    alone[name][::2, :5] = array[::2, 6:11]
    alone[name][1::2] = array[1::2]
  alone['encoder_segment_ids'] = (alone['encoder_segment_ids'] > 0).astype(np.int32)
  second = {**pairs, 'encoder_label_weights': pairs['encoder_label_weights'].copy()}
  second['encoder_label_weights'][::2, 0] = 0.0
  packed, apart = sums(bert_params, second).labels, sums(bert_params, alone).labels
  assert packed.weight == apart.weight == 8
  np.testing.assert_allclose(packed.loss, apart.loss, rtol=1e-5)


def test_microbatches_of_labels_equal_one_batch(pairs, bert_params):
  whole, parts = (
    jax.jit(learner.gradients)(bert_params, pairs, jax.random.key(1))
    for learner in (bert_learner(), bert_learner(num_microbatches=4))
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)
  assert np.abs(whole[0]['heads']['nsp']['kernel']).max() > 1e-3


def test_labels_need_a_head(pairs, bert_params):
  with pytest.raises(UsageError, match='examples have labels, and Bert no head for them: expected nsp'):
    bert_learner(heads=('mlm',)).sums({k: v for k, v in bert_params.items() if k != 'heads'}, pairs)
