"""T5 1.0 and 1.1 (Raffel et al. 2020): an encoder and a decoder with relative position biases.

The field names, defaults and initial values are those of T5X's `network.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.batch import Batch
from t5x_lite.core.errors import UsageError
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.nn import flops
from t5x_lite.nn.cache import DecodeCache, KVCache, LayerCache
from t5x_lite.nn.embed import Embed, output_embed
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.mlp import activation
from t5x_lite.nn.norm import RMSNorm
from t5x_lite.nn.positions import RelativePositionBias
from t5x_lite.nn.transformer import BlockConfig, Context, Stack


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes and flavour of a T5.

  Attributes:
    vocab_size: rows of the embedding table; at least the tokenizer's vocabulary.
    emb_dim: model width D.
    num_heads: N, in every attention layer.
    head_dim: H.
    mlp_dim: F.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    mlp_activations: ('relu',) in T5 1.0, ('gelu', 'linear') in T5 1.1.
    logits_via_embedding: whether the output projection is the embedding table (1.0), or a table of its own (1.1).
    dropout_rate: dropout everywhere; T5 1.1 pretrains with 0.0 and fine-tunes with 0.1.
    relative_attention_num_buckets: buckets of the position bias.
    relative_attention_max_distance: distance from which on all share one bucket.
    dtype: of activations, 'float32' or 'bfloat16'; parameters, logits and softmax are float32 always.
    scan_layers: whether the layers of a stack are scanned: faster to compile, one stacked array per parameter.
    remat_policy: what the backward pass computes again; a name in `nn.transformer.REMAT_POLICIES`.
  """

  vocab_size: int = 32128
  emb_dim: int = 512
  num_heads: int = 8
  head_dim: int = 64
  mlp_dim: int = 2048
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  mlp_activations: tuple[str, ...] = ('relu',)
  logits_via_embedding: bool = True
  dropout_rate: float = 0.0
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  dtype: str = 'float32'
  scan_layers: bool = True
  remat_policy: str = 'none'

  def __post_init__(self) -> None:
    if self.dtype not in ('float32', 'bfloat16'):
      raise UsageError(f"dtype of activations is {self.dtype!r}: expected 'float32' or 'bfloat16'")
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if type(value) is int and value < 1:
        raise UsageError(f'T5Config.{field.name} is {value}: expected at least 1')
    if not 0.0 <= self.dropout_rate < 1.0:
      raise UsageError(f'dropout rate is {self.dropout_rate}: expected at least 0 and less than 1')
    if not self.mlp_activations:
      raise UsageError('T5Config.mlp_activations is empty: expected one activation, or two for a gated MLP')
    for name in self.mlp_activations:
      activation(name)

  def block(self, cross_attention: bool) -> BlockConfig:
    """The block of one of the two stacks."""
    return BlockConfig(
      features=self.emb_dim,
      num_heads=self.num_heads,
      head_dim=self.head_dim,
      mlp_dim=self.mlp_dim,
      activations=tuple(self.mlp_activations),
      cross_attention=cross_attention,
      dropout_rate=self.dropout_rate,
      # T5 does not scale attention logits: 1/sqrt(H) is folded into the initial query kernel.
      attention_scale=1.0,
      query_init=nn.initializers.variance_scaling(1.0 / self.head_dim, 'fan_in', 'truncated_normal'),
      dtype=jnp.dtype(self.dtype),
    )


class T5Stack(nn.Module):
  """Encoder or decoder: position bias, blocks, final norm; dropout before and after."""

  config: T5Config
  decoder: bool

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config = self.config
    self.relpos_bias = RelativePositionBias(
      num_heads=config.num_heads,
      bidirectional=not self.decoder,
      num_buckets=config.relative_attention_num_buckets,
      max_distance=config.relative_attention_max_distance,
      dtype=jnp.dtype(config.dtype),
    )
    self.blocks = Stack(
      config=config.block(cross_attention=self.decoder),
      num_layers=config.num_decoder_layers if self.decoder else config.num_encoder_layers,
      scan=config.scan_layers,
      remat_policy=config.remat_policy,
    )
    self.norm = RMSNorm(dtype=jnp.dtype(config.dtype))
    self.dropout = nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))

  def __call__(
    self, x: jax.Array, context: Context, cache: LayerCache | None = None, *, deterministic: bool = True
  ) -> tuple[jax.Array, LayerCache | None]:
    """Maps embedded tokens `[B, T, D]` to `[B, T, D]`."""
    keys = x.shape[1] if cache is None else cache.self_attention.key.shape[2]
    queries = jnp.arange(x.shape[1], dtype=jnp.int32) + jnp.asarray(context.index, jnp.int32)
    bias = self.relpos_bias(queries, jnp.arange(keys, dtype=jnp.int32))
    x = nn.with_logical_constraint(x, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_EMBED))
    x = self.dropout(x, deterministic=deterministic)
    x, cache = self.blocks(x, context.replace(bias=bias), cache, deterministic=deterministic)
    return self.dropout(self.norm(x), deterministic=deterministic), cache

  def project_encoded(self, encoded: jax.Array) -> KVCache:
    """Keys and values of every layer's cross-attention, `[Y, B, S, N, H]`."""
    return self.blocks.project_encoded(encoded)


class T5(nn.Module):
  """The whole model; reads the `encoder_` and `decoder_` keys of a batch (see `core.batch`)."""

  config: T5Config

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config = self.config
    self.token_embedder = Embed(config.vocab_size, config.emb_dim, dtype=jnp.dtype(config.dtype))
    self.encoder = T5Stack(config, decoder=False)
    self.decoder = T5Stack(config, decoder=True)
    if not config.logits_via_embedding:
      self.logits_dense = output_embed(config.vocab_size, config.emb_dim)

  def __call__(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """float32 logits `[B, T, V]` of every decoder position."""
    return self.factored_logits(batch, deterministic=deterministic).logits()

  def factored_logits(self, batch: Batch, *, deterministic: bool = True) -> FactoredLogits:
    """The same logits, not yet multiplied out."""
    encoded = self.encode(batch, deterministic=deterministic)
    context = Context(
      mask=Mask(batch['decoder_segment_ids'], batch['decoder_segment_ids'], causal=True),
      encoded=encoded,
      cross_mask=Mask(batch['decoder_segment_ids'], batch['encoder_segment_ids']),
    )
    x = self.token_embedder(batch['decoder_input_tokens'])
    hidden, _ = self.decoder(x, context, deterministic=deterministic)
    return self._attend(hidden)

  def encode(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """Encoder output `[B, S, D]` for `encoder_input_tokens` and `encoder_segment_ids`."""
    segments = batch['encoder_segment_ids']
    x = self.token_embedder(batch['encoder_input_tokens'])
    return self.encoder(x, Context(mask=Mask(segments, segments)), deterministic=deterministic)[0]

  def init_cache(self, max_length: int, encoded: jax.Array, encoder_segment_ids: jax.Array) -> DecodeCache:
    """An empty cache for `max_length` decoder positions, with the encoder's output projected for every layer.

    Args:
      max_length: number of positions that will be decoded at most.
      encoded: `[B, S, D]` from `encode`.
      encoder_segment_ids: int32 `[B, S]`, one example a row: 1, and 0 for padding.
    """
    config = self.config
    empty = KVCache.empty(encoded.shape[0], max_length, config.num_heads, config.head_dim, jnp.dtype(config.dtype))
    stacked = jax.tree.map(lambda x: jnp.broadcast_to(x, (config.num_decoder_layers, *x.shape)), empty)
    layers = LayerCache(self_attention=stacked, cross_attention=self.decoder.project_encoded(encoded))
    return DecodeCache(layers=layers, index=jnp.zeros((), jnp.int32), encoder_segment_ids=encoder_segment_ids)

  def decode_with_cache(self, tokens: jax.Array, cache: DecodeCache) -> tuple[jax.Array, DecodeCache]:
    """Reads the next T inputs of the decoder, int32 `[B, T]`; returns float32 logits `[B, T, V]` and the next cache."""
    assert cache.encoder_segment_ids is not None
    # Every row holds one example here, so a query sees whatever is not padding.
    queries = jnp.ones(tokens.shape, jnp.int32)
    context = Context(
      mask=Mask(causal=True),
      cross_mask=Mask(queries, cache.encoder_segment_ids),
      index=cache.index,
    )
    hidden, layers = self.decoder(self.token_embedder(tokens), context, cache.layers)
    return self._attend(hidden).logits(), cache.replace(layers=layers, index=cache.index + tokens.shape[1])

  def flops_per_step(self, spec: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Analytic FLOPs of a training step on batches of these shapes, forward and backward (see `nn.flops`)."""
    config = self.config
    batch, inputs = spec['encoder_input_tokens'].shape
    _, targets = spec['decoder_input_tokens'].shape
    row = config.num_encoder_layers * flops.block_flops(config.block(cross_attention=False), inputs)
    row += config.num_decoder_layers * flops.block_flops(config.block(cross_attention=True), targets, inputs)
    row += flops.logits_flops(targets, config.emb_dim, config.vocab_size)
    return float(flops.BACKWARD_TOO * batch * row)

  def _attend(self, hidden: jax.Array) -> FactoredLogits:
    if not self.config.logits_via_embedding:
      return self.logits_dense.attend(hidden)
    # The table is initialised for the input side; as an output projection it wants 1/sqrt(D) (Mesh TensorFlow).
    return self.token_embedder.attend(hidden * jnp.asarray(self.config.emb_dim**-0.5, hidden.dtype))
