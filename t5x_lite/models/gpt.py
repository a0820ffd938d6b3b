"""GPT-2 (Radford et al. 2019) and GPT-3 (Brown et al. 2020): a decoder alone, pre-norm, with learned positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from t5x_lite.core.batch import DECODER, INPUT_TOKENS, POOL_POSITION, POSITIONS, PREFIX, SEGMENT_IDS, Batch, key
from t5x_lite.core.errors import UsageError
from t5x_lite.core.logits import FactoredLogits
from t5x_lite.models import heads
from t5x_lite.models.config import ModelConfig, check_choice, check_length
from t5x_lite.nn import attend, flops
from t5x_lite.nn.adapter import extended
from t5x_lite.nn.cache import DecodeCache, SlotCache, empty_layers, slot_dtype
from t5x_lite.nn.embed import Embed, output_embed
from t5x_lite.nn.intermediates import HIDDEN_STATES, leave, vectors_of_tokens
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.norm import NORMS
from t5x_lite.nn.positions import LearnedPositions, sinusoidal_positions
from t5x_lite.nn.transformer import BlockConfig, Context, Stack

POSITION_KINDS = ('learned', 'sinusoidal', 'rotary', 'none')
LAYER_KINDS = ('dense', 'local')


@dataclasses.dataclass(frozen=True)
class GptConfig(ModelConfig):
  """Sizes and flavour of a GPT; the defaults are those of GPT-2 small. See `ModelConfig` for the other fields.

  Attributes:
    num_layers: Y.
    max_length: rows of the position table.
    positions: a name in `POSITION_KINDS`.
    norm: 'layer', or 'rms'.
    norm_epsilon: of every norm.
    use_bias: whether projections have biases.
    logits_via_embedding: whether the output projection is the embedding table.
    layer_pattern: kinds of layers, repeated over the stack: ('dense',) in GPT-2, ('dense', 'local') in GPT-3.
    attention_window: how far a local layer sees back, the position itself included; the GPT-3 paper does not say.
    initializer_range: standard deviation of the initial weights.
  """

  vocab_size: int = 50257
  emb_dim: int = 768
  num_heads: int = 12
  mlp_dim: int = 3072
  mlp_activations: tuple[str, ...] = ('gelu',)
  heads: tuple[str, ...] = ('lm',)
  dropout_rate: float = 0.1
  num_layers: int = 12
  max_length: int = 1024
  positions: str = 'learned'
  norm: str = 'layer'
  norm_epsilon: float = 1e-5
  use_bias: bool = True
  logits_via_embedding: bool = True
  layer_pattern: tuple[str, ...] = ('dense',)
  attention_window: int | None = 256
  initializer_range: float = 0.02

  def __post_init__(self) -> None:
    super().__post_init__()
    check_choice('positions of GptConfig', self.positions, POSITION_KINDS)
    if self.attention_window is None and 'local' in self.layer_pattern:
      raise UsageError("GptConfig.layer_pattern has 'local', but attention_window is None: expected how far it sees")
    for kind in self.layer_pattern or ('none',):
      check_choice('layer kind in GptConfig.layer_pattern', kind, LAYER_KINDS)

  @classmethod
  def known_heads(cls) -> tuple[str, ...]:
    """The language model, and the task heads that need no pooler."""
    return ('lm', 'classification', 'span', 'tagging')

  @property
  def windows(self) -> tuple[int | None, ...] | None:
    """How far each layer sees; None where all see alike."""
    if len(set(self.layer_pattern)) == 1:
      return None
    kinds = [self.layer_pattern[i % len(self.layer_pattern)] for i in range(self.num_layers)]
    return tuple(self.attention_window if kind == 'local' else None for kind in kinds)

  def block(self) -> BlockConfig:
    """The block of every layer."""
    init = nn.initializers.normal(self.initializer_range)
    return self.block_config(
      norm=self.norm,
      norm_epsilon=self.norm_epsilon,
      use_bias=self.use_bias,
      mlp_dropout_rate=0.0,
      shared_dropout=False,
      rotary_base=self.rotary_base if self.positions == 'rotary' else None,
      query_init=init,
      kernel_init=init,
      # Two additions a layer: the variance of the residual stream does not grow with depth (Radford et al., sec. 2.3).
      out_init=nn.initializers.normal(self.initializer_range * (2 * self.num_layers) ** -0.5),
    )


class Gpt(nn.Module):
  """The whole model; reads the `decoder_` keys of a batch (see `core.batch`)."""

  config: GptConfig

  SHARES_PROMPTS = True  # the cache keeps a prompt once for all its continuations

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config, dtype = self.config, jnp.dtype(self.config.dtype)
    init = nn.initializers.normal(config.initializer_range)
    self.tokens = Embed(config.vocab_size, config.emb_dim, dtype=dtype, embedding_init=init)
    self.soft_prompt = config.soft_prompt(init) if config.prompt_length else None
    if config.positions == 'learned':
      self.positions = LearnedPositions(config.max_length, config.emb_dim, dtype, init)
    self.blocks = Stack(
      config.block(),
      config.num_layers,
      scan=config.scan_layers,
      remat_policy=config.remat_policy,
      windows=config.windows,
    )
    self.norm: nn.Module = NORMS[config.norm](epsilon=config.norm_epsilon, dtype=dtype)
    self.dropout = nn.Dropout(config.dropout_rate)
    if not config.logits_via_embedding:
      self.logits_dense = output_embed(config.vocab_size, config.emb_dim)
    self.heads = heads.TaskHeads(
      names=tuple(name for name in config.heads if name in heads.TASK_HEADS),
      num_labels=config.num_labels,
      pool='last',
      pooler=False,
      use_bias=False,
      dropout_rate=config.dropout_rate,
      dtype=dtype,
      kernel_init=init,
    )

  def __call__(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """What the first of the configured heads says, float32; the last hidden state if there is none."""
    outputs = self.outputs(batch, deterministic=deterministic)
    return outputs[heads.primary_output(self.config.heads)]

  def outputs(self, batch: Batch, *, deterministic: bool = True) -> dict[str, jax.Array]:
    """Everything, float32: `last_hidden_state` `[B, L, D]`, `lm_logits` `[B, L, V]`, and those of `heads.TaskHeads`."""
    hidden = self.decode(batch, deterministic=deterministic)
    outputs = {'last_hidden_state': hidden.astype(jnp.float32)}
    if 'lm' in self.config.heads:
      outputs['lm_logits'] = self._attend(hidden).logits()
    segments, position = batch[key(DECODER, SEGMENT_IDS)], batch.get(key(DECODER, POOL_POSITION))
    return outputs | self.heads(hidden, segments, position, deterministic=deterministic)

  def factored_logits(self, batch: Batch, *, deterministic: bool = True) -> FactoredLogits:
    """The logits of every position, not yet multiplied out."""
    return self._attend(self.decode(batch, deterministic=deterministic))

  def decode(self, batch: Batch, *, deterministic: bool = True) -> jax.Array:
    """The last hidden state `[B, L, D]`; positions in `decoder_prefix`, if given, see each other (prefix LM)."""
    batch = extended(batch, DECODER, self.config.prompt_length)
    segments, prefix = batch[key(DECODER, SEGMENT_IDS)], batch.get(key(DECODER, PREFIX))
    mask = self._mask(segments, segments, prefix=None if prefix is None else prefix > 0)
    context = Context(mask=mask, positions=batch[key(DECODER, POSITIONS)])
    x = vectors_of_tokens(self, DECODER, self.tokens(batch[key(DECODER, INPUT_TOKENS)]))
    if self.soft_prompt is not None:
      x = self.soft_prompt(x)
    return self._run(x, context, deterministic=deterministic)[0][:, self.config.prompt_length :]

  def init_cache(self, batch_size: int, max_length: int, *, prompt_length: int = 0, branches: int = 1) -> DecodeCache:
    """A cache for `batch_size` rows of at most `max_length` positions, padding included: empty but for a soft prompt.

    Args:
      batch_size: B.
      max_length: positions of a row.
      prompt_length: of them, those that all continuations of a row share.
      branches: K, how many continuations of every row there will be.
    """
    config = self.config
    if config.positions == 'learned':
      check_length(config.prompt_length + max_length, config.max_length)
    slots = config.prompt_length + prompt_length + branches * (max_length - prompt_length)
    heads_kept = config.num_kv_heads or config.num_heads
    dtype = slot_dtype(config.dtype, attend.platform())
    empty = SlotCache.empty(batch_size, slots, heads_kept, config.head_dim, dtype)
    layers = empty_layers(config.num_layers, empty, scan=config.scan_layers)
    read = jnp.broadcast_to(jnp.arange(slots, dtype=jnp.int32) < config.prompt_length, (batch_size, slots))
    known = read.astype(jnp.int32)
    if config.prompt_length:  # Without one, an empty cache is made outside of a bound module.
      assert self.soft_prompt is not None
      own = jnp.ones((batch_size, config.prompt_length), jnp.int32)
      context = Context(mask=self._mask(own, known), positions=jnp.cumsum(own, axis=1) - 1)
      _, layers = self._run(self.soft_prompt.rows(batch_size), context, layers)
    index = jnp.full((), config.prompt_length, jnp.int32)
    return DecodeCache(layers=layers, index=index, segment_ids=known, offset=config.prompt_length)

  def decode_with_cache(
    self,
    tokens: jax.Array,
    cache: DecodeCache,
    segment_ids: jax.Array | None = None,
    *,
    bidirectional: bool = False,
    last_only: bool = False,
  ) -> tuple[jax.Array, DecodeCache]:
    """Reads the next T tokens of every row.

    Args:
      tokens: int32 `[B, T]`: a whole prompt, padded on the left, or one token more; where the cache has branches, one
        more of each of T = K continuations.
      cache: what was read before.
      segment_ids: int32 `[B, T]`, 0 where `tokens` is padding; None: nowhere.
      bidirectional: whether these tokens see each other, as the prefix of a prefix LM does.
      last_only: whether only the logits of the last token are wanted.

    Returns:
      float32 logits `[B, T, V]`, or `[B, 1, V]`, and the next cache.
    """
    assert cache.segment_ids is not None
    own = jnp.ones_like(tokens) if segment_ids is None else segment_ids
    known = jax.lax.dynamic_update_slice(cache.segment_ids, own, (0, cache.index))
    branches = None if cache.branches is None else cache.branches.read(cache.index)
    if branches is None:
      read = jnp.sum(cache.segment_ids, axis=1, keepdims=True)
      positions = jnp.maximum(read + jnp.cumsum(own, axis=1) - 1, 0)
      mask = self._mask(own, known, causal=not bidirectional)
    else:
      start = jnp.sum(cache.segment_ids[:, : branches.prompt_length], axis=1, keepdims=True)
      positions = jnp.broadcast_to(start + branches.step(cache.index), tokens.shape)
      places = jnp.broadcast_to(branches.prompt_length + branches.step(cache.index), tokens.shape[1:])
      places = (places, jnp.asarray(branches.positions()))
      mask = dataclasses.replace(self._mask(None, None, causal=False), visible=branches.visible, places=places)
    context = Context(mask=mask, positions=positions, index=cache.index)
    hidden, layers = self._run(self.tokens(tokens), context, cache.layers)
    cache = cache.replace(layers=layers, index=cache.index + tokens.shape[1], segment_ids=known, branches=branches)
    return self._attend(hidden[:, -1:] if last_only else hidden).logits(), cache

  def flops_per_step(self, spec: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """Analytic FLOPs of a training step on batches of these shapes; local layers count as dense (see `nn.flops`)."""
    config = self.config
    batch, length = spec[key(DECODER, INPUT_TOKENS)].shape
    row = config.num_layers * flops.block_flops(config.block(), length + config.prompt_length)
    row += flops.logits_flops(length, config.emb_dim, config.vocab_size)
    return float(flops.BACKWARD_TOO * batch * row)

  def _run(
    self, x: jax.Array, context: Context, cache: Any = None, *, deterministic: bool = True
  ) -> tuple[jax.Array, Any]:
    config = self.config
    assert context.positions is not None
    if config.positions == 'learned':
      x += self.positions(context.positions)
    elif config.positions == 'sinusoidal':
      x += sinusoidal_positions(context.positions, config.emb_dim).astype(x.dtype)
    x = self.dropout(x, deterministic=deterministic)
    x, cache = self.blocks(x, context, cache, deterministic=deterministic)
    x = self.norm(x)
    leave(self, HIDDEN_STATES, 'last', x)
    return x, cache

  def _mask(
    self, queries: jax.Array | None, keys: jax.Array | None, prefix: jax.Array | None = None, causal: bool = True
  ) -> Mask:
    """What all layers see at most."""
    all_local = set(self.config.layer_pattern) == {'local'}
    return Mask(queries, keys, prefix, causal=causal, window=self.config.attention_window if all_local else None)

  def _attend(self, hidden: jax.Array) -> FactoredLogits:
    return (self.tokens if self.config.logits_via_embedding else self.logits_dense).attend(hidden)
