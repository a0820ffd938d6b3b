"""All that a training run carries from step to step, and a checkpoint must hold."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


class TrainState(struct.PyTreeNode):
  """The state of a run.

  Attributes:
    step: number of steps taken, an int32 scalar.
    params: the parameters, a dict of dicts without boxes.
    opt_state: the optimiser's state.
    rng: raw data of the key that dropout keys are folded from (uint32 `[2]` for JAX's default generator); never
      changes.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  rng: jax.Array

  def dropout_key(self) -> jax.Array:
    """The typed key of this step."""
    return jax.random.fold_in(jax.random.wrap_key_data(self.rng), self.step)
