"""Relative attention of Transformer-XL (Dai et al. 2019, sec. 3.3) with the segments and the second stream of XLNet.

The score of query i and key j is the sum of a content term, `(q_i + r_w_bias) . k_j`, a position term,
`(q_i + r_r_bias) . r_(i-j)` with `r` projected sinusoids, and a segment term, `(q_i + r_s_bias) . s`, where `s` is
one vector for keys of the query's own segment and another for all others (Yang et al. 2019, sec. 2.5). The first is
plain attention; the other two are an additive bias of it, so that masks, dropout and kernels are those of all models.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from t5x_lite.core import axes
from t5x_lite.nn.cache import KVCache
from t5x_lite.nn.dot_product import attention_weights, dot_product_attention, whole_length
from t5x_lite.nn.intermediates import ATTENTIONS, HIDDEN_STATES, asked_for, leave
from t5x_lite.nn.linear import Dense, Initializer
from t5x_lite.nn.transformer import BlockConfig, adapted

_HEADS = (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_HEADS, axes.ACT_KV)
_STREAM = (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_EMBED)


def relative_distances(queries: int, keys: int) -> np.ndarray:
  """Every distance `query index - key index` there can be, int32 `[T + S]`, from S down to 1 - T.

  The last of `queries` queries stands at the last of `keys` keys: what is more of those is memory.
  """
  return np.arange(keys, -queries, -1, dtype=np.int32)


def relative_sinusoids(distances: jax.Array | np.ndarray, features: int) -> jax.Array:
  """Fixed vectors, float32 `[..., D]`, of distances `[...]`: all sines, then all cosines.

  The wavelengths are those of Vaswani et al. 2017, sec. 3.5; `nn.positions.sinusoidal_positions` has Tensor2Tensor's.
  """
  assert features % 2 == 0, features
  exponents = np.arange(0, features, 2, dtype=np.float32) / np.float32(features)
  angles = jnp.asarray(distances, jnp.float32)[..., None] / np.power(np.float32(10_000), exponents)
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def relative_shift(x: jax.Array) -> jax.Array:
  """From scores by distance `[..., T, T + S]`, in the order of `relative_distances`, to scores by key `[..., T, S]`.

  Key j stands for query i in column T - i + j. Read as T + S rows of T, and without the first of them, row i of the
  scores begins i columns earlier, which no gather need look up (Dai et al. 2019, appendix B).
  """
  *leading, queries, distances = x.shape
  x = x.reshape(*leading, distances, queries)[..., 1:, :]
  return x.reshape(*leading, queries, distances - 1)[..., : distances - queries]


class RelativeContext(struct.PyTreeNode):
  """What all blocks of a stack see alike.

  Attributes:
    sinusoids: of `relative_distances`, `[G, T + S, D]`: all rows of the batch share them (G = 1), or the first half of
      the rows has one and the second half the other (G = 2, XLNet's `bi_data`).
    content_mask: bool `[B or 1, 1, T, S]` of the content stream, True where visible; None: everything is.
    query_mask: the same of the query stream.
    other_segment: bool `[B, T, S]`, whether a query and a key are of different segments; None: nothing is.
    target_mapping: `[B, P, T]`, one-hot: the position that each of P queries stands at; None: one query a position.
    informed: bool `[B, T]`, the queries that see anything at all; the others are given zeros, where softmax would give
      them a mean of what they must not see. None: all are.
    mem_len: positions that the memory holds; 0: all there ever were.
    reuse_len: positions from the start of each segment of text that enter the memory; 0: all.
    index: int32 scalar, with a `RelativeCache`: the slot of the first position of the content stream.
  """

  sinusoids: jax.Array | None = None
  content_mask: jax.Array | None = None
  query_mask: jax.Array | None = None
  other_segment: jax.Array | None = None
  target_mapping: jax.Array | None = None
  informed: jax.Array | None = None
  index: jax.Array | None = None
  mem_len: int = struct.field(pytree_node=False, default=0)
  reuse_len: int = struct.field(pytree_node=False, default=0)


class RelativeCache(struct.PyTreeNode):
  """What one block needs to decode.

  Attributes:
    content: keys and values of what was read, `[B, S, N, H]`.
    by_distance: `position_keys` of `cached_distances`, `[1, 2 S + 1, N, H]`.
  """

  content: KVCache
  by_distance: jax.Array

  def positions(self, first: jax.Array, queries: int) -> jax.Array:
    """The keys of distances that queries at `first` and the next T - 1 slots have, `[1, T + S, N, H]`."""
    slots = self.content.key.shape[1]
    return jax.lax.dynamic_slice_in_dim(self.by_distance, slots + 1 - first - queries, queries + slots, axis=1)


def cached_distances(slots: int) -> np.ndarray:
  """Every distance between one of S slots, or the one behind them, and one of them: int32 `[2 S + 1]`, falling."""
  return np.arange(slots + 1, -slots, -1, dtype=np.int32)


class RelativeAttention(nn.Module):
  """Multi-head attention by content, distance and segment; the kernels are matrices, as everywhere.

  Attributes:
    num_heads: N.
    head_dim: H.
    features: width D of the output.
    dropout_rate: dropout on the attention weights.
    shared_dropout: see `nn.dot_product.dot_product_attention`.
    dtype: dtype of activations.
    kernel_init: initialiser of all parameters (XLNet).
  """

  num_heads: int
  head_dim: int
  features: int
  dropout_rate: float = 0.0
  shared_dropout: bool = True
  dtype: Any = jnp.float32
  kernel_init: Initializer = nn.initializers.normal(0.02)

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    joined = self.num_heads * self.head_dim
    into = (axes.EMBED, axes.JOINED_KV)
    self.query = Dense(joined, into, dtype=self.dtype, kernel_init=self.kernel_init)
    self.key = Dense(joined, into, dtype=self.dtype, kernel_init=self.kernel_init)
    self.value = Dense(joined, into, dtype=self.dtype, kernel_init=self.kernel_init)
    self.position = Dense(joined, into, dtype=self.dtype, kernel_init=self.kernel_init)
    self.out = Dense(self.features, (axes.JOINED_KV, axes.EMBED), dtype=self.dtype, kernel_init=self.kernel_init)
    heads = (self.num_heads, self.head_dim)
    init = nn.with_logical_partitioning(self.kernel_init, (axes.HEADS, None))
    self.r_w_bias = self.param('r_w_bias', init, heads, jnp.float32)
    self.r_r_bias = self.param('r_r_bias', init, heads, jnp.float32)
    self.r_s_bias = self.param('r_s_bias', init, heads, jnp.float32)
    init = nn.with_logical_partitioning(self.kernel_init, (None, axes.HEADS, None))
    self.seg_embed = self.param('seg_embed', init, (2, *heads), jnp.float32)

  def keys_values(self, x: jax.Array) -> KVCache:
    """Projects content, with the memory before it, `[B, S, D]` to keys and values `[B, S, N, H]`."""
    return KVCache(key=self._heads(self.key(x)), value=self._heads(self.value(x)))

  def position_keys(self, sinusoids: jax.Array) -> jax.Array:
    """Projects sinusoids `[G, T + S, D]` to `[G, T + S, N, H]`."""
    projected = self.position(sinusoids)
    return projected.reshape(*projected.shape[:-1], self.num_heads, self.head_dim)

  def __call__(
    self,
    x: jax.Array,
    past: KVCache,
    positions: jax.Array,
    context: RelativeContext,
    *,
    query_stream: bool = False,
    deterministic: bool = True,
  ) -> jax.Array:
    """Attends from one stream to the content.

    Args:
      x: `[B, T, D]`; `[B, P, D]` of a query stream with a target mapping.
      past: from `keys_values`, `[B, S, N, H]`.
      positions: from `position_keys`, `[G, T + S, N, H]`.
      context: masks and segments.
      query_stream: whether `x` is the query stream, which does not see the content of its own positions.
      deterministic: whether nothing is dropped out.

    Returns:
      What is to be added to `x`, of the same shape.
    """
    query = self._heads(self.query(x))
    mapping = context.target_mapping if query_stream else None
    if mapping is not None:
      query = jnp.einsum('bpnh,bpt->btnh', query, mapping.astype(self.dtype))
    scale, past = self.head_dim**-0.5, whole_length(past)
    mask = context.query_mask if query_stream else context.content_mask
    if asked_for(self, ATTENTIONS):
      bias = self._relative_scores(query, positions, context.other_segment) * scale
      by_content = query + self.r_w_bias.astype(self.dtype)
      weights = attention_weights(by_content, past.key, bias=bias, mask=mask, scale=scale)
      if query_stream and context.informed is not None:
        weights *= context.informed[:, None, :, None].astype(weights.dtype)
      leave(self, ATTENTIONS, 'query_weights' if query_stream else 'content_weights', weights)
    attended = dot_product_attention(
      query + self.r_w_bias.astype(self.dtype),
      past.key,
      past.value,
      bias=self._relative_scores(query, positions, context.other_segment) * scale,
      mask=mask,
      scale=scale,
      dropout_rate=self.dropout_rate,
      dropout_key=None if deterministic or self.dropout_rate == 0.0 else self.make_rng('dropout'),
      shared_dropout=self.shared_dropout,
    )
    if query_stream and context.informed is not None:
      attended *= context.informed[:, :, None, None].astype(self.dtype)
    if mapping is not None:
      attended = jnp.einsum('btnh,bpt->bpnh', attended, mapping.astype(self.dtype))
    return self.out(attended.reshape(*attended.shape[:-2], -1))

  def _relative_scores(self, query: jax.Array, positions: jax.Array, other_segment: jax.Array | None) -> jax.Array:
    """The position and segment terms, float32 `[B, N, T, S]`."""
    rows = query.shape[0]
    by_direction = (query + self.r_r_bias.astype(self.dtype)).reshape(positions.shape[0], -1, *query.shape[1:])
    scores = jnp.einsum('gbtnh,gpnh->gbntp', by_direction, positions, preferred_element_type=jnp.float32)
    scores = relative_shift(scores.reshape(rows, *scores.shape[2:]))
    if other_segment is None:
      # A constant of each query then, which softmax takes out.
      return scores
    by_segment = jnp.einsum(
      'btnh,cnh->cbnt',
      query + self.r_s_bias.astype(self.dtype),
      self.seg_embed.astype(self.dtype),
      preferred_element_type=jnp.float32,
    )
    same, other = by_segment[..., None]
    return scores + jnp.where(other_segment[:, None], other, same)

  def _heads(self, x: jax.Array) -> jax.Array:
    return nn.with_logical_constraint(x.reshape(*x.shape[:-1], self.num_heads, self.head_dim), _HEADS)


class Streams(struct.PyTreeNode):
  """The two streams (Yang et al. 2019, sec. 2.3), which share all parameters.

  Attributes:
    content: `[B, L, D]`, knows what stands at each position.
    query: `[B, P, D]`, knows where its positions are and what the others hold; None where nothing is predicted.
  """

  content: jax.Array
  query: jax.Array | None = None


class RelativeBlock(nn.Module):
  """Relative attention and MLP, post-norm, over one stream or two; made and called as `nn.transformer.Block` is."""

  config: BlockConfig

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config = self.config
    self.self_attention = RelativeAttention(
      num_heads=config.num_heads,
      head_dim=config.head_dim,
      features=config.features,
      dropout_rate=config.dropout_rate,
      shared_dropout=config.shared_dropout,
      dtype=config.dtype,
      kernel_init=config.kernel_init,
    )
    self.self_attention_adapter = config.make_adapter()
    self.self_attention_norm = config.make_norm()
    self.mlp = config.make_mlp()
    self.mlp_adapter = config.make_adapter()
    self.mlp_norm = config.make_norm()
    self.dropout = config.make_dropout()

  def __call__(
    self, x: Streams, memory: Any, window: None, context: RelativeContext, deterministic: bool
  ) -> tuple[Streams, Any]:
    """Maps both streams, and the memory `[B, M, D]` of this layer to that of the next segment, or its `RelativeCache`
    to one that knows the content too; with one, the query stream is the position behind the content.
    """
    assert window is None, 'a window for relative attention'
    leave(self, HIDDEN_STATES, 'content', x.content)
    if x.query is not None:
      leave(self, HIDDEN_STATES, 'query', x.query)
    attention, content = self.self_attention, x.content
    if isinstance(memory, RelativeCache):
      assert context.index is not None
      read = attention.keys_values(content)
      past = memory.content.write(read.key, read.value, context.index)
      of_content = memory.positions(context.index, content.shape[1])
      of_query = memory.positions(context.index + content.shape[1], 1)
      following: Any = memory.replace(content=past)
    else:
      if memory is not None:
        content = jnp.concatenate([memory.astype(content.dtype), content], axis=1)
      assert context.sinusoids is not None
      past = attention.keys_values(content)
      of_content = of_query = attention.position_keys(context.sinusoids)
      following = None if memory is None else _remember(memory, x.content, context)

    def layer(stream: jax.Array, positions: jax.Array, query_stream: bool) -> jax.Array:
      h = attention(stream, past, positions, context, query_stream=query_stream, deterministic=deterministic)
      h = adapted(self.self_attention_adapter, h)
      stream = self._after(self.self_attention_norm, stream, h, deterministic)
      h = adapted(self.mlp_adapter, self.mlp(stream, deterministic=deterministic))
      return self._after(self.mlp_norm, stream, h, deterministic)

    query = None if x.query is None else layer(x.query, of_query, True)
    return Streams(layer(x.content, of_content, False), query), following

  def project_encoded(self, sinusoids: jax.Array) -> jax.Array:
    """`position_keys` of this layer."""
    return self.self_attention.position_keys(sinusoids)

  def scan_project_encoded(self, carry: None, sinusoids: jax.Array) -> tuple[None, jax.Array]:
    """`project_encoded` in the form that a scan over layers wants."""
    return carry, self.project_encoded(sinusoids)

  def _after(self, norm: nn.Module, x: jax.Array, h: jax.Array, deterministic: bool) -> jax.Array:
    """The stream with what a sub-layer made of it."""
    return nn.with_logical_constraint(norm(x + self.dropout(h, deterministic=deterministic)), _STREAM)


def _remember(memory: jax.Array, content: jax.Array, context: RelativeContext) -> jax.Array:
  """The end of the memory and of what a layer read: constants, no gradient flows into an earlier segment."""
  content = content[:, : context.reuse_len or None]
  joined = jnp.concatenate([memory.astype(content.dtype), content], axis=1)
  return jax.lax.stop_gradient(joined[:, -context.mem_len :])
