"""The block that every family is made of, and stacks of it: scanned or unrolled, with rematerialisation by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from t5x_lite.core import axes
from t5x_lite.core.errors import unknown
from t5x_lite.core.logits import LAYER_LOSSES
from t5x_lite.core.products import ATTENTION, PROJECTION
from t5x_lite.nn.adapter import Adapter
from t5x_lite.nn.attend import AUTO, Relations, Style
from t5x_lite.nn.attention import MultiHeadAttention
from t5x_lite.nn.cache import KVCache, LayerCache, SlotCache
from t5x_lite.nn.intermediates import ATTENTIONS, HIDDEN_STATES, leave
from t5x_lite.nn.linear import Initializer, fan_in_init
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.mlp import MLP
from t5x_lite.nn.moe import MixtureOfExperts, Routing
from t5x_lite.nn.norm import NORMS
from t5x_lite.nn.positions import RelativeBias
from t5x_lite.nn.residual import added_up

# What a block keeps for its backward pass; the rest is computed again. Names as in T5X.
REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
  'none': None,  # keep everything: no remat at all
  # Keep what products and attention made: norms, activations, dropout and sums are computed again, no product is.
  'elementwise': jax.checkpoint_policies.save_only_these_names(PROJECTION, ATTENTION),
  'minimal': jax.checkpoint_policies.save_only_these_names(PROJECTION),  # keep the projections
  'full': jax.checkpoint_policies.nothing_saveable,  # keep the inputs of the block only
  # Keep the projections too, but in the host's memory: device memory of 'full', and copies instead of products.
  'offload': jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[PROJECTION],
    offload_src='device',
    offload_dst='pinned_host',
  ),
}

_UNLIMITED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class BlockConfig:
  """Shape and flavour of a block.

  Attributes:
    features: model width D.
    num_heads: N.
    head_dim: H.
    mlp_dim: F.
    activations: of the MLP; see `nn.mlp.MLP`.
    routing: makes the MLP a mixture of experts.
    adapter_dim: width of an adapter behind every sub-layer; 0: none.
    cross_attention: whether the block attends to an encoder.
    norm: 'rms' or 'layer'.
    norm_epsilon: its epsilon.
    norm_placement: 'pre' (T5, GPT-2: the residual stream is never normalised) or 'post' (BERT: after each addition).
    use_bias: whether projections have biases.
    num_kv_heads: heads of keys and values in self-attention; None: as many as of queries.
    rotary_base: base of rotary positions in self-attention; None: none.
    dropout_rate: dropout on what is added to the residual stream, and on attention weights.
    mlp_dropout_rate: dropout on the hidden layer of the MLP; None: `dropout_rate` (T5; BERT and GPT-2 have none there).
    shared_dropout: whether all positions of a row share a dropout mask (T5X).
    attention: what computes attention; one of `nn.attend.IMPLEMENTATIONS`.
    attention_scale: factor on attention logits; None is 1/sqrt(H).
    dtype: dtype of activations.
    query_init: initialiser of query projections.
    kernel_init: initialiser of the other input projections.
    out_init: initialiser of projections into the residual stream.
  """

  features: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  activations: tuple[str, ...] = ('relu',)
  routing: Routing | None = None
  adapter_dim: int = 0
  cross_attention: bool = False
  norm: str = 'rms'
  norm_epsilon: float = 1e-6
  norm_placement: str = 'pre'
  use_bias: bool = False
  num_kv_heads: int | None = None
  rotary_base: float | None = None
  dropout_rate: float = 0.0
  mlp_dropout_rate: float | None = None
  shared_dropout: bool = True
  attention: str = AUTO
  attention_scale: float | None = None
  dtype: Any = jnp.float32
  query_init: Initializer = fan_in_init
  kernel_init: Initializer = fan_in_init
  out_init: Initializer = fan_in_init

  def __post_init__(self) -> None:
    if self.norm not in NORMS:
      raise unknown('norm', self.norm, NORMS)
    if self.norm_placement not in ('pre', 'post'):
      raise unknown('norm placement', self.norm_placement, ('pre', 'post'))

  def make_norm(self) -> nn.Module:
    """A norm of the configured kind."""
    return NORMS[self.norm](epsilon=self.norm_epsilon, dtype=self.dtype)

  def attention_style(self) -> Style:
    """How every attention layer of the block computes."""
    return Style(
      implementation=self.attention,
      scale=self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale,
      dropout_rate=self.dropout_rate,
      shared_dropout=self.shared_dropout,
    )

  def make_attention(self, cross: bool = False) -> MultiHeadAttention:
    """An attention module of the configured shape; grouped heads and rotary positions are for self-attention."""
    return MultiHeadAttention(
      num_heads=self.num_heads,
      head_dim=self.head_dim,
      features=self.features,
      num_kv_heads=None if cross else self.num_kv_heads,
      rotary_base=None if cross else self.rotary_base,
      style=self.attention_style(),
      use_bias=self.use_bias,
      dtype=self.dtype,
      query_init=self.query_init,
      kernel_init=self.kernel_init,
      out_init=self.out_init,
    )

  def make_mlp(self) -> nn.Module:
    """An MLP of the configured shape, or several and their router."""
    dropout_rate = self.dropout_rate if self.mlp_dropout_rate is None else self.mlp_dropout_rate
    if self.routing is not None:
      return MixtureOfExperts(
        routing=self.routing,
        mlp_dim=self.mlp_dim,
        activations=self.activations,
        dropout_rate=dropout_rate,
        dtype=self.dtype,
        kernel_init=self.kernel_init,
        out_init=self.out_init,
      )
    return MLP(
      mlp_dim=self.mlp_dim,
      activations=self.activations,
      dropout_rate=dropout_rate,
      shared_dropout=self.shared_dropout,
      use_bias=self.use_bias,
      dtype=self.dtype,
      kernel_init=self.kernel_init,
      out_init=self.out_init,
    )

  def make_adapter(self) -> Adapter | None:
    """An adapter, where there are any."""
    return Adapter(self.adapter_dim, self.dtype) if self.adapter_dim else None

  def make_dropout(self) -> nn.Dropout:
    """Dropout on activations `[B, L, D]`."""
    return nn.Dropout(self.dropout_rate, broadcast_dims=(-2,) if self.shared_dropout else ())


class Context(struct.PyTreeNode):
  """What all blocks of a stack see alike.

  Attributes:
    mask: of self-attention.
    bias: added to the logits of self-attention; T5's relative bias, or an array broadcastable to `[B, N, T, S]`.
    encoded: `[B, S, D]` encoder output, where it was not projected into the cache before.
    cross_mask: of cross-attention.
    positions: int32 `[B, T]` of the positions of `x` in their examples, for rotary attention.
    index: int32 scalar, row index of the first position of `x`; not 0 only with a cache.
  """

  mask: Mask = dataclasses.field(default_factory=Mask)
  bias: RelativeBias | jax.Array | None = None
  encoded: jax.Array | None = None
  cross_mask: Mask = dataclasses.field(default_factory=Mask)
  positions: jax.Array | None = None
  index: jax.Array | int = 0


class Block(nn.Module):
  """Self-attention, cross-attention where configured, MLP; each normalised, dropped out and added to the residual."""

  config: BlockConfig

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    config = self.config
    self.self_attention_norm = config.make_norm()
    self.self_attention = config.make_attention()
    self.self_attention_adapter = config.make_adapter()
    if config.cross_attention:
      self.cross_attention_norm = config.make_norm()
      self.cross_attention = config.make_attention(cross=True)
      self.cross_attention_adapter = config.make_adapter()
    self.mlp_norm = config.make_norm()
    self.mlp = config.make_mlp()
    self.mlp_adapter = config.make_adapter()
    self.dropout = config.make_dropout()

  def __call__(
    self, x: jax.Array, cache: LayerCache | None, window: jax.Array | None, context: Context, deterministic: bool
  ) -> tuple[jax.Array, LayerCache | None]:
    """Maps `[B, T, D]` to `[B, T, D]`, and the cache of this layer to one that knows `x` too."""
    leave(self, HIDDEN_STATES, 'stream', x)
    h = self._before(self.self_attention_norm, x)
    positions = context.positions
    past: KVCache | SlotCache = self.self_attention.keys_values(h, positions)
    if cache is not None:
      past = cache.self_attention.write(past.key, past.value, jnp.asarray(context.index))
    relations = Relations(context.mask, context.bias, context.index, window)
    h = self.self_attention(
      h, past, relations, positions=positions, cached=cache is not None, deterministic=deterministic
    )
    x = self._after(self.self_attention_norm, x, adapted(self.self_attention_adapter, h), deterministic)

    if self.config.cross_attention:
      h = self._before(self.cross_attention_norm, x)
      encoder = self.project_encoded(context.encoded) if cache is None else cache.cross_attention
      assert encoder is not None, 'a cache without the encoder'
      relations = Relations(context.cross_mask)
      h = self.cross_attention(h, encoder, relations, cached=cache is not None, deterministic=deterministic)
      x = self._after(self.cross_attention_norm, x, adapted(self.cross_attention_adapter, h), deterministic)

    h = self._before(self.mlp_norm, x)
    if self.config.routing is None:
      h = self.mlp(h, deterministic=deterministic)
    else:
      segments = context.mask.query_segments
      h = self.mlp(h, valid=None if segments is None else segments > 0, deterministic=deterministic)
    x = self._after(self.mlp_norm, x, adapted(self.mlp_adapter, h), deterministic)
    return x, None if cache is None else cache.replace(self_attention=past)

  def project_encoded(self, encoded: jax.Array | None) -> KVCache:
    """Keys and values `[B, S, N, H]` of this layer's cross-attention."""
    assert encoded is not None, 'cross-attention without an encoder'
    return self.cross_attention.keys_values(encoded)

  def scan_project_encoded(self, carry: None, encoded: jax.Array) -> tuple[None, KVCache]:
    """`project_encoded` in the form that a scan over layers wants."""
    return carry, self.project_encoded(encoded)

  def _before(self, norm: nn.Module, x: jax.Array) -> jax.Array:
    """What a sub-layer reads of the residual stream."""
    return norm(x) if self.config.norm_placement == 'pre' else x

  def _after(self, norm: nn.Module, x: jax.Array, h: jax.Array, deterministic: bool) -> jax.Array:
    """The residual stream with what a sub-layer made of it."""
    x = x + self.dropout(h, deterministic=deterministic)
    x = norm(x) if self.config.norm_placement == 'post' else added_up(x)
    return nn.with_logical_constraint(x, (axes.ACT_BATCH, axes.ACT_LENGTH, axes.ACT_EMBED))


def adapted(adapter: Adapter | None, h: jax.Array) -> jax.Array:
  """What a sub-layer made, behind its adapter if it has one."""
  return h if adapter is None else adapter(h)


class Stack(nn.Module):
  """`num_layers` blocks, one after the other.

  Scanned, the parameters are those of one block called `layers` with a leading axis of layers, and the program has the
  size of one block; unrolled, they are `layers_0`, `layers_1`, ...

  Attributes:
    config: of every block.
    num_layers: Y.
    scan: whether the blocks are scanned.
    remat_policy: name in `REMAT_POLICIES`.
    windows: of each layer, how far its local attention sees (see `nn.masks.Mask.window`), None where it sees all; or
      None: all layers see all.
    block: the module of a layer: made of `config`, and called as `Block` is. `x` may be any tree of arrays to it.
  """

  config: Any
  num_layers: int
  scan: bool = True
  remat_policy: str = 'none'
  windows: tuple[int | None, ...] | None = None
  block: Callable[..., nn.Module] = Block

  def setup(self) -> None:
    """Makes the submodules and parameters."""
    if self.remat_policy not in REMAT_POLICIES:
      raise unknown('remat policy', self.remat_policy, REMAT_POLICIES)
    assert self.windows is None or len(self.windows) == self.num_layers
    block: Any = self.block
    if self.remat_policy != 'none':
      block = nn.remat(
        block,
        policy=REMAT_POLICIES[self.remat_policy],
        prevent_cse=not self.scan,  # a scan's body cannot be merged with another anyway, and the barrier costs time
        static_argnums=(5,),  # deterministic, counting self
        methods=['__call__'],
      )
    if not self.scan:
      self.layers: Any = [block(self.config) for _ in range(self.num_layers)]
      return
    shared = {
      'variable_axes': {'params': 0, LAYER_LOSSES: 0, ATTENTIONS: 0, HIDDEN_STATES: 0},
      'split_rngs': {'params': True, 'dropout': True},
      'length': self.num_layers,
      'metadata_params': {nn.PARTITION_NAME: axes.LAYERS},
    }
    methods: dict[str, Any] = {'__call__': {'in_axes': (0, 0, nn.broadcast, nn.broadcast), **shared}}
    if hasattr(self.block, 'scan_project_encoded'):
      methods['scan_project_encoded'] = {'in_axes': nn.broadcast, **shared}
    self.layers = nn.scan(block, methods=methods)(self.config)

  def __call__(self, x: Any, context: Any, cache: Any = None, *, deterministic: bool = True) -> tuple[Any, Any]:
    """Maps `[B, T, D]` to `[B, T, D]`; a cache has, and keeps, a leading axis of layers, or is a tuple of them."""
    windows = self._windows()
    if self.scan:
      return self.layers(x, cache, windows, context, deterministic)
    apart, caches = isinstance(cache, tuple), []
    for i, layer in enumerate(self.layers):
      own, window = jax.tree.map(lambda leaf, i=i: leaf[i], (None if apart else cache, windows))
      x, own = layer(x, cache[i] if apart else own, window, context, deterministic)
      caches.append(own)
    # Stacked, all of every cache would be copied at each step.
    return x, tuple(caches) if apart else jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)

  def project_encoded(self, encoded: jax.Array) -> KVCache | tuple[KVCache, ...]:
    """Keys and values of every layer's cross-attention: scanned `[Y, B, S, N, H]`, unrolled a tuple of Y."""
    if self.scan:
      return self.layers.scan_project_encoded(None, encoded)[1]
    return tuple(layer.project_encoded(encoded) for layer in self.layers)

  def _windows(self) -> jax.Array | None:
    """int32 `[Y]`; a layer that sees all has a window beyond any length."""
    if self.windows is None:
      return None
    return jnp.asarray([_UNLIMITED if width is None else width for width in self.windows], jnp.int32)
