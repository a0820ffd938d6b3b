"""T5's position buckets against the published numbers, and the vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.nn.positions import (
  LearnedPositions,
  RelativeBias,
  RelativePositionBias,
  relative_position_bucket,
  sinusoidal_positions,
)


def test_buckets_of_the_decoder():
  distance = jnp.arange(0, 200, dtype=jnp.int32)
  buckets = np.asarray(relative_position_bucket(-distance, bidirectional=False))
  np.testing.assert_array_equal(buckets[:16], np.arange(16))  # exact up to 15
  assert buckets[127] == 31 and np.all(buckets[128:] == 31) and buckets[112] == 30 + 1 * (buckets[112] == 31)
  assert np.all(np.diff(buckets) >= 0)
  assert np.all(relative_position_bucket(distance, bidirectional=False) == 0)  # the future has no bucket of its own


def test_buckets_of_the_encoder():
  distance = jnp.arange(1, 300, dtype=jnp.int32)
  past = np.asarray(relative_position_bucket(-distance, bidirectional=True))
  future = np.asarray(relative_position_bucket(distance, bidirectional=True))
  np.testing.assert_array_equal(future, past + 16)
  np.testing.assert_array_equal(past[:7], np.arange(1, 8))
  # From transformers' T5Attention._relative_position_bucket at distances 8, 16, 32, 64, 90, 91, 128.
  np.testing.assert_array_equal(past[[7, 15, 31, 63, 89, 90, 127]], [8, 10, 12, 14, 14, 15, 15])


def test_bias_depends_on_the_distance_alone():
  module = RelativePositionBias(num_heads=2, bidirectional=True)
  structure, _ = module.init_with_output(jax.random.key(0))
  bias = np.asarray(structure.materialise(40, 40))
  assert bias.shape == (1, 2, 40, 40)
  for distance in (-5, 0, 3):
    diagonal = np.diagonal(bias[0], distance, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, np.broadcast_to(diagonal[:, :1], diagonal.shape))
  np.testing.assert_allclose(structure.materialise(2, 40, offset=7), bias[:, :, 7:9])
  distances = np.asarray(structure.by_distance(40, 40))
  np.testing.assert_allclose(distances[:, 39 + 3], bias[0, :, 5, 8])
  np.testing.assert_allclose(structure.by_distance(2, 40, offset=7), distances[:, 39 - 8 : 39 - 8 + 41])


def test_sinusoids_are_rotated_by_a_shift():
  """What they were made for: the vector at p + k is a fixed rotation of the one at p (Vaswani 2017, sec. 3.5)."""
  table = np.asarray(sinusoidal_positions(jnp.arange(50, dtype=jnp.int32), 8), np.float64)
  sine, cosine = table[:, :4], table[:, 4:]
  for shift in (1, 7):
    s, c = sine[shift], cosine[shift]
    np.testing.assert_allclose(sine[:-shift] * c + cosine[:-shift] * s, sine[shift:], atol=1e-5)


def test_learned_positions_look_up_their_row():
  module = LearnedPositions(max_length=12, features=4)
  out, params = module.init_with_output(jax.random.key(0), jnp.array([[0, 5, 5]], jnp.int32))
  table = np.asarray(params['params']['table']['embedding'].unbox())
  np.testing.assert_array_equal(out[0], table[[0, 5, 5]])


@pytest.mark.parametrize(
  ('queries', 'keys', 'offset'), [(5, 5, 0), (4, 9, 0), (9, 4, 0), (1, 7, 3), (2, 6, 4), (3, 1, 0)]
)
def test_the_bias_of_a_place_is_that_of_its_distance(queries, keys, offset):
  table = jnp.asarray(np.random.default_rng(0).standard_normal((2, 32)), jnp.float32)
  weights = jnp.asarray(np.random.default_rng(1).standard_normal((1, 2, queries, keys)), jnp.float32)
  distances = np.arange(keys)[None] - np.arange(queries)[:, None] - offset

  def by_place(table):
    bias = RelativeBias(table, bidirectional=True).materialise(queries, keys, offset)
    return jnp.sum(bias * weights), bias

  def by_distance(table):
    bias = RelativeBias(table, bidirectional=True).of(jnp.asarray(distances, jnp.int32))[None]
    return jnp.sum(bias * weights), bias

  (found, expected) = (jax.value_and_grad(f, has_aux=True)(table) for f in (by_place, by_distance))
  np.testing.assert_array_equal(found[0][1], expected[0][1])
  np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)
