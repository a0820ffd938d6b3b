"""What sampling draws from: scores of which the unlikely ones are left out, in Hugging Face's order.

A warper maps scores, float32 `[R, V]`, to scores with -inf at what is left out. After `top_k` there are k candidates
instead of V, and what follows works on those alone: to sort a vocabulary at every step would take as long as the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.decoding import largest
from t5x_lite.decoding.config import GenerationConfig

Warper = Callable[[jax.Array], jax.Array]


def warp(options: GenerationConfig, scores: jax.Array, keep: int = 1) -> tuple[jax.Array, jax.Array | None]:
  """Scores of the candidates, and their ids, int32 of the same shape; None: those of all V.

  Args:
    options: complete.
    scores: float32 `[R, V]`.
    keep: so many candidates are left at least.
  """
  if options.temperature is not None and options.temperature != 1.0:
    scores = scores / options.temperature
  ids = None
  if options.top_k and max(options.top_k, keep) < scores.shape[-1]:
    scores, ids = largest.top_k(scores, max(options.top_k, keep))
  for warper in _after_top_k(options, keep):
    scores = warper(scores)
  return scores, ids


def _after_top_k(options: GenerationConfig, keep: int) -> Sequence[Warper]:
  asked: list[tuple[Callable[[jax.Array, float, int], jax.Array], float | None]] = [
    (top_p, options.top_p if options.top_p != 1.0 else None),
    (min_p, options.min_p),
    (typical_p, options.typical_p if options.typical_p != 1.0 else None),
    (epsilon_cutoff, options.epsilon_cutoff or None),
    (eta_cutoff, options.eta_cutoff or None),
  ]
  return [functools.partial(_called, warper, value, keep) for warper, value in asked if value is not None]


def _called(
  warper: Callable[[jax.Array, float, int], jax.Array], value: float, keep: int, scores: jax.Array
) -> jax.Array:
  return warper(scores, value, keep)


def top_p(scores: jax.Array, mass: float, keep: int = 1) -> jax.Array:
  """The likeliest that together have the probability `mass`."""
  ranked = jnp.sort(scores, axis=-1)
  cumulative = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1)
  dropped = cumulative <= 1.0 - mass
  dropped = dropped.at[..., -keep:].set(False)
  # As all that are dropped are less likely than all that are kept, the least likely one kept tells them apart.
  return _at_least(scores, jnp.min(jnp.where(dropped, jnp.inf, ranked), axis=-1, keepdims=True))


def min_p(scores: jax.Array, least: float, keep: int = 1) -> jax.Array:
  """Those at least so likely, relative to the likeliest."""
  probabilities = jax.nn.softmax(scores, axis=-1)
  likely = probabilities >= least * jnp.max(probabilities, axis=-1, keepdims=True)
  return jnp.where(likely | _is_top(scores, keep), scores, -jnp.inf)


def typical_p(scores: jax.Array, mass: float, keep: int = 1) -> jax.Array:
  """Those whose information is nearest to the entropy, as many as together have the probability `mass`."""
  log_probs = jax.nn.log_softmax(scores, axis=-1)
  off = jnp.abs(-log_probs - _entropy(log_probs))
  order = jnp.argsort(off, axis=-1, stable=True)
  ranked = jnp.take_along_axis(off, order, axis=-1)
  cumulative = jnp.cumsum(jax.nn.softmax(jnp.take_along_axis(scores, order, axis=-1), axis=-1), axis=-1)
  last = jnp.minimum(jnp.sum(cumulative < mass, axis=-1, keepdims=True), scores.shape[-1] - 1)
  limit = jnp.take_along_axis(ranked, jnp.maximum(last, keep - 1), axis=-1)
  return jnp.where(off <= limit, scores, -jnp.inf)


def epsilon_cutoff(scores: jax.Array, epsilon: float, keep: int = 1) -> jax.Array:
  """Those at least so likely."""
  likely = jax.nn.softmax(scores, axis=-1) >= epsilon
  return jnp.where(likely | _is_top(scores, keep), scores, -jnp.inf)


def eta_cutoff(scores: jax.Array, epsilon: float, keep: int = 1) -> jax.Array:
  """Those as likely as epsilon, or as its root by the exponential of the entropy, where that is less."""
  log_probs = jax.nn.log_softmax(scores, axis=-1)
  eta = jnp.minimum(epsilon, np.sqrt(epsilon).astype(np.float32) * jnp.exp(-_entropy(log_probs)))
  return jnp.where((jnp.exp(log_probs) >= eta) | _is_top(scores, keep), scores, -jnp.inf)


def _entropy(log_probs: jax.Array) -> jax.Array:
  probabilities = jnp.exp(log_probs)
  return -jnp.sum(jnp.where(probabilities > 0, probabilities * log_probs, 0.0), axis=-1, keepdims=True)


def _is_top(scores: jax.Array, count: int) -> jax.Array:
  return scores >= jax.lax.top_k(scores, min(count, scores.shape[-1]))[0][..., -1:]


def _at_least(scores: jax.Array, least: jax.Array) -> jax.Array:
  return jnp.where(scores >= least, scores, -jnp.inf)
