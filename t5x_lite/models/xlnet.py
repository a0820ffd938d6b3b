"""XLNet (Yang et al. 2019): permutation language modelling in two streams, over Transformer-XL's relative attention.

The behaviour, down to `bi_data`, `clamp_len` and `same_length`, is that of Hugging Face's `modeling_xlnet`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from t5x_lite.core import axes
from t5x_lite.core.batch import (
  DECODER,
  INPUT_TOKENS,
  ORDER,
  PERM_MASK,
  POOL_POSITION,
  SEGMENT_IDS,
  TARGET_MAPPING,
  TOKEN_TYPE_IDS,
  Batch,
  is_labelled,
  key,
)
from t5x_lite.core.errors import UsageError
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.models import heads
from t5x_lite.models.config import ModelConfig, check_choice
from t5x_lite.models.xlnet_cache import XlnetCache
from t5x_lite.nn import flops
from t5x_lite.nn.attend import AUTO, XLA
from t5x_lite.nn.cache import KVCache
from t5x_lite.nn.embed import Embed
from t5x_lite.nn.intermediates import HIDDEN_STATES, leave, vectors_of_tokens
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.relative_attention import (
  RelativeBlock,
  RelativeCache,
  RelativeContext,
  Streams,
  cached_distances,
  relative_distances,
  relative_sinusoids,
)
from t5x_lite.nn.transformer import BlockConfig, Stack

ATTENTION_KINDS = ('bi', 'uni')


@dataclasses.dataclass(frozen=True)
class XlnetConfig(ModelConfig):
  """Sizes and flavour of an XLNet; the defaults are those of XLNet base. See `ModelConfig` for the other fields.

  Attributes:
    num_layers: Y.
    attn_type: 'bi', every position sees all others (XLNet), or 'uni', those before it (Transformer-XL).
    same_length: with 'uni', every position sees as many others: as many as the memory holds.
    bi_data: whether the second half of a batch is read backwards: its distances are negative.
    clamp_len: distance from which on all are one; 0: none.
    mem_len: positions that the memory holds; 0: all there ever were.
    reuse_len: positions from the start of each segment of text that enter the memory; 0: all.
    norm_epsilon: of every norm.
    initializer_range: standard deviation of the initial weights.
  """

  vocab_size: int = 32000
  emb_dim: int = 768
  num_heads: int = 12
  mlp_dim: int = 3072
  mlp_activations: tuple[str, ...] = ('gelu_exact',)
  heads: tuple[str, ...] = ('lm',)
  dropout_rate: float = 0.1
  num_layers: int = 12
  attn_type: str = 'bi'
  same_length: bool = False
  bi_data: bool = False
  clamp_len: int = 0
  mem_len: int = 0
  reuse_len: int = 0
  norm_epsilon: float = 1e-12
  initializer_range: float = 0.02

  def __post_init__(self) -> None:
    super().__post_init__()
    check_choice('attn_type of XlnetConfig', self.attn_type, ATTENTION_KINDS)
    if self.attention not in (AUTO, XLA):
      raise UsageError(
        f"XlnetConfig.attention is {self.attention!r}, which has none of relative attention's scores: "
        f'expected {AUTO!r} or {XLA!r}'
      )
    if self.num_kv_heads not in (None, self.num_heads):
      raise UsageError(f'XlnetConfig.num_kv_heads is {self.num_kv_heads}: relative attention has no grouped heads')
    if self.num_experts:
      # Experts fill up from the start of a row: whether there is room would tell of what is later in the order.
      raise UsageError(
        f'XlnetConfig.num_experts is {self.num_experts}: expected 0, experts know no factorisation order'
      )
    if self.prompt_length:
      raise UsageError(
        f'XlnetConfig.prompt_length is {self.prompt_length}: expected 0, a prompt has no place in a factorisation order'
      )
    if self.emb_dim % 2:
      raise UsageError(f'XlnetConfig.emb_dim is {self.emb_dim}: expected an even number, of sines and cosines')

  @classmethod
  def known_heads(cls) -> tuple[str, ...]:
    """The language model, and all task heads but next sentence prediction."""
    return ('lm', *(name for name in heads.TASK_HEADS if name != 'nsp'))

  @classmethod
  def least(cls, field: str) -> int:
    """0 stands for no limit."""
    return 0 if field in ('clamp_len', 'mem_len', 'reuse_len') else super().least(field)

  def block(self) -> BlockConfig:
    """The block of every layer."""
    init = nn.initializers.normal(self.initializer_range)
    return self.block_config(
      norm='layer',
      norm_epsilon=self.norm_epsilon,
      norm_placement='post',
      use_bias=True,
      shared_dropout=False,
      query_init=init,
      kernel_init=init,
      out_init=init,
    )


class LanguageModel(nn.Module):
  """The embedding table as output projection, with a bias."""

  @nn.compact
  def __call__(self, hidden: jax.Array, table: Embed) -> FactoredLogits:
    """Logits over the rows of the table, for `[B, L, D]`."""
    return dataclasses.replace(table.attend(hidden), bias=heads.output_bias(self, table.num_embeddings))


class Xlnet(nn.Module):
  """The whole model; reads the `decoder_` keys of a batch (see `core.batch`), whose input tokens are not shifted.

  With `decoder_order` or `decoder_target_mapping` there are two streams, and every output is of the query stream; with
  neither, it is one stream that sees everything, for fine-tuning. As in Hugging Face's XLNet, a batch may have

      decoder_perm_mask       [B, L, L], 1 where position i must not see position j; the content stream sees itself
      decoder_target_mapping  float32 [B, P, L], one-hot: the positions that the P queries stand at; all outputs, and
                              the targets, are then [B, P]

  A query that `decoder_order` lets see nothing is given zeros; by `decoder_perm_mask`, a mean of everything, as there.
  """

  config: XlnetConfig

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    init = nn.initializers.normal(config.initializer_range)
    self.tokens = Embed(config.vocab_size, config.emb_dim, dtype=dtype, embedding_init=init)
    # What the query stream starts from everywhere.
    self.mask_emb = self.param(
      'mask_emb', nn.with_logical_partitioning(init, (axes.EMBED,)), (config.emb_dim,), jnp.float32
    )
    self.blocks = Stack(
      config.block(),
      config.num_layers,
      scan=config.scan_layers,
      remat_policy=config.remat_policy,
      block=RelativeBlock,
    )
    self.dropout = config.block().make_dropout()
    if 'lm' in config.heads:
      self.lm = LanguageModel()
    self.heads = heads.TaskHeads(
      names=tuple(name for name in config.heads if name in heads.TASK_HEADS),
      num_labels=config.num_labels,
      pool='last',
      dropout_rate=config.dropout_rate,
      dtype=dtype,
      kernel_init=init,
    )

  def __call__(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """What the first of the configured heads says, float32; the last hidden state if there is none."""
    outputs = self.outputs(batch, deterministic=deterministic)
    return outputs[heads.primary_output(self.config.heads)]

  def outputs(
    self, batch: Batch, *, mems: jax.Array | Sequence[jax.Array] | None = None, deterministic: bool = True
  ) -> dict[str, jax.Array]:
    """Everything, float32, P being L where there is no target mapping.

    Args:
      batch: the `decoder_` keys.
      mems: `[Y, B, M, D]`, the `mems` of the segments of text before; all positions see all of it.
      deterministic: whether dropout is off.

    Returns:
      `last_hidden_state` `[B, P, D]`, `lm_logits` `[B, P, V]`, those of `heads.TaskHeads`, and `mems`
      `[Y, B, M', D]`: what entered each layer, up to `config.mem_len` positions.
    """
    config = self.config
    segments = batch[key(DECODER, SEGMENT_IDS)]
    memory = jnp.zeros((config.num_layers, segments.shape[0], 0, config.emb_dim)) if mems is None else jnp.asarray(mems)
    hidden, memory = self._run(batch, memory, deterministic=deterministic)
    assert memory is not None
    outputs = {'last_hidden_state': hidden.astype(jnp.float32), 'mems': memory.astype(jnp.float32)}
    if 'lm' in config.heads:
      outputs['lm_logits'] = self.lm(hidden, self.tokens).logits()
    if key(DECODER, TARGET_MAPPING) in batch:
      segments = jnp.ones(hidden.shape[:2], jnp.int32)
    position = batch.get(key(DECODER, POOL_POSITION))
    return outputs | self.heads(hidden, segments, position, deterministic=deterministic)

  def factored_logits(self, batch: Batch, *, deterministic: bool = True) -> FactoredLogits:
    """Logits of the language model at every position, or target, not yet multiplied out."""
    return self.lm(self._run(batch, None, deterministic=deterministic)[0], self.tokens)

  def label_logits(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """Logits of the head for labels at every position, float32 `[B, L, C]`; rows may hold several examples."""
    hidden = self._run(batch, None, deterministic=deterministic)[0]
    segments = batch[key(DECODER, SEGMENT_IDS)]
    outputs = self.heads(hidden, segments, deterministic=deterministic, everywhere=True)
    return outputs[heads.OUTPUTS[heads.answering(self.config.heads)]]

  def init_cache(self, batch_size: int, max_length: int) -> XlnetCache:
    """An empty cache for `batch_size` rows of at most `max_length` positions, padding included.

    Raises:
      UsageError: the configuration has a memory that no text is written with.
    """
    config = self.config
    for field in ('bi_data', 'same_length', 'reuse_len'):
      if getattr(config, field):
        raise UsageError(
          f'XlnetConfig.{field} is {getattr(config, field)}: expected {type(getattr(config, field))()!r} to write'
        )
    content = KVCache.empty(batch_size, max_length, config.num_heads, config.head_dim, jnp.dtype(config.dtype))
    distances = cached_distances(max_length)
    if config.clamp_len:
      distances = np.clip(distances, -config.clamp_len, config.clamp_len)
    sinusoids = relative_sinusoids(distances[None], config.emb_dim).astype(config.dtype)
    by_distance: Any = self.blocks.project_encoded(sinusoids)
    if config.scan_layers:
      content = jax.tree.map(lambda x: jnp.broadcast_to(x, (config.num_layers, *x.shape)), content)
      layers: Any = RelativeCache(content, by_distance)
    else:
      layers = tuple(RelativeCache(content, each) for each in by_distance)
    segments = jnp.zeros((batch_size, max_length), jnp.int32)
    return XlnetCache(layers, jnp.zeros((), jnp.int32), segments, jnp.zeros((batch_size, 1), jnp.int32))

  def decode_with_cache(
    self, tokens: jax.Array, cache: XlnetCache, segment_ids: jax.Array | None = None, *, last_only: bool = True
  ) -> tuple[jax.Array, XlnetCache]:
    """Reads the next tokens, and says what the query stream makes of the position behind them.

    The memory is that of Hugging Face's `prepare_inputs_for_generation`: the last two tokens are read at each step, the
    first of them for the second time, now that the one behind it is known; what is before them is remembered.

    Args:
      tokens: int32 `[B, P]`, a prompt padded on the left; or `[B, K]`, one token of each of K continuations.
      cache: what was read before.
      segment_ids: int32 `[B, P]`, 0 where a prompt is padding; None: nowhere.
      last_only: True; there are no other logits.

    Returns:
      float32 logits `[B, 1, V]` or `[B, K, V]`, and the next cache.
    """
    assert last_only
    config, shape = self.config, tokens.shape
    rows, slots = cache.segment_ids.shape
    index, chunk = cache.index, tokens
    if cache.started:
      tokens = tokens.reshape(rows, 1)
      index, chunk = cache.index - 1, jnp.concatenate([cache.last, tokens], axis=1)
    own = jnp.ones_like(tokens) if segment_ids is None else segment_ids
    known = jax.lax.dynamic_update_slice(cache.segment_ids, own, (0, cache.index))
    places = jnp.arange(slots, dtype=jnp.int32)
    remembered = places >= index - max(config.mem_len - 2, 0) if config.mem_len else jnp.ones(slots, bool)
    visible = ((known > 0) & remembered)[:, None, None]
    queries = index + jnp.arange(chunk.shape[1], dtype=jnp.int32)[:, None]
    seen = visible & (places <= queries) if config.attn_type == 'uni' else visible
    context = RelativeContext(content_mask=seen | (places == queries), query_mask=visible, index=index)
    query = jnp.broadcast_to(self.mask_emb.astype(config.dtype), (rows, 1, config.emb_dim))
    streams, layers = self.blocks(Streams(self.tokens(chunk), query), context, cache.layers)
    logits = self.lm(streams.query, self.tokens).logits()
    cache = cache.replace(
      layers=layers, index=cache.index + tokens.shape[1], segment_ids=known, last=tokens[:, -1:], started=True
    )
    return logits.reshape(shape[0], -1, logits.shape[-1]), cache

  def flops_per_step(self, spec: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Analytic FLOPs of a training step on batches of these shapes (see `nn.flops`)."""
    config, mapping = self.config, spec.get(key(DECODER, TARGET_MAPPING))
    batch, length = spec[key(DECODER, INPUT_TOKENS)].shape
    queries = length if mapping is None else mapping.shape[1]
    width, joined = config.emb_dim, config.num_heads * config.head_dim
    # Against all content, 2 L distances and, where there are segments, the vectors of two.
    scores = 2 * length * joined * (3 * length + (2 if key(DECODER, TOKEN_TYPE_IDS) in spec else 0))
    keys_values = 2 * length * width * 2 * joined

    def stream(positions: int) -> int:
      """Queries, scores, the sum of values, outputs and MLP."""
      mlp = 2 * positions * width * config.mlp_dim * (len(config.mlp_activations) + 1)
      return 2 * positions * width * 2 * joined + scores + 2 * length * length * joined + mlp

    row = config.num_layers * (keys_values + stream(length))
    if _has_query_stream(spec):
      # Nothing needs the content that the last layer makes, only the keys and values of what it reads.
      row += config.num_layers * stream(queries) - stream(length)
      if mapping is not None:
        row += config.num_layers * 2 * 2 * queries * length * joined
    if not is_labelled(spec):  # else a head for labels, which is small
      row += flops.logits_flops(queries, width, config.vocab_size)
    # The rows of a batch share the projection of the sinusoids.
    shared = config.num_layers * 2 * 2 * length * width * joined * (2 if config.bi_data else 1)
    return float(flops.BACKWARD_TOO * (batch * row + shared))

  def _run(self, batch: Batch, memory: jax.Array | None, *, deterministic: bool) -> tuple[jax.Array, jax.Array | None]:
    """The last hidden state of the stream that predicts, and the next memory, if there is to be one."""
    config = self.config
    content = vectors_of_tokens(self, DECODER, self.tokens(batch[key(DECODER, INPUT_TOKENS)]))
    context = _context(config, batch, 0 if memory is None else memory.shape[2])
    assert context.sinusoids is not None
    context = context.replace(sinusoids=self.dropout(context.sinusoids, deterministic=deterministic))
    query = None
    if _has_query_stream(batch):
      mapping = context.target_mapping
      shape = (content.shape[0], content.shape[1] if mapping is None else mapping.shape[1], config.emb_dim)
      query = jnp.broadcast_to(self.mask_emb.astype(content.dtype), shape)
      query = self.dropout(query, deterministic=deterministic)
    streams = Streams(self.dropout(content, deterministic=deterministic), query)
    streams, memory = self.blocks(streams, context, memory, deterministic=deterministic)
    leave(self, HIDDEN_STATES, 'last_content', streams.content)
    if streams.query is not None:
      leave(self, HIDDEN_STATES, 'last_query', streams.query)
    hidden = streams.content if streams.query is None else streams.query
    return self.dropout(hidden, deterministic=deterministic), memory


def _has_query_stream(batch: Mapping[str, object]) -> bool:
  return key(DECODER, ORDER) in batch or key(DECODER, TARGET_MAPPING) in batch


def _context(config: XlnetConfig, batch: Batch, memory: int) -> RelativeContext:
  """What all blocks see alike, for a batch that follows `memory` remembered positions."""
  rows, length = batch[key(DECODER, INPUT_TOKENS)].shape
  query_mask = _visible(config, batch, memory, see_self=False)
  types, other_segment = batch.get(key(DECODER, TOKEN_TYPE_IDS)), None
  if types is not None:
    of_keys = jnp.pad(types, ((0, 0), (memory, 0)))  # all memory is of segment 0
    other_segment = types[:, :, None] != of_keys[:, None, :]
  informed = None
  if key(DECODER, ORDER) in batch and not memory:
    informed = jnp.any(query_mask[:, 0], axis=-1)
  return RelativeContext(
    sinusoids=_sinusoids(config, rows, length, length + memory),
    content_mask=_visible(config, batch, memory, see_self=True),
    query_mask=query_mask,
    other_segment=other_segment,
    target_mapping=batch.get(key(DECODER, TARGET_MAPPING)),
    informed=informed,
    mem_len=config.mem_len,
    reuse_len=config.reuse_len,
  )


def _visible(config: XlnetConfig, batch: Batch, memory: int, *, see_self: bool) -> jax.Array:
  """The mask of a stream, bool `[B, 1, L, memory + L]`; all memory is visible to all."""
  segments, order = batch[key(DECODER, SEGMENT_IDS)], batch.get(key(DECODER, ORDER))
  hidden = batch.get(key(DECODER, PERM_MASK))
  length = segments.shape[1]
  mask = Mask(
    # Nobody sees padding. It sees the last example of its row, as in Hugging Face's, not to differ even there.
    query_segments=jnp.where(segments > 0, segments, jnp.max(segments, axis=1, keepdims=True)),
    key_segments=segments,
    query_order=order,
    key_order=order,
    visible=None if hidden is None else hidden == 0,
    causal=config.attn_type == 'uni',
    see_self=see_self,
  )
  visible = mask.materialise(length, length)
  assert visible is not None, 'segments make a mask'
  if see_self:
    visible |= np.eye(length, dtype=bool)
  visible = jnp.pad(visible, ((0, 0), (0, 0), (0, 0), (memory, 0)), constant_values=True)
  if config.attn_type == 'uni' and config.same_length:
    visible &= np.arange(length + memory) >= np.arange(length)[:, None]
  return visible


def _sinusoids(config: XlnetConfig, rows: int, queries: int, keys: int) -> jax.Array:
  """Of all distances, `[G, T + S, D]`; see `RelativeContext`."""
  distances = relative_distances(queries, keys)[None]
  if config.bi_data:
    if rows % 2:
      raise UsageError(f'a batch of {rows} rows does not divide into halves: XlnetConfig.bi_data wants an even number')
    distances = np.concatenate([distances, -distances])
  if config.clamp_len:
    distances = np.clip(distances, -config.clamp_len, config.clamp_len)
  return relative_sinusoids(distances, config.emb_dim).astype(config.dtype)
