"""The position-wise feed-forward part of a block, gated or not."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.errors import unknown
from t5x_lite.nn.linear import Dense, Initializer, fan_in_init

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'gelu': functools.partial(jax.nn.gelu, approximate=True),  # tanh form: T5 1.1, GPT-2
  'gelu_exact': functools.partial(jax.nn.gelu, approximate=False),  # BERT
  'silu': jax.nn.silu,
  'linear': lambda x: x,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """The function called `name`; raises `UsageError` naming the nearest one."""
  if name not in ACTIVATIONS:
    raise unknown('activation', name, ACTIVATIONS)
  return ACTIVATIONS[name]


class MLP(nn.Module):
  """`wo(prod_i act_i(wi_i(x)))`: one activation is the plain MLP, two are a gated linear unit (Shazeer 2020).

  Attributes:
    mlp_dim: width F of the hidden layer.
    activations: names in `ACTIVATIONS`, one per input projection; T5 1.0 ('relu',), T5 1.1 ('gelu', 'linear').
    dropout_rate: dropout on the hidden layer.
    shared_dropout: one dropout mask for all positions of a row (T5X).
    use_bias: whether the projections have biases.
    dtype: dtype of activations.
    kernel_init: initialiser of the input projections.
    out_init: initialiser of the output projection.
  """

  mlp_dim: int
  activations: Sequence[str] = ('relu',)
  dropout_rate: float = 0.0
  shared_dropout: bool = True
  use_bias: bool = False
  dtype: Any = jnp.float32
  kernel_init: Initializer = fan_in_init
  out_init: Initializer = fan_in_init

  @nn.compact
  def __call__(self, x: jax.Array, *, deterministic: bool = True) -> jax.Array:
    """Maps `[B, L, D]` to `[B, L, D]`."""
    parts = []
    for i, name in enumerate(self.activations):
      wi = Dense(
        self.mlp_dim,
        (axes.EMBED, axes.MLP),
        self.use_bias,
        self.dtype,
        self.kernel_init,
        name='wi' if len(self.activations) == 1 else f'wi_{i}',
      )
      parts.append(activation(name)(wi(x)))
    hidden = functools.reduce(operator.mul, parts)
    dropout = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,) if self.shared_dropout else (), name='dropout')
    hidden = dropout(hidden, deterministic=deterministic)
    hidden = nn.with_logical_constraint(hidden, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_MLP))
    return Dense(x.shape[-1], (axes.MLP, axes.EMBED), self.use_bias, self.dtype, self.out_init, name='wo')(hidden)
