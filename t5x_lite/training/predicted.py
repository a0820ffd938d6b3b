"""Losses at the positions that are predicted alone: a masked language model needs logits at one position in seven."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from t5x_lite import losses
from t5x_lite.core.logits import FactoredLogits

TokenLoss = Callable[[FactoredLogits, jax.Array], losses.TokenLosses]


def losses_of_predicted(
  loss: TokenLoss, factored: FactoredLogits, targets: jax.Array, weights: jax.Array, most: int | None
) -> losses.TokenLosses:
  """The losses of the targets that have a weight, float32 `[B, L]`; 0 for the others where `most` allows it.

  Each row has room for `most` logits. A row that predicts more would lose some; its losses are not finite instead.

  Args:
    loss: the losses of given targets.
    factored: the logits of all positions.
    targets: int32 `[B, L]`.
    weights: float32 `[B, L]`, 0 where nothing is predicted.
    most: predictions of a row at most; None, or no fewer than L: not known, and all positions are computed.
  """
  length = targets.shape[1]
  if most is None or most >= length:
    return loss(factored, targets)
  predicted = weights != 0
  # Predicted positions first, in their order; what is left of the room goes to positions that do not count.
  positions = jnp.argsort(~predicted, axis=1, stable=True)[:, :most]
  hidden = jnp.take_along_axis(factored.hidden, positions[..., None], axis=1)
  some = loss(dataclasses.replace(factored, hidden=hidden), jnp.take_along_axis(targets, positions, axis=1))
  too_many = jnp.sum(predicted, axis=1, keepdims=True) > most

  def spread(x: jax.Array) -> jax.Array:
    zeros = jnp.zeros(targets.shape, x.dtype)
    return jnp.put_along_axis(zeros, positions, jnp.where(too_many, jnp.nan, x), axis=1, inplace=False)

  return jax.tree.map(spread, some)
