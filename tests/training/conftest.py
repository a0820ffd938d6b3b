"""A language model small enough to compile in a second, with the parts that placement cares about."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.logits import FactoredLogits

ACTIVATION = (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_EMBED)


def _kernel(*names: str):
  return nn.with_logical_partitioning(nn.initializers.normal(0.2), names)


class Block(nn.Module):
  """x + dropout(relu(x wi)) wo."""

  mlp: int
  dropout_rate: float

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool) -> tuple[jax.Array, None]:
    width = x.shape[-1]
    scale = self.param('scale', nn.with_logical_partitioning(nn.initializers.ones, (axes.EMBED,)), (width,))
    wi = self.param('wi', _kernel(axes.EMBED, axes.MLP), (width, self.mlp))
    wo = self.param('wo', _kernel(axes.MLP, axes.EMBED), (self.mlp, width))
    hidden = nn.with_logical_constraint(nn.relu((x * scale) @ wi), (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_MLP))
    hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=deterministic)
    return nn.with_logical_constraint(x + hidden @ wo, ACTIVATION), None


class TinyLM(nn.Module):
  """Embedding, two scanned blocks, tied logits; a token sees itself only."""

  vocab: int = 24
  width: int = 8
  mlp: int = 16
  dropout_rate: float = 0.0

  def setup(self):
    self.embedding = self.param('embedding', _kernel(axes.VOCAB, axes.EMBED), (self.vocab, self.width))
    scanned = nn.scan(
      Block,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
      in_axes=nn.broadcast,
      length=2,
      metadata_params={nn.PARTITION_NAME: axes.LAYERS},
    )
    self.layers = scanned(self.mlp, self.dropout_rate)

  def factored_logits(self, batch, deterministic: bool = True) -> FactoredLogits:
    # Looked up in whole rows: the devices that cut the table along embed also cut the batch.
    table = nn.with_logical_constraint(self.embedding, (axes.ACT_VOCAB, axes.ACT_EMBED))
    x = jnp.take(table, batch['decoder_input_tokens'], axis=0)
    x, _ = self.layers(nn.with_logical_constraint(x, ACTIVATION), deterministic)
    return FactoredLogits(x, self.embedding)

  def __call__(self, batch, deterministic: bool = True) -> jax.Array:
    return self.factored_logits(batch, deterministic).logits()


@pytest.fixture(scope='session')
def tiny_lm() -> type[TinyLM]:
  return TinyLM


@pytest.fixture(scope='session')
def packed_batch():
  """`packed_batch(rows)`: rows of 12 positions with two segments and padding, loss weights not all 1."""

  def make(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    segments = np.zeros((rows, 12), np.int32)
    for row in segments:
      first, second = rng.integers(2, 7), rng.integers(1, 5)
      row[:first], row[first : first + second] = 1, 2
    weights = (segments > 0) * rng.choice([0.0, 0.5, 1.0], segments.shape, p=[0.1, 0.2, 0.7])
    return {
      'decoder_input_tokens': rng.integers(0, 24, segments.shape).astype(np.int32),
      'decoder_target_tokens': rng.integers(0, 24, segments.shape).astype(np.int32),
      'decoder_loss_weights': weights.astype(np.float32),
      'decoder_segment_ids': segments,
      'decoder_positions': np.tile(np.arange(12, dtype=np.int32), (rows, 1)),
    }

  return make


@pytest.fixture(scope='session')
def spec_of():
  """The shapes of a batch."""
  return lambda batch: {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
