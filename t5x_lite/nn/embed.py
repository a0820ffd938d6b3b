"""Tables of vectors looked up by token, and their use as the output projection."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.nn.linear import Initializer


class Embed(nn.Module):
  """A float32 table `[num_embeddings, features]`, read by id.

  Attributes:
    num_embeddings: number of rows; may exceed the tokenizer's vocabulary (T5 pads 32100 to 32128).
    features: width of a row.
    rows: logical name of the first axis.
    dtype: dtype of the vectors returned.
    embedding_init: initialiser; T5's is normal with standard deviation 1.
  """

  num_embeddings: int
  features: int
  rows: str = axes.VOCAB
  dtype: Any = jnp.float32
  embedding_init: Initializer = nn.initializers.normal(1.0)

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    init = nn.with_logical_partitioning(self.embedding_init, (self.rows, axes.EMBED))
    self.embedding = self.param('embedding', init, (self.num_embeddings, self.features), jnp.float32)

  def __call__(self, ids: jax.Array) -> jax.Array:
    """Vectors `[..., D]` of int32 ids `[...]`."""
    # Gathered over `fsdp` first: a look-up in a table sharded on both axes would make XLA replicate its result.
    table = nn.with_logical_constraint(self.embedding, (self.rows, None))
    return jnp.take(table, ids, axis=0).astype(self.dtype)

  def attend(self, hidden: jax.Array) -> FactoredLogits:
    """Logits over the rows of the table, for `hidden` of `[B, L, D]`."""
    return FactoredLogits(hidden=hidden, kernel=self.embedding)


def output_embed(num_embeddings: int, features: int, name: str | None = None) -> Embed:
  """An output projection of its own (T5 1.1): `[V, D]` as in Hugging Face's `lm_head`, variance 1 / D as in T5X."""
  init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal', in_axis=-1, out_axis=-2)
  return Embed(num_embeddings, features, embedding_init=init, name=name)
