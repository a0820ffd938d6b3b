import math

import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.training import evaluate, processes


def batch(targets, weights):
  return {
    'decoder_target_tokens': np.asarray(targets, np.int32),
    'decoder_loss_weights': np.asarray(weights, np.float32),
  }


def unigram_step(params, rows):
  """Scores every target with fixed log-probabilities, the "parameters"."""
  weights = rows['decoder_loss_weights']
  nll = -jnp.sum(params[rows['decoder_target_tokens']] * weights)
  zero = jnp.zeros((), jnp.float32)
  return {'loss_sum': nll, 'nll_sum': nll, 'weight_sum': jnp.sum(weights), 'correct_sum': zero, 'tokens': zero}


def to_device(rows):
  return {name: jnp.asarray(value) for name, value in rows.items()}


@pytest.fixture
def batches():
  rng = np.random.default_rng(0)
  sizes = [8, 8, 8, 8, 8, 3]
  return [
    batch(rng.choice(6, (n, 5), p=[0.4, 0.2, 0.2, 0.1, 0.06, 0.04]), rng.random((n, 5)) > 0.3 * (n > 3)) for n in sizes
  ]


def test_means_are_over_all_tokens_and_not_means_of_means(batches):
  log_probs = jnp.log(jnp.asarray([0.3, 0.3, 0.2, 0.1, 0.05, 0.05], jnp.float32))
  found = evaluate.evaluate(unigram_step, log_probs, iter(batches), to_device)
  targets = np.concatenate([b['decoder_target_tokens'].ravel() for b in batches])
  weights = np.concatenate([b['decoder_loss_weights'].ravel() for b in batches])
  expected = -(np.asarray(log_probs)[targets] * weights).sum() / weights.sum()
  assert found['loss'] == pytest.approx(expected, rel=1e-6)
  assert found['perplexity'] == pytest.approx(math.exp(expected), rel=1e-6)
  assert found['target_tokens'] == weights.sum()
  assert found['accuracy'] == 0.0


def test_max_steps_caps_the_pass(batches):
  log_probs = jnp.log(jnp.full(6, 1 / 6, jnp.float32))
  capped = evaluate.evaluate(unigram_step, log_probs, iter(batches), to_device, max_steps=2)
  assert capped['target_tokens'] == sum(b['decoder_loss_weights'].sum() for b in batches[:2])


@pytest.mark.parametrize('empty', [[], [batch([[1, 2]], [[0, 0]])]])
def test_nothing_to_predict_is_an_error_and_not_nan(empty):
  with pytest.raises(UsageError, match='no target tokens'):
    evaluate.evaluate(unigram_step, jnp.zeros(6, jnp.float32), iter(empty), to_device)
  with pytest.raises(UsageError, match='no target tokens'):
    evaluate.unigram_entropy(empty)


def test_no_context_free_model_beats_the_unigram_entropy_and_the_true_frequencies_reach_it(batches):
  entropy = evaluate.unigram_entropy(batches)
  counts = sum(np.bincount(b['decoder_target_tokens'].ravel(), b['decoder_loss_weights'].ravel(), 6) for b in batches)
  frequencies = counts / counts.sum()
  best = evaluate.evaluate(unigram_step, jnp.log(jnp.asarray(frequencies, jnp.float32)), iter(batches), to_device)
  assert best['loss'] == pytest.approx(entropy, rel=1e-5)
  rng = np.random.default_rng(1)
  for _ in range(5):
    other = rng.dirichlet(np.ones(6))
    loss = evaluate.evaluate(unigram_step, jnp.log(jnp.asarray(other, jnp.float32)), iter(batches), to_device)['loss']
    assert loss > entropy


def test_unigram_entropy_of_equal_frequencies_is_the_log_of_their_number():
  assert evaluate.unigram_entropy([batch([[3, 7], [9, 11]], [[1, 1], [1, 1]])]) == pytest.approx(math.log(4))
  assert evaluate.unigram_entropy([batch([[3, 3], [3, 9]], [[1, 1], [1, 0]])]) == 0.0


def test_what_the_first_process_makes_no_other_makes(monkeypatch):
  made = []

  def make():
    made.append(2.5)
    return made[-1]

  assert processes.made_by_primary(make) == 2.5
  monkeypatch.setattr(processes, 'is_primary', lambda: False)
  monkeypatch.setattr(processes, 'gather', lambda value: [made[0], value])
  assert processes.made_by_primary(make) == 2.5
  assert made == [2.5]
