"""Normalisation over the model width, computed in float32 whatever the dtype of the activations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def _vector(module: nn.Module, name: str, init: nn.initializers.Initializer, size: int) -> jax.Array:
  # Norm vectors are too small to be worth sharding: their axis has no name.
  return module.param(name, nn.with_logical_partitioning(init, (None,)), (size,), jnp.float32)


class RMSNorm(nn.Module):
  """Root-mean-square norm, without mean and without bias (Zhang & Sennrich 2019; T5's layer norm)."""

  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises `[..., D]`."""
    x = x.astype(jnp.float32)
    y = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
    return (y * _vector(self, 'scale', nn.initializers.ones_init(), x.shape[-1])).astype(self.dtype)


class LayerNorm(nn.Module):
  """Layer norm (Ba et al. 2016); BERT's epsilon is 1e-12, GPT-2's 1e-5."""

  epsilon: float = 1e-12
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises `[..., D]`."""
    x = x.astype(jnp.float32)
    x -= jnp.mean(x, axis=-1, keepdims=True)
    y = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
    y *= _vector(self, 'scale', nn.initializers.ones_init(), x.shape[-1])
    if self.use_bias:
      y += _vector(self, 'bias', nn.initializers.zeros_init(), x.shape[-1])
    return y.astype(self.dtype)


NORMS = {'rms': RMSNorm, 'layer': LayerNorm}
