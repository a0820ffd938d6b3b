"""Heads on top of a stack of blocks: the same few for every family.

What differs between families is which position stands for the whole row, and whether a dense layer and tanh come before
the output (BERT's pooler, RoBERTa's classification head, XLNet's sequence summary) or not (GPT-2).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.nn.embed import Embed
from t5x_lite.nn.linear import Dense, Initializer
from t5x_lite.nn.mlp import activation
from t5x_lite.nn.norm import LayerNorm

# Heads that read one vector of a row, with the number of their outputs (None: `num_labels`).
_POOLED: dict[str, int | None] = {'nsp': 2, 'classification': None, 'multiple_choice': 1}
# Heads that read every position.
_POSITIONWISE: dict[str, int | None] = {'span': 2, 'tagging': None}
TASK_HEADS = ('pooler', *_POOLED, *_POSITIONWISE)
# The head that is a mean of hidden states, or one of them, and has no parameters.
EMBEDDING = 'embedding'
POOLINGS = ('mean', 'cls')
# What `TaskHeads` calls the output of each.
OUTPUTS = {
  'nsp': 'nsp_logits',
  'classification': 'classification_logits',
  'multiple_choice': 'choice_logits',
  'span': 'span_logits',
  'tagging': 'tagging_logits',
  EMBEDDING: 'embedding',
}


def primary_output(names: tuple[str, ...]) -> str:
  """The output of the first head there is."""
  return {'lm': 'lm_logits', 'mlm': 'lm_logits', 'pooler': 'pooler_output', **OUTPUTS}.get(
    names[0] if names else '', 'last_hidden_state'
  )


class TaskHeads(nn.Module):
  """The heads of classification, multiple choice, next sentence, span question answering and tagging.

  Attributes:
    names: which of `TASK_HEADS` and `EMBEDDING` there are.
    num_labels: outputs of 'classification' and 'tagging'; one is a regression.
    pool: the position that stands for its row: 'first', or 'last', which is the last that is not padding.
    pooling: of `EMBEDDING`: 'mean', of all positions of a text, or 'cls', the position that stands for its row.
    pooler: whether a dense layer and tanh come between that position and the heads.
    use_bias: whether the outputs of pooled heads have a bias.
    dropout_rate: dropout before every output.
    dtype: dtype of activations; outputs are float32.
    kernel_init: initialiser of all kernels.
  """

  names: tuple[str, ...]
  num_labels: int = 2
  pool: str = 'first'
  pooling: str = 'mean'
  pooler: bool = True
  use_bias: bool = True
  dropout_rate: float = 0.0
  dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.truncated_normal(0.02)

  @nn.compact
  def __call__(
    self,
    hidden: jax.Array,
    segments: jax.Array,
    position: jax.Array | None = None,
    *,
    deterministic: bool = True,
    everywhere: bool = False,
  ) -> dict[str, jax.Array]:
    """Outputs by name, float32.

    Args:
      hidden: `[B, L, D]`.
      segments: int32 `[B, L]`, 0 for padding; one example a row.
      position: int32 `[B]`, the position that stands for its row; None: what `pool` says.
      deterministic: whether dropout is off.
      everywhere: whether every position stands for something: examples share rows, and only the batch knows which
        positions are theirs. Outputs of pooled heads are then `[B, L, ...]`. They are small beside a layer.

    Returns:
      Of the heads there are: `pooler_output` `[B, D]`, `nsp_logits` `[B, 2]`, `classification_logits`
      `[B, num_labels]`, `choice_logits` `[B, 1]` (the rows of one question are scored one by one), `span_logits`
      `[B, L, 2]` (start, end), `tagging_logits` `[B, L, num_labels]`, `embedding` `[B, D]`, of length 1.
    """
    outputs = {}
    dropout = nn.Dropout(self.dropout_rate, name='dropout')
    pooled_names = [name for name in self.names if name in _POOLED]
    if pooled_names or 'pooler' in self.names:
      pooled = hidden if everywhere else take_position(hidden, segments, self.pool, position)
      if self.pooler:
        features = hidden.shape[-1]
        pooled = Dense(features, (axes.EMBED, axes.MLP), True, self.dtype, self.kernel_init, name='pooler')(pooled)
        pooled = jnp.tanh(pooled)
      if 'pooler' in self.names:
        outputs['pooler_output'] = pooled.astype(jnp.float32)
      pooled = dropout(pooled, deterministic=deterministic)
      for name in pooled_names:
        outputs[OUTPUTS[name]] = self._output(name, _POOLED[name], self.use_bias, pooled)
    for name in self.names:
      if name in _POSITIONWISE:
        each = hidden if name == 'span' else dropout(hidden, deterministic=deterministic)
        outputs[OUTPUTS[name]] = self._output(name, _POSITIONWISE[name], True, each)
    if EMBEDDING in self.names:
      outputs[OUTPUTS[EMBEDDING]] = self._embedding(hidden, segments, position, everywhere)
    return outputs

  def _embedding(
    self, hidden: jax.Array, segments: jax.Array, position: jax.Array | None, everywhere: bool
  ) -> jax.Array:
    if self.pooling == 'cls':
      pooled = hidden if everywhere else take_position(hidden, segments, self.pool, position)
    else:
      pooled = mean_of_segments(hidden, segments) if everywhere else mean_of_real(hidden, segments > 0)
    return unit_length(pooled)

  def _output(self, name: str, size: int | None, use_bias: bool, x: jax.Array) -> jax.Array:
    # In float32: these logits are few, and what a metric compares. The outputs are too few to shard: no rule for them.
    dense = Dense(
      size or self.num_labels, (axes.EMBED, axes.LABELS), use_bias, jnp.float32, self.kernel_init, name=name
    )
    return dense(x.astype(jnp.float32))


def take_position(hidden: jax.Array, segments: jax.Array, which: str, position: jax.Array | None = None) -> jax.Array:
  """The given position of every row of `[B, L, D]`, or the first, or the last whose segment is not 0: `[B, D]`."""
  if position is None:
    if which == 'first':
      return hidden[:, 0]
    assert which == 'last', which
    position = jnp.max(jnp.where(segments > 0, jnp.arange(segments.shape[1], dtype=jnp.int32), 0), axis=1)
  return jnp.take_along_axis(hidden, position[:, None, None], axis=1)[:, 0]


def mean_of_real(hidden: jax.Array, real: jax.Array) -> jax.Array:
  """The mean, float32 `[B, D]`, of those positions of `[B, L, D]` that are `real`, `[B, L]`; at least one is."""
  weights = real.astype(jnp.float32)
  total = jnp.einsum('bld,bl->bd', hidden.astype(jnp.float32), weights, precision=jax.lax.Precision.HIGHEST)
  return total / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1.0)


def mean_of_segments(hidden: jax.Array, segments: jax.Array) -> jax.Array:
  """At every position of `[B, L, D]` the mean of its segment, float32, for int32 `[B, L]`."""
  same = (segments[:, :, None] == segments[:, None, :]).astype(jnp.float32)
  total = jnp.einsum('bkl,bld->bkd', same, hidden.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
  return total / jnp.sum(same, axis=2, keepdims=True)


def unit_length(vectors: jax.Array) -> jax.Array:
  """Vectors `[..., D]` divided by their lengths, float32; what is nearly 0 stays so, and has a finite gradient."""
  vectors = vectors.astype(jnp.float32)
  squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def answering(names: tuple[str, ...]) -> str:
  """The head that answers where labels are all that is learned: the first of those with labels."""
  return next(name for name in names if name in OUTPUTS)


class MaskedLanguageModel(nn.Module):
  """BERT's and RoBERTa's output for masked tokens: dense, activation, norm, then the embedding table and a bias.

  Attributes:
    activation: name of the activation.
    norm_epsilon: of the norm.
    dtype: dtype of activations.
    kernel_init: initialiser of the dense layer.
  """

  activation: str = 'gelu_exact'
  norm_epsilon: float = 1e-12
  dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.truncated_normal(0.02)

  @nn.compact
  def __call__(self, hidden: jax.Array, table: Embed) -> FactoredLogits:
    """Logits over the rows of the table, for `[B, L, D]`."""
    features = hidden.shape[-1]
    dense = Dense(features, (axes.EMBED, axes.MLP), True, self.dtype, self.kernel_init, name='dense')
    hidden = activation(self.activation)(dense(hidden))
    hidden = LayerNorm(self.norm_epsilon, dtype=self.dtype, name='norm')(hidden)
    factored = table.attend(hidden)
    return FactoredLogits(factored.hidden, factored.kernel, output_bias(self, table.num_embeddings))


def output_bias(module: nn.Module, vocab_size: int) -> jax.Array:
  """A bias `[V]` on the logits over a vocabulary, a parameter called `bias` of `module`."""
  init = nn.with_logical_partitioning(nn.initializers.zeros_init(), (axes.VOCAB,))
  return module.param('bias', init, (vocab_size,), jnp.float32)
