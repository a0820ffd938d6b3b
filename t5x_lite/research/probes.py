"""What can be read off the hidden states of each layer by a linear classifier, beside a control.

A probe may be good because it learns, not because the layer knows. So each is trained a second time on a control task
(Hewitt and Liang 2019, sec. 2): every word type, or text, has a label of its own that was drawn at random, with the
shares that the real labels have. A probe can only know those by heart. Selectivity is the real accuracy less that of
the control.

Words repeat, so that a probe with enough of a memory does well at the control for them. Whole texts seldom do: their
control is at the level of chance, and selectivity says how far above that the probe is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

_STEPS = 400
_LEARNING_RATE = 0.05
_HELD_OUT = 0.25


@dataclasses.dataclass(frozen=True)
class Probed:
  """What the probe of one layer found.

  Attributes:
    layer: 0 is what the first layer reads; the last is behind all layers.
    accuracy: on examples that were held out.
    standard_error: of it, over examples.
    control_accuracy: the same of the control task.
    selectivity: the difference of the two.
    train_accuracy: on the examples of the training.
  """

  layer: int
  accuracy: float
  standard_error: float
  control_accuracy: float
  selectivity: float
  train_accuracy: float


def control_labels(kinds: Sequence[str], labels: np.ndarray, seed: int) -> np.ndarray:
  """A label for each example, int32 `[n]`, that depends on its kind alone: drawn from those there are.

  Args:
    kinds: of each example its word, or text.
    labels: int `[n]`, the real ones.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  drawn = {kind: int(labels[rng.integers(len(labels))]) for kind in sorted(set(kinds))}
  return np.asarray([drawn[kind] for kind in kinds], np.int32)


def held_out(groups: Sequence[int], seed: int) -> np.ndarray:
  """Which examples are not trained on, bool `[n]`: a quarter of the groups, all of each (the words of one text)."""
  names = np.unique(np.asarray(groups))
  count = max(1, round(_HELD_OUT * len(names)))
  chosen = np.random.default_rng(seed).permutation(names)[:count]
  return np.isin(groups, chosen)


def probe(
  states: np.ndarray, labels: np.ndarray, control: np.ndarray, is_test: np.ndarray, decay: float = 1e-3
) -> list[Probed]:
  """A linear probe of each layer.

  Args:
    states: float32 `[Y + 1, n, D]`.
    labels: int32 `[n]`, from 0.
    control: the same of the control task.
    is_test: bool `[n]`, what is not trained on: something, and not all.
    decay: factor on half the squared weights, beside the mean cross-entropy.
  """
  assert is_test.any() and not is_test.all()
  num_classes = int(max(labels.max(), control.max())) + 1
  found = np.zeros((2, 2, len(states)))
  for task, wanted in enumerate((labels, control)):
    with jax.numpy_dtype_promotion('standard'):  # Optax promotes implicitly.
      guessed = _fit_and_guess(states, np.asarray(wanted, np.int32), ~is_test, num_classes, decay)
    right = np.asarray(guessed) == wanted
    found[task] = right[:, is_test].mean(axis=1), right[:, ~is_test].mean(axis=1)
  (real, train), (other, _) = found
  count = int(is_test.sum())
  return [
    Probed(
      layer=layer,
      accuracy=float(real[layer]),
      standard_error=float(np.sqrt(real[layer] * (1 - real[layer]) / count)),
      control_accuracy=float(other[layer]),
      selectivity=float(real[layer] - other[layer]),
      train_accuracy=float(train[layer]),
    )
    for layer in range(len(states))
  ]


@functools.partial(jax.jit, static_argnums=(3,))
def _fit_and_guess(
  states: jax.Array, labels: jax.Array, is_train: jax.Array, num_classes: int, decay: float
) -> jax.Array:
  """The label that each layer's probe gives each example, int32 `[Y + 1, n]`: softmax regression, all rows at once."""
  weights = is_train.astype(jnp.float32) / jnp.sum(is_train.astype(jnp.float32))
  mean = jnp.einsum('ynd,n->yd', states, weights)[:, None]
  spread = jnp.sqrt(jnp.einsum('ynd,n->yd', jnp.square(states - mean), weights))[:, None]
  # Scaled by all features' mean spread: one that hardly varies stays small, where dividing it by its own makes noise.
  states = (states - mean) / jnp.maximum(jnp.mean(spread, axis=-1, keepdims=True), 1e-9)
  params = {
    'kernel': jnp.zeros((states.shape[0], states.shape[2], num_classes)),
    'bias': jnp.zeros((states.shape[0], 1, num_classes)),
  }
  optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, _STEPS))

  def logits(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.einsum('ynd,ydc->ync', states, params['kernel']) + params['bias']

  def loss(params: dict[str, jax.Array]) -> jax.Array:
    costs = optax.softmax_cross_entropy_with_integer_labels(logits(params), labels[None])
    return jnp.sum(costs * weights) + decay / 2 * jnp.sum(jnp.square(params['kernel']))  # layers do not meet

  def step(carry: tuple, _: None) -> tuple[tuple, None]:
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return (optax.apply_updates(params, updates), state), None

  (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=_STEPS)
  return jnp.argmax(logits(params), axis=-1).astype(jnp.int32)
