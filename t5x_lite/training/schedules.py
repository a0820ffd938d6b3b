"""Learning rate schedules: functions from a step to a float32 learning rate.

`create_learning_rate_scheduler` is T5X's, number for number; the others are those of the BERT and GPT papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from t5x_lite.core import errors

Schedule = Callable[[Any], jax.Array]

_FACTORS = (
  'constant',
  'linear_warmup',
  'linear_decay',
  'rsqrt_decay',
  'rsqrt_normalized_decay',
  'decay_every',
  'cosine_decay',
)
_NEED_WARMUP = ('linear_warmup', 'linear_decay', 'rsqrt_decay', 'rsqrt_normalized_decay')


def create_learning_rate_scheduler(
  factors: str = 'constant * linear_warmup * rsqrt_decay',
  base_learning_rate: float = 0.5,
  warmup_steps: int = 1000,
  decay_factor: float = 0.5,
  steps_per_decay: int = 20000,
  steps_per_cycle: int = 100000,
  step_offset: int = 0,
  min_learning_rate: float = 1e-8,
) -> Schedule:
  """T5X's schedule: a product of factors.

  With s = max(0, step - step_offset) and w = warmup_steps the factors are

    constant                base_learning_rate
    linear_warmup           min(1, s / w)
    linear_decay            base_learning_rate * min(s / w, 1 + decay_factor * (w - s)), used on its own
    rsqrt_decay             1 / sqrt(max(s, w))
    rsqrt_normalized_decay  sqrt(w) / sqrt(max(s, w))
    decay_every             decay_factor ^ floor(s / steps_per_decay)
    cosine_decay            (1 + cos(pi * frac(max(0, s - w) / steps_per_cycle))) / 2

  T5's pretraining is `'constant * rsqrt_decay'` with base 1.0 and w = 10000, its fine-tuning `'constant'` with base
  1e-3.

  Args:
    factors: names of factors, separated by `*`.
    base_learning_rate: the constant.
    warmup_steps: steps of warm-up, and the step where a decay starts.
    decay_factor: slope of `linear_decay`, base of `decay_every`.
    steps_per_decay: period of `decay_every`.
    steps_per_cycle: period of `cosine_decay`.
    step_offset: the step that counts as 0.
    min_learning_rate: the schedule never falls below it.

  Raises:
    UsageError: on an unknown factor, or warm-up of no steps where a factor divides by it.
  """
  names = [name.strip() for name in factors.split('*')]
  for name in names:
    if name not in _FACTORS:
      raise errors.unknown('learning rate factor', name, _FACTORS)
    if name in _NEED_WARMUP and warmup_steps < 1:
      raise errors.UsageError(f'warmup_steps={warmup_steps}: learning rate factor {name!r} needs at least 1')

  def schedule(step: Any) -> jax.Array:
    whole = jnp.maximum(0, jnp.asarray(step, jnp.int32) - step_offset)
    s, w = whole.astype(jnp.float32), warmup_steps
    rate: Any = 1.0
    # Multiplied in the order given, in float32 from the first step-dependent factor on: the very numbers of T5X.
    for name in names:
      match name:
        case 'constant':
          rate *= base_learning_rate
        case 'linear_warmup':
          rate *= jnp.minimum(1.0, s / w)
        case 'linear_decay':
          rate *= base_learning_rate * jnp.minimum(s / w, 1.0 + decay_factor * (w - s))
        case 'rsqrt_decay':
          rate /= jnp.sqrt(jnp.maximum(s, w))
        case 'rsqrt_normalized_decay':
          rate *= jnp.sqrt(jnp.float32(w))
          rate /= jnp.sqrt(jnp.maximum(s, w))
        case 'decay_every':
          rate *= decay_factor ** (whole // steps_per_decay).astype(jnp.float32)
        case 'cosine_decay':
          progress = jnp.maximum(0.0, (s - w) / steps_per_cycle)
          rate *= jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(math.pi * (progress % 1.0))))
    return jnp.asarray(jnp.maximum(rate, min_learning_rate), jnp.float32)

  return schedule


def linear_warmup_linear_decay(
  peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, end_learning_rate: float = 0.0
) -> Schedule:
  """Linear from 0 to the peak over `warmup_steps`, then to the end value at `total_steps` (Devlin et al. 2019)."""
  return _warm_up_and_decay(lambda left: left, peak_learning_rate, total_steps, warmup_steps, end_learning_rate)


def linear_warmup_cosine_decay(
  peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, end_learning_rate: float = 0.0
) -> Schedule:
  """Linear from 0 to the peak, then half a cosine to the end value at `total_steps` (Brown et al. 2020)."""

  def shape(left: jax.Array) -> jax.Array:
    return 0.5 - 0.5 * jnp.cos(math.pi * left)

  return _warm_up_and_decay(shape, peak_learning_rate, total_steps, warmup_steps, end_learning_rate)


def _warm_up_and_decay(
  shape: Callable[[jax.Array], jax.Array], peak: float, total_steps: int, warmup_steps: int, end: float
) -> Schedule:
  """`shape` maps the fraction of the decay that is left, 1 to 0, to the fraction of the height that is left."""
  if not 0 <= warmup_steps < total_steps:
    raise errors.UsageError(f'warmup_steps={warmup_steps}: expected 0 or more, below total_steps={total_steps}')

  def schedule(step: Any) -> jax.Array:
    s = jnp.asarray(step, jnp.float32)
    left = jnp.clip((total_steps - s) / (total_steps - warmup_steps), 0.0, 1.0)
    return jnp.where(s < warmup_steps, peak * s / max(warmup_steps, 1), end + (peak - end) * shape(left))

  return schedule
