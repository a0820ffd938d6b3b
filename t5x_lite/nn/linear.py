"""Linear maps over the last axis, with named kernel axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import products

# `(key, shape, dtype) -> array`
Initializer: TypeAlias = Callable[..., jax.Array]

# T5X's default for every projection: variance 1 / fan_in, truncated at two standard deviations.
fan_in_init: Initializer = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')


class Dense(nn.Module):
  """`y = x @ kernel (+ bias)`.

  The kernel is stored in float32 as a matrix `[in, features]`, also where the features are heads x head width:
  Adafactor then factors it as [embed, heads x kv], as T5X does, and one rule shards it.

  Attributes:
    features: size of the last axis of the output.
    axes: logical names of the two kernel axes.
    use_bias: whether a bias `[features]` is added.
    dtype: dtype of the product and of the output.
    kernel_init: initialiser of the kernel.
  """

  features: int
  axes: tuple[str, str]
  use_bias: bool = False
  dtype: Any = jnp.float32
  kernel_init: Initializer = fan_in_init

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[..., in]` to `[..., features]`."""
    y = products.project(x, self._kernel(x.shape[-1]), self.dtype)
    if self.use_bias:
      bias_init = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
      y += self.param('bias', bias_init, (self.features,), jnp.float32).astype(self.dtype)
    return y

  def _kernel(self, size: int) -> jax.Array | products.ByOutput:
    if self.has_variable('params', 'kernel'):
      kept = self.get_variable('params', 'kernel')
      if isinstance(kept, products.ByOutput):
        return kept
    kernel_init = nn.with_logical_partitioning(self.kernel_init, self.axes)
    return self.param('kernel', kernel_init, (size, self.features), jnp.float32)
