"""What is trained of a model that is otherwise left alone: adapters in its blocks, a soft prompt in front of its input.

Both begin by changing as little as they can: an adapter is the identity, and the vectors of a prompt are drawn as those
of tokens are. The parameters are called `.._adapter/..` and `soft_prompt/..`; see `training.adaptation`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.batch import POSITIONS, PREFIX, SEGMENT_IDS, TOKEN_TYPE_IDS, Batch, key
from t5x_lite.core.errors import UsageError
from t5x_lite.nn.linear import Dense, Initializer


def is_addition(name: str) -> bool:
  """Whether a parameter is of an adapter or a soft prompt: a checkpoint of the model as it was has none."""
  return any(part.endswith('_adapter') or part == 'soft_prompt' for part in name.split('/'))


class Adapter(nn.Module):
  """`x + up(gelu(down(x)))`, a bottleneck behind a sub-layer (Houlsby et al. 2019, section 2.1); `up` begins as 0.

  Attributes:
    dim: width of the bottleneck.
    dtype: dtype of activations.
  """

  dim: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[..., D]` to `[..., D]`."""
    hidden = jax.nn.gelu(Dense(self.dim, (axes.EMBED, axes.ADAPTER), True, self.dtype, name='down')(x))
    zeros = nn.initializers.zeros_init()
    return x + Dense(x.shape[-1], (axes.ADAPTER, axes.EMBED), True, self.dtype, zeros, name='up')(hidden)


class SoftPrompt(nn.Module):
  """Vectors that stand before those of the tokens of every row (Lester et al. 2021, section 2).

  Attributes:
    length: P.
    features: D.
    dtype: dtype of the vectors returned.
    init: initialiser; that of the vectors of tokens.
  """

  length: int
  features: int
  dtype: Any = jnp.float32
  init: Initializer = nn.initializers.normal(1.0)

  def setup(self) -> None:
    """Makes the parameters."""
    init = nn.with_logical_partitioning(self.init, (axes.ADAPTER, axes.EMBED))
    self.vectors = self.param('vectors', init, (self.length, self.features), jnp.float32)

  def rows(self, count: int) -> jax.Array:
    """`[count, P, D]`."""
    return jnp.broadcast_to(self.vectors.astype(self.dtype), (count, self.length, self.features))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps the vectors of tokens `[B, L, D]` to `[B, P + L, D]`."""
    return jnp.concatenate([self.rows(len(x)), x.astype(self.dtype)], axis=1)


def extended(batch: Batch, side: str, length: int) -> Batch:
  """A batch whose rows, of one example each, have `length` more positions in front, but for their tokens.

  Raises:
    UsageError: rows of a prefix LM, in which nobody would know whether the prompt sees the prefix.
  """
  if not length:
    return batch
  if key(side, PREFIX) in batch:
    raise UsageError(f'prompt_length is {length}, and rows have a prefix that sees all of itself: expected causal rows')
  longer = dict(batch)
  for name, value in ((SEGMENT_IDS, 1), (TOKEN_TYPE_IDS, 0)):
    if key(side, name) in batch:
      longer[key(side, name)] = jnp.pad(batch[key(side, name)], ((0, 0), (length, 0)), constant_values=value)
  if key(side, POSITIONS) in batch:
    positions = batch[key(side, POSITIONS)]
    own = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (len(positions), length))
    longer[key(side, POSITIONS)] = jnp.concatenate([own, positions + length], axis=1)
  return longer
