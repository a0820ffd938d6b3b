"""The largest in chunks are those that JAX finds, in its order: with ties, infinities and any length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.decoding import largest


def cases(size):
  rng = np.random.default_rng(0)
  drawn = rng.standard_normal((3, size)).astype(np.float32)
  ties = np.round(drawn)
  rare = np.where(rng.random(drawn.shape) < 0.999, -np.inf, drawn)  # fewer that are finite than are wanted
  return np.stack([drawn, ties, rare, np.zeros_like(drawn), np.full_like(drawn, -np.inf), -np.sort(-drawn)])


@pytest.mark.parametrize('size, count', [(3000, 8), (4096, 50), (2049, 1)])
def test_the_largest_are_found_with_the_first_of_equal_ones_first(size, count):
  x = cases(size)
  found, places = jax.jit(functools.partial(largest.top_k, count=count))(x)
  best, expected = jax.lax.top_k(x, count)
  np.testing.assert_array_equal(found, best)
  np.testing.assert_array_equal(places, expected)
  assert places.dtype == expected.dtype == jnp.int32
  np.testing.assert_array_equal(jax.jit(largest.argmax)(x), np.argmax(x, axis=-1))


def test_what_is_short_is_searched_at_once():
  x = jnp.arange(40.0)[None]
  np.testing.assert_array_equal(largest.top_k(x, 30)[1], np.arange(39, 9, -1)[None])
  assert int(largest.argmax(x)[0]) == 39
