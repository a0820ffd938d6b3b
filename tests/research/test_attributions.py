"""Attributions: exact where the exact ones are known, and complete."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.nn.intermediates import VECTORS
from t5x_lite.research import attributions

RNG = np.random.default_rng(0)
INPUT, BASE = (jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32) for _ in range(2))
WEIGHTS = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)


def linear(vectors):
  return jnp.einsum('btd,td->b', vectors, WEIGHTS)


def cubic(vectors):
  return jnp.sum(vectors**3 * WEIGHTS, axis=(1, 2))


def test_of_a_linear_function_both_methods_find_its_terms():
  terms = np.einsum('btd,td->bt', INPUT, WEIGHTS)
  np.testing.assert_allclose(attributions.gradients_times_input(linear, INPUT), terms, rtol=1e-5)
  of_base = np.einsum('btd,td->bt', BASE, WEIGHTS)
  np.testing.assert_allclose(attributions.integrated_gradients(linear, INPUT, BASE, 1), terms - of_base, atol=1e-5)


def test_two_points_are_exact_for_a_cubic_whose_terms_are_apart():
  expected = np.sum((INPUT**3 - BASE**3) * WEIGHTS, axis=2)
  np.testing.assert_allclose(attributions.integrated_gradients(cubic, INPUT, BASE, 2), expected, rtol=1e-4, atol=1e-5)
  assert np.max(np.abs(attributions.integrated_gradients(cubic, INPUT, BASE, 1) - expected)) > 1e-2


def test_what_a_score_does_not_read_gets_nothing_and_baselines_get_nothing():
  found = attributions.integrated_gradients(lambda x: jnp.sum(jnp.tanh(x[:, :2]), axis=(1, 2)), INPUT, BASE, 4)
  assert np.all(np.asarray(found)[:, 2] == 0) and np.all(np.asarray(found)[:, :2] != 0)
  found = attributions.integrated_gradients(cubic, INPUT, INPUT.at[:, 1].set(0.0), 4)
  assert np.all(np.asarray(found)[:, [0, 2]] == 0)


def test_several_arrays_of_vectors_are_attributed_together():
  score = lambda given: cubic(given['encoder']) * linear(given['decoder'])  # noqa: E731
  own, base = {'encoder': INPUT, 'decoder': BASE}, {'encoder': BASE, 'decoder': INPUT}
  found = attributions.attribute(attributions.INTEGRATED, score, own, base, 3)
  np.testing.assert_allclose(found.gap, 0, atol=2e-4)
  total = sum(np.sum(each, axis=1) for each in found.attributions.values())
  np.testing.assert_allclose(total, found.score - found.baseline_score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('steps', [2, 96])
def test_integrated_gradients_of_a_model_are_complete_with_enough_points(steps):
  config = GptConfig(vocab_size=30, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_layers=1, max_length=8)
  model, tokens = Gpt(config), jnp.asarray([[3, 4, 5, 6]], jnp.int32)
  batch = {'decoder_input_tokens': tokens, 'decoder_segment_ids': jnp.ones_like(tokens)}
  batch['decoder_positions'] = jnp.arange(4, dtype=jnp.int32)[None]
  params = nn.unbox(jax.jit(model.init)({'params': jax.random.key(0)}, batch))['params']
  params = jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, params)

  @jax.jit
  def run(params):
    _, own = model.apply({'params': params}, batch, mutable=(VECTORS,))
    base = jax.tree.map(jnp.zeros_like, own)
    score = lambda given: model.apply({'params': params, **given}, batch)[:, -1, 7]  # noqa: E731
    return attributions.attribute(attributions.INTEGRATED, score, own, base, steps)

  found = run(params)
  whole = abs(float(found.score[0] - found.baseline_score[0]))
  assert whole > 1e-2
  assert (abs(float(found.gap[0])) < 1e-3 * whole) == (steps > 2)
