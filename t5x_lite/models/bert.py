"""BERT (Devlin et al. 2019), and RoBERTa (Liu et al. 2019), which is a configuration of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.batch import (
  ENCODER,
  INPUT_TOKENS,
  LABEL,
  POSITIONS,
  SEGMENT_IDS,
  TOKEN_TYPE_IDS,
  Batch,
  is_labelled,
  key,
)
from t5x_lite.core.logits import LABEL_LOGITS, FactoredLogits
from t5x_lite.models import heads
from t5x_lite.models.config import ModelConfig, check_choice, normal_init
from t5x_lite.nn import flops
from t5x_lite.nn.adapter import SoftPrompt, extended
from t5x_lite.nn.embed import Embed
from t5x_lite.nn.intermediates import HIDDEN_STATES, leave, vectors_of_tokens
from t5x_lite.nn.norm import LayerNorm
from t5x_lite.nn.positions import LearnedPositions, sinusoidal_positions
from t5x_lite.nn.transformer import BlockConfig, Context, Stack

POSITION_KINDS = ('learned', 'sinusoidal', 'rotary', 'none')


@dataclasses.dataclass(frozen=True)
class BertConfig(ModelConfig):
  """Sizes and flavour of a BERT; the defaults are those of BERT base, uncased. See `ModelConfig` for the other fields.

  Attributes:
    num_layers: Y.
    max_length: rows of the position table: 512, and 514 in RoBERTa, whose first two stand for nothing.
    first_position: row of the first position: 0, and 2 in RoBERTa.
    num_token_types: rows of the table of sentence A and B: 2, and 1 in RoBERTa, which does not tell them apart.
    positions: a name in `POSITION_KINDS`.
    pooling: what the head 'embedding' makes of a text: 'mean', of all its positions, or 'cls', its first.
    norm_epsilon: of every norm: 1e-12, and 1e-5 in RoBERTa.
    initializer_range: standard deviation of the initial weights.
  """

  vocab_size: int = 30522
  emb_dim: int = 768
  num_heads: int = 12
  mlp_dim: int = 3072
  mlp_activations: tuple[str, ...] = ('gelu_exact',)
  heads: tuple[str, ...] = ('mlm', 'nsp')
  dropout_rate: float = 0.1
  num_layers: int = 12
  max_length: int = 512
  first_position: int = 0
  num_token_types: int = 2
  positions: str = 'learned'
  pooling: str = 'mean'
  norm_epsilon: float = 1e-12
  initializer_range: float = 0.02

  def __post_init__(self) -> None:
    super().__post_init__()
    check_choice('positions of BertConfig', self.positions, POSITION_KINDS)
    check_choice('pooling of BertConfig', self.pooling, heads.POOLINGS)

  @classmethod
  def known_heads(cls) -> tuple[str, ...]:
    """The masked language model, all task heads, and vectors of whole texts."""
    return ('mlm', *heads.TASK_HEADS, heads.EMBEDDING)

  @classmethod
  def least(cls, field: str) -> int:
    """Positions may start at 0."""
    return 0 if field == 'first_position' else super().least(field)

  def block(self) -> BlockConfig:
    """The block of every layer."""
    init = normal_init(self.initializer_range)
    return self.block_config(
      norm='layer',
      norm_epsilon=self.norm_epsilon,
      norm_placement='post',
      use_bias=True,
      mlp_dropout_rate=0.0,
      shared_dropout=False,
      rotary_base=self.rotary_base if self.positions == 'rotary' else None,
      query_init=init,
      kernel_init=init,
      out_init=init,
    )


class BertEmbeddings(nn.Module):
  """Sum of the vectors of tokens, positions and token types; normalised and dropped out."""

  config: BertConfig

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config, init = self.config, normal_init(self.config.initializer_range)
    dtype = jnp.dtype(config.dtype)
    self.tokens = Embed(config.vocab_size, config.emb_dim, dtype=dtype, embedding_init=init)
    if config.positions == 'learned':
      self.positions = LearnedPositions(config.max_length, config.emb_dim, dtype, init)
    # Too few rows to shard.
    self.token_types = Embed(config.num_token_types, config.emb_dim, axes.LABELS, dtype, init)
    self.norm = LayerNorm(config.norm_epsilon, dtype=dtype)
    self.dropout = nn.Dropout(config.dropout_rate)

  def __call__(self, batch: Batch, *, prompt: SoftPrompt | None = None, deterministic: bool = True) -> jax.Array:
    """`[B, L, D]` for the encoder keys of a batch; but for its tokens, they count those of a soft prompt."""
    tokens = batch[key(ENCODER, INPUT_TOKENS)]
    positions = batch[key(ENCODER, POSITIONS)] + self.config.first_position
    types = batch.get(key(ENCODER, TOKEN_TYPE_IDS), jnp.zeros_like(positions))
    x = vectors_of_tokens(self, ENCODER, self.tokens(tokens))
    if prompt is not None:
      x = prompt(x)
    x += self.token_types(types)
    if self.config.positions == 'learned':
      x += self.positions(positions)
    elif self.config.positions == 'sinusoidal':
      x += sinusoidal_positions(positions, self.config.emb_dim).astype(x.dtype)
    return self.dropout(self.norm(x), deterministic=deterministic)


class Bert(nn.Module):
  """The whole model; reads the `encoder_` keys of a batch (see `core.batch`)."""

  config: BertConfig

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config, init = self.config, normal_init(self.config.initializer_range)
    self.embeddings = BertEmbeddings(config)
    self.soft_prompt = config.soft_prompt(init) if config.prompt_length else None
    self.blocks = Stack(config.block(), config.num_layers, scan=config.scan_layers, remat_policy=config.remat_policy)
    if 'mlm' in config.heads:
      self.mlm = heads.MaskedLanguageModel(
        config.mlp_activations[0], config.norm_epsilon, jnp.dtype(config.dtype), kernel_init=init
      )
    self.heads = heads.TaskHeads(
      names=tuple(name for name in config.heads if name in (*heads.TASK_HEADS, heads.EMBEDDING)),
      num_labels=config.num_labels,
      pooling=config.pooling,
      dropout_rate=config.dropout_rate,
      dtype=jnp.dtype(config.dtype),
      kernel_init=init,
    )

  def __call__(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """What the first of the configured heads says, float32; the last hidden state if there is none."""
    outputs = self.outputs(batch, deterministic=deterministic)
    return outputs[heads.primary_output(self.config.heads)]

  def outputs(self, batch: Batch, *, deterministic: bool = True) -> dict[str, jax.Array]:
    """Everything, float32: `last_hidden_state` `[B, L, D]`, `lm_logits` `[B, L, V]`, and those of `heads.TaskHeads`."""
    hidden = self.encode(batch, deterministic=deterministic)
    outputs = {'last_hidden_state': hidden.astype(jnp.float32)}
    if 'mlm' in self.config.heads:
      outputs['lm_logits'] = self.mlm(hidden, self.embeddings.tokens).logits()
    return outputs | self.heads(hidden, batch[key(ENCODER, SEGMENT_IDS)], deterministic=deterministic)

  def factored_logits(self, batch: Batch, *, deterministic: bool = True) -> FactoredLogits:
    """Logits of the masked language model at every position, not yet multiplied out.

    Where examples have labels, those of the next-sentence head are left in `LABEL_LOGITS`, at every position too: which
    of them begin an example only the batch knows, and the head is small beside a layer.
    """
    hidden = self.encode(batch, deterministic=deterministic)
    if key(ENCODER, LABEL) in batch and 'nsp' in self.config.heads:
      self.sow(LABEL_LOGITS, 'nsp', self._everywhere(hidden, batch, deterministic)['nsp_logits'])
    return self.mlm(hidden, self.embeddings.tokens)

  def label_logits(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """Logits of the head for labels at every position, float32 `[B, L, C]`; rows may hold several examples."""
    outputs = self._everywhere(self.encode(batch, deterministic=deterministic), batch, deterministic)
    return outputs[heads.OUTPUTS[heads.answering(self.config.heads)]]

  def _everywhere(self, hidden: jax.Array, batch: Batch, deterministic: bool) -> dict[str, jax.Array]:
    segments = batch[key(ENCODER, SEGMENT_IDS)]
    return self.heads(hidden, segments, deterministic=deterministic, everywhere=True)

  def encode(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """The last hidden state `[B, L, D]`."""
    batch = extended(batch, ENCODER, self.config.prompt_length)
    segments, positions = batch[key(ENCODER, SEGMENT_IDS)], batch[key(ENCODER, POSITIONS)]
    context = Context(mask=self.config.encoder_mask(segments, positions), positions=positions)
    x = self.embeddings(batch, prompt=self.soft_prompt, deterministic=deterministic)
    x, _ = self.blocks(x, context, deterministic=deterministic)
    leave(self, HIDDEN_STATES, 'last', x)
    return x[:, self.config.prompt_length :]

  def flops_per_step(self, spec: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Analytic FLOPs of a training step on batches of these shapes (see `nn.flops`)."""
    config = self.config
    batch, length = spec[key(ENCODER, INPUT_TOKENS)].shape
    row = config.num_layers * flops.block_flops(config.block(), length + config.prompt_length)
    if not is_labelled(spec):  # else a head for labels, which is small
      row += 2 * length * config.emb_dim**2 + flops.logits_flops(length, config.emb_dim, config.vocab_size)
    return float(flops.BACKWARD_TOO * batch * row)
