"""T5 1.0 and 1.1 (Raffel et al. 2020): an encoder and a decoder with relative position biases; mT5 and FLAN-T5 too.

The field names, defaults and initial values are those of T5X's `network.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, Batch, key
from t5x_lite.core.errors import UsageError
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.models import heads
from t5x_lite.models.config import ModelConfig, check_choice
from t5x_lite.nn import attend, flops
from t5x_lite.nn.adapter import extended
from t5x_lite.nn.cache import Branches, DecodeCache, KVCache, LayerCache, SlotCache, empty_layers, slot_dtype
from t5x_lite.nn.embed import Embed, output_embed
from t5x_lite.nn.intermediates import HIDDEN_STATES, leave, vectors_of_tokens
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.norm import RMSNorm
from t5x_lite.nn.positions import RelativeBias, RelativePositionBias, sinusoidal_positions
from t5x_lite.nn.transformer import BlockConfig, Context, Stack

POSITION_KINDS = ('relative', 'rotary', 'sinusoidal', 'none')


@dataclasses.dataclass(frozen=True)
class T5Config(ModelConfig):
  """Sizes and flavour of a T5. See `ModelConfig` for the other fields.

  Attributes:
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder; 0: an encoder alone, whose heads read its output.
    positions: a name in `POSITION_KINDS`; T5's own are 'relative'.
    logits_via_embedding: whether the output projection is the embedding table (1.0), or a table of its own (1.1).
    relative_attention_num_buckets: buckets of the position bias.
    relative_attention_max_distance: distance from which on all share one bucket.
  """

  mlp_activations: tuple[str, ...] = ('relu',)  # ('gelu', 'linear') in T5 1.1
  heads: tuple[str, ...] = ('lm',)
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  positions: str = 'relative'
  logits_via_embedding: bool = True
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128

  def __post_init__(self) -> None:
    super().__post_init__()
    check_choice('positions of T5Config', self.positions, POSITION_KINDS)
    if self.attention_window is not None and self.positions == 'relative':
      raise UsageError(
        f"T5Config.attention_window is {self.attention_window}, with positions 'relative', whose bias is an array of "
        "length x length: expected positions 'rotary', 'sinusoidal' or 'none'"
      )
    if 'lm' in self.heads and not self.num_decoder_layers:
      raise UsageError("T5Config.heads has 'lm', but there is no decoder: expected num_decoder_layers of at least 1")

  @classmethod
  def known_heads(cls) -> tuple[str, ...]:
    """The language model, and the task heads that Hugging Face's T5 has."""
    return ('lm', 'classification', 'span', 'tagging')

  @classmethod
  def least(cls, field: str) -> int:
    """There may be no decoder."""
    return 0 if field == 'num_decoder_layers' else super().least(field)

  def block(self, cross_attention: bool) -> BlockConfig:
    """The block of one of the two stacks."""
    return self.block_config(
      cross_attention=cross_attention,
      rotary_base=self.rotary_base if self.positions == 'rotary' else None,
      # T5 does not scale attention logits: 1/sqrt(H) is folded into the initial query kernel.
      attention_scale=1.0,
      query_init=nn.initializers.variance_scaling(1.0 / self.head_dim, 'fan_in', 'truncated_normal'),
    )


class T5Stack(nn.Module):
  """Encoder or decoder: position bias, blocks, final norm; dropout before and after."""

  config: T5Config
  decoder: bool

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config = self.config
    if config.positions == 'relative':
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
    self,
    x: jax.Array,
    context: Context,
    cache: LayerCache | tuple[LayerCache, ...] | None = None,
    branches: Branches | None = None,
    *,
    deterministic: bool = True,
  ) -> tuple[jax.Array, Any]:
    """Maps embedded tokens `[B, T, D]` to `[B, T, D]`."""
    if self.config.positions == 'relative':
      context = context.replace(bias=self._bias(x.shape[1], context, cache, branches))
    elif self.config.positions == 'sinusoidal':
      assert context.positions is not None
      x += sinusoidal_positions(context.positions, self.config.emb_dim).astype(x.dtype)
    x = nn.with_logical_constraint(x, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_EMBED))
    x = self.dropout(x, deterministic=deterministic)
    x, cache = self.blocks(x, context, cache, deterministic=deterministic)
    x = self.norm(x)
    leave(self, HIDDEN_STATES, 'last', x)
    return self.dropout(x, deterministic=deterministic), cache

  def _bias(self, queries: int, context: Context, cache: Any, branches: Branches | None) -> RelativeBias | jax.Array:
    """The bias of all layers: as structure for what can use it, and else as an array, made once."""
    config, bias = self.config, self.relpos_bias()
    if branches is not None:
      own = branches.prompt_length + branches.step(jnp.asarray(context.index))
      return bias.of(branches.positions() - own)[None, :, None]
    keys = queries
    if cache is not None:
      layer = cache[0] if isinstance(cache, tuple) else cache
      keys = layer.self_attention.key.shape[-2]
    if cache is None:
      case = attend.Case(
        platform=attend.platform(),
        dtype=jnp.dtype(config.dtype),
        queries=queries,
        keys=keys,
        heads=config.num_heads,
        head_dim=config.head_dim,
        bias='relative',
        mask=context.mask,
      )
      if attend.choose(config.attention, case) in attend.STRUCTURED:
        return bias
    return bias.materialise(queries, keys, context.index)

  def project_encoded(self, encoded: jax.Array) -> KVCache | tuple[KVCache, ...]:
    """Keys and values of every layer's cross-attention (see `nn.transformer.Stack`)."""
    return self.blocks.project_encoded(encoded)


class T5(nn.Module):
  """The whole model; reads the `encoder_` and `decoder_` keys of a batch (see `core.batch`)."""

  config: T5Config

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config = self.config
    self.token_embedder = Embed(config.vocab_size, config.emb_dim, dtype=jnp.dtype(config.dtype))
    if config.prompt_length:
      self.soft_prompt = config.soft_prompt(nn.initializers.normal(1.0))
    self.encoder = T5Stack(config, decoder=False)
    if config.num_decoder_layers:
      self.decoder = T5Stack(config, decoder=True)
    if 'lm' in config.heads and not config.logits_via_embedding:
      self.logits_dense = output_embed(config.vocab_size, config.emb_dim)
    self.heads = heads.TaskHeads(
      names=tuple(name for name in config.heads if name in heads.TASK_HEADS),
      num_labels=config.num_labels,
      pool='last',
      dropout_rate=config.dropout_rate,
      dtype=jnp.dtype(config.dtype),
    )

  def __call__(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """What the first of the configured heads says, float32; the last hidden state if there is none."""
    outputs = self.outputs(batch, deterministic=deterministic)
    return outputs[heads.primary_output(self.config.heads)]

  def outputs(self, batch: Batch, *, deterministic: bool = True) -> dict[str, jax.Array]:
    """Everything, float32: `encoder_last_hidden_state` `[B, S, D]`, `last_hidden_state` `[B, T, D]` of the decoder (of
    the encoder where there is no decoder), `lm_logits` `[B, T, V]`, and those of `heads.TaskHeads`.
    """
    encoded = self.encode(batch, deterministic=deterministic)
    hidden = encoded[:, self.config.prompt_length :]
    outputs = {'encoder_last_hidden_state': hidden.astype(jnp.float32)}
    side = ENCODER
    if self.config.num_decoder_layers:
      side = DECODER
      hidden = self.decode(batch, encoded, deterministic=deterministic)
    outputs['last_hidden_state'] = hidden.astype(jnp.float32)
    if 'lm' in self.config.heads:
      outputs['lm_logits'] = self._attend(hidden).logits()
    return outputs | self.heads(hidden, batch[key(side, SEGMENT_IDS)], deterministic=deterministic)

  def factored_logits(self, batch: Batch, *, deterministic: bool = True) -> FactoredLogits:
    """The logits of every decoder position, not yet multiplied out."""
    encoded = self.encode(batch, deterministic=deterministic)
    return self._attend(self.decode(batch, encoded, deterministic=deterministic))

  def encode(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """Encoder output `[B, S, D]` for the encoder keys of a batch; S counts a soft prompt, which is in front."""
    batch = extended(batch, ENCODER, self.config.prompt_length)
    segments, positions = batch[key(ENCODER, SEGMENT_IDS)], self._positions(batch, ENCODER)
    mask = Mask(segments, segments) if positions is None else self.config.encoder_mask(segments, positions)
    context = Context(mask=mask, positions=positions)
    x = vectors_of_tokens(self, ENCODER, self.token_embedder(batch[key(ENCODER, INPUT_TOKENS)]))
    if self.config.prompt_length:
      x = self.soft_prompt(x)
    return self.encoder(x, context, deterministic=deterministic)[0]

  def decode(self, batch: Batch, encoded: jax.Array, *, deterministic: bool = True) -> jax.Array:
    """Decoder output `[B, T, D]` for the decoder keys of a batch and the encoder's output `[B, S, D]`."""
    segments = batch[key(DECODER, SEGMENT_IDS)]
    encoder_segments = extended(batch, ENCODER, self.config.prompt_length)[key(ENCODER, SEGMENT_IDS)]
    context = Context(
      mask=Mask(segments, segments, causal=True),
      encoded=encoded,
      cross_mask=Mask(segments, encoder_segments),
      positions=self._positions(batch, DECODER),
    )
    x = vectors_of_tokens(self, DECODER, self.token_embedder(batch[key(DECODER, INPUT_TOKENS)]))
    return self.decoder(x, context, deterministic=deterministic)[0]

  def init_cache(self, max_length: int, encoded: jax.Array, encoder_segment_ids: jax.Array) -> DecodeCache:
    """An empty cache for `max_length` decoder positions, with the encoder's output projected for every layer.

    Args:
      max_length: number of positions that will be decoded at most.
      encoded: `[B, S, D]` from `encode`.
      encoder_segment_ids: int32 `[B, S]`, one example a row: 1, and 0 for padding; without a soft prompt.
    """
    config = self.config
    heads_kept = config.num_kv_heads or config.num_heads
    dtype = slot_dtype(config.dtype, attend.platform())
    empty = SlotCache.empty(encoded.shape[0], max_length, heads_kept, config.head_dim, dtype)
    cross = self.decoder.project_encoded(encoded)
    segments = {key(ENCODER, SEGMENT_IDS): encoder_segment_ids}
    encoder_segment_ids = extended(segments, ENCODER, config.prompt_length)[key(ENCODER, SEGMENT_IDS)]
    layers = empty_layers(config.num_decoder_layers, empty, cross, scan=config.scan_layers)
    return DecodeCache(layers=layers, index=jnp.zeros((), jnp.int32), encoder_segment_ids=encoder_segment_ids)

  def decode_with_cache(
    self, tokens: jax.Array, cache: DecodeCache, *, last_only: bool = False
  ) -> tuple[jax.Array, DecodeCache]:
    """Reads the next inputs of the decoder; returns float32 logits `[B, T, V]` and the next cache.

    Args:
      tokens: int32 `[B, T]`: the next T inputs of every row, or, where the cache has branches, one of each of T = K
        continuations.
      cache: what was read before.
      last_only: whether only the logits of the last input are wanted, `[B, 1, V]`.
    """
    assert cache.encoder_segment_ids is not None
    # Every row holds one example here, so a query sees whatever is not padding.
    queries = jnp.ones(tokens.shape, jnp.int32)
    branches = None if cache.branches is None else cache.branches.read(cache.index)
    if branches is None:
      mask, positions = Mask(causal=True), jnp.cumsum(queries, axis=1) - 1 + cache.index
    else:
      mask = Mask(visible=branches.visible)
      positions = queries * (branches.prompt_length + branches.step(cache.index))
    context = Context(
      mask=mask, cross_mask=Mask(queries, cache.encoder_segment_ids), positions=positions, index=cache.index
    )
    hidden, layers = self.decoder(self.token_embedder(tokens), context, cache.layers, branches)
    cache = cache.replace(layers=layers, index=cache.index + tokens.shape[1], branches=branches)
    return self._attend(hidden[:, -1:] if last_only else hidden).logits(), cache

  def flops_per_step(self, spec: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Analytic FLOPs of a training step on batches of these shapes, forward and backward (see `nn.flops`)."""
    config = self.config
    batch, inputs = spec[key(ENCODER, INPUT_TOKENS)].shape
    inputs += config.prompt_length
    _, targets = spec[key(DECODER, INPUT_TOKENS)].shape
    row = config.num_encoder_layers * flops.block_flops(config.block(cross_attention=False), inputs)
    row += config.num_decoder_layers * flops.block_flops(config.block(cross_attention=True), targets, inputs)
    row += flops.logits_flops(targets, config.emb_dim, config.vocab_size)
    return float(flops.BACKWARD_TOO * batch * row)

  def _positions(self, batch: Batch, side: str) -> jax.Array | None:
    """What rotary and sinusoidal positions are made of; T5's own bias needs row indices only."""
    return None if self.config.positions == 'relative' else batch[key(side, POSITIONS)]

  def _attend(self, hidden: jax.Array) -> FactoredLogits:
    if not self.config.logits_via_embedding:
      return self.logits_dense.attend(hidden)
    # The table is initialised for the input side; as an output projection it wants 1/sqrt(D) (Mesh TensorFlow).
    return self.token_embedder.attend(hidden * jnp.asarray(self.config.emb_dim**-0.5, hidden.dtype))
