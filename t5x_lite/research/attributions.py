"""How much each token of an input adds to what a model says of it.

By gradients times inputs (Shrikumar et al. 2016), or by integrated gradients (Sundararajan et al. 2017): the gradient
along the straight line from a baseline to the input, times their difference. Those are complete: they sum to the score
of the input less that of the baseline (proposition 1), which `Attributed.gap` measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

GRADIENTS = 'gradients_times_input'
INTEGRATED = 'integrated_gradients'
METHODS = (INTEGRATED, GRADIENTS)

# Vectors of tokens, a tree of `[B, T, D]`, to a score of each row, `[B]`.
Score = Callable[[Any], jax.Array]


class Attributed(NamedTuple):
  """What was found of some rows.

  Attributes:
    attributions: float32 `[B, T]` of each array of vectors.
    score: float32 `[B]`, of the input.
    baseline_score: float32 `[B]`, of the baseline.
    gap: float32 `[B]`: by how much the attributions of a row sum to something else than the difference of its scores.
  """

  attributions: Any
  score: jax.Array
  baseline_score: jax.Array
  gap: jax.Array


def gradients_times_input(score: Score, vectors: Any) -> Any:
  """The gradient of each row's score, times the vectors, summed over their features: a tree of `[B, T]`."""
  return jax.tree.map(_over_features, _gradient(score, vectors), vectors)


def integrated_gradients(score: Score, vectors: Any, baseline: Any, steps: int) -> Any:
  """The mean gradient between baseline and input, times their difference, summed over features: a tree of `[B, T]`.

  How many points it takes depends on the baseline. RMSNorm, by which T5 begins, divides vectors by their size, so that
  all of the change happens near a baseline that is 0 or small, as the mean of a vocabulary is: its vectors point
  everywhere. What the model knows as a token, padding, has a size, and is the default. The median of |gap| and its
  largest, of 22 targets of 4 texts, by a T5 in miniature (t5_tiny.gin, 400 steps of embedded_mixture, float32):

      steps        8              32             128            512          difference of scores, median
      padding      1.8e-1 9.3e-1  6.8e-3 4.0e-1  6.1e-4 9.1e-3  2.2e-4 1.2e-3  2.07
      mean         4.8e-1 5.2     1.0e-1 1.8     3.9e-3 1.7e-1  4.9e-4 4.8e-3  0.43
      zero         5.7e-1 4.6     3.1e-1 3.9     2.0e-1 6.7     1.1e-2 7.8e-1  0.65

  Args:
    score: of rows that do not know each other.
    vectors: a tree of `[B, T, D]`.
    baseline: the same.
    steps: points of the Gauss-Legendre quadrature, which is exact for polynomials of degree 2 `steps` - 1.
  """
  difference = jax.tree.map(jnp.subtract, vectors, baseline)
  places, weights = np.polynomial.legendre.leggauss(steps)
  points = jnp.asarray(np.stack([(places + 1) / 2, weights / 2], axis=1), jnp.float32)

  def add(total: Any, point: jax.Array) -> tuple[Any, None]:
    between = jax.tree.map(lambda base, step: base + point[0].astype(base.dtype) * step, baseline, difference)
    weighted = jax.tree.map(lambda grad: point[1] * grad.astype(jnp.float32), _gradient(score, between))
    return jax.tree.map(jnp.add, total, weighted), None

  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), vectors)
  mean, _ = jax.lax.scan(add, nothing, points)
  return jax.tree.map(_over_features, mean, difference)


def attribute(method: str, score: Score, vectors: Any, baseline: Any, steps: int) -> Attributed:
  """By a member of `METHODS`; arguments as above."""
  assert method in METHODS, method
  if method == GRADIENTS:
    found = gradients_times_input(score, vectors)
  else:
    found = integrated_gradients(score, vectors, baseline, steps)
  own, other = score(vectors).astype(jnp.float32), score(baseline).astype(jnp.float32)
  total = sum(jnp.sum(each, axis=-1) for each in jax.tree.leaves(found))
  return Attributed(found, own, other, total - (own - other))


def _gradient(score: Score, vectors: Any) -> Any:
  return jax.grad(lambda given: jnp.sum(score(given)))(vectors)


def _over_features(gradient: jax.Array, difference: jax.Array) -> jax.Array:
  return jnp.sum(gradient.astype(jnp.float32) * difference.astype(jnp.float32), axis=-1)
