"""The one attention function, and which implementation of it runs where.

  xla        Arrays of T x S, fused by the compiler. Everywhere, for everything; the reference.
  cudnn      cuDNN's flash attention, on a GPU in half precision. Mask and bias are handed over as one array.
  splash     Pallas, on a TPU: causal, local and packed, without a bias. It skips the blocks that a mask leaves empty.
  pallas     Our own kernel on a TPU (`nn.pallas_attention`): T5's relative bias, and dropout of single weights too.
  blockwise  The same in plain array operations, anywhere (`nn.blockwise`).

'auto' takes the first that can do what is asked: on a TPU splash, pallas, blockwise, xla, and pallas before splash from
rows of one length to rows of another, which splash copies, by head and filled up; on a GPU cudnn, xla; else xla. The
last three of the list never have an array of T x S per row and head, forward or backward. Steps through a cache are
xla's, and local attention with global tokens is too, in blocks (`nn.local_attention`).

Attention dropout: one mask for all queries (T5) is dropout of values, which every implementation has. Dropout of
single weights (BERT, GPT-2) is in xla, pallas and blockwise, by the same masks of a seed: cudnn and splash are used
without it only.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.core.errors import UsageError, unknown
from t5x_lite.core.products import for_rows, held
from t5x_lite.nn import local_attention, pallas_attention, splash, weight_dropout
from t5x_lite.nn.attention_inputs import Inputs, Kernel, Places, Settings, over_mesh
from t5x_lite.nn.blockwise import blockwise_attention
from t5x_lite.nn.dot_product import (
  attention_weights,
  dot_product_attention,
  drop_values,
  repeat_heads,
  whole_length,
  whole_slots,
)
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.positions import RelativeBias

AUTO = 'auto'
XLA = 'xla'
IMPLEMENTATIONS = (AUTO, XLA, 'cudnn', 'splash', 'blockwise', 'pallas')

_PREFERRED = {'tpu': ('splash', 'pallas', 'blockwise'), 'gpu': ('cudnn',)}
_PREFERRED_ACROSS = {'tpu': ('pallas', 'splash', 'blockwise'), 'gpu': ('cudnn',)}  # queries and keys of two lengths
_KERNELS: dict[str, Kernel] = {
  'splash': splash.splash_attention,
  'blockwise': blockwise_attention,
  'pallas': pallas_attention.pallas_attention,
}
# Those that take the relative bias as structure.
STRUCTURED = ('blockwise', 'pallas')


class Relations(struct.PyTreeNode):
  """How queries and keys stand to each other.

  Attributes:
    mask: who sees whom.
    bias: added to the logits: T5's relative bias, or an array broadcastable to `[B, N, T, S]`, or None.
    offset: row index of the first query; not 0 only with a cache.
    window: int32 scalar, the window of one layer of a stack whose layers differ, or None.
  """

  mask: Mask = dataclasses.field(default_factory=Mask)
  bias: RelativeBias | jax.Array | None = None
  offset: jax.Array | int = 0
  window: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Style:
  """The attention of a model.

  Attributes:
    implementation: one of `IMPLEMENTATIONS`.
    scale: factor on the logits before the bias; 1.0 in T5, 1/sqrt(H) elsewhere.
    dropout_rate: dropout on the attention weights.
    shared_dropout: one mask for all queries of a row and head (T5X), or one for each weight (BERT).
  """

  implementation: str = AUTO
  scale: float = 1.0
  dropout_rate: float = 0.0
  shared_dropout: bool = True

  def __post_init__(self) -> None:
    if self.implementation not in IMPLEMENTATIONS:
      raise unknown('attention', self.implementation, IMPLEMENTATIONS)


@dataclasses.dataclass(frozen=True)
class Case:
  """What a choice depends on, known when the program is traced; shapes as in `attend`.

  Attributes:
    platform: 'cpu', 'gpu' or 'tpu'.
    dtype: of the queries.
    queries: T.
    keys: S.
    heads: N.
    head_dim: H.
    bias: 'none', 'relative' or 'array'.
    mask: as structure.
    any_window: whether there is a window that only the running program knows.
    drops_weights: whether single weights are dropped.
  """

  platform: str
  dtype: Any
  queries: int
  keys: int
  heads: int
  head_dim: int
  bias: str
  mask: Mask
  any_window: bool = False
  drops_weights: bool = False


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  relations: Relations,
  style: Style,
  *,
  dropout_key: jax.Array | None = None,
  cached: bool = False,
) -> jax.Array:
  """Softmax attention with float32 logits and softmax (Vaswani et al. 2017, sec. 3.2.1), by the best means there is.

  What a query that sees nothing returns is finite, and up to the implementation; the loss must not count it.

  Args:
    query: `[B, T, N, H]`.
    key: `[B, S, K, H]`, where K divides N: queries n K / N to (n + 1) K / N - 1 share a head (Ainslie et al. 2023).
    value: `[B, S, K, H]`.
    relations: mask and bias.
    style: scale, dropout, implementation.
    dropout_key: key of the dropout; None turns it off.
    cached: whether this is a step through a cache.

  Returns:
    `[B, T, N, H]` in the dtype of `query`.

  Raises:
    UsageError: the implementation that was asked for cannot do this.
  """
  if style.dropout_rate == 0.0:
    dropout_key = None
  if dropout_key is not None and style.shared_dropout:
    key, value = (repeat_heads(x, query.shape[2]) for x in (key, value))
    value, dropout_key = drop_values(value, style.dropout_rate, dropout_key), None
  name = XLA if cached else choose(style.implementation, case_of(query, key, relations, dropout_key is not None))
  if name in _KERNELS:
    assert not isinstance(relations.bias, jax.Array)
    places = Places(
      mask=relations.mask,
      offset=jnp.asarray(relations.offset, jnp.int32),
      window=relations.window,
      seed=None if dropout_key is None else weight_dropout.seeds(dropout_key),
    )
    inputs = Inputs(query, key, value, relations.bias, places)
    # Splash knows when it is traced which queries it has.
    settings = Settings(style.scale, style.dropout_rate, cuts_queries=name != 'splash')
    return over_mesh(_KERNELS[name], inputs, settings)
  queries, keys = query.shape[1], key.shape[1]
  if not cached and relations.bias is None and local_attention.fits(relations.mask, queries):
    return _local(query, key, value, relations.mask, style, dropout_key)
  key, value = whole_length((key, value))
  mask = relations.mask.materialise(queries, keys, relations.offset, relations.window)
  bias = relations.bias
  if isinstance(bias, RelativeBias):
    bias = bias.materialise(queries, keys, relations.offset)
  if bias is not None and bias.shape[0] == 1 and not cached and name == XLA:
    bias = for_rows(bias, query.shape[0])
  if name == 'cudnn':
    return _cudnn(query, key, value, bias, mask, style.scale)
  return dot_product_attention(
    query,
    key,
    value,
    bias=bias,
    mask=mask,
    scale=style.scale,
    dropout_rate=style.dropout_rate,
    dropout_key=dropout_key,
    shared_dropout=False,
  )


def probabilities(query: jax.Array, key: jax.Array, relations: Relations, scale: float) -> jax.Array:
  """The attention probabilities behind `attend`, to be looked at: an array that no kernel makes.

  Args:
    query: `[B, T, N, H]`.
    key: `[B, S, K, H]`.
    relations: mask and bias.
    scale: factor on the logits.

  Returns:
    float32 `[B, N, T, S]`, without dropout.
  """
  queries, keys = query.shape[1], key.shape[1]
  bias = relations.bias
  if isinstance(bias, RelativeBias):
    bias = bias.materialise(queries, keys, relations.offset)
  mask = relations.mask.materialise(queries, keys, relations.offset, relations.window)
  return attention_weights(query, key, bias=bias, mask=mask, scale=scale)


def attend_to_slots(
  query: jax.Array, key: jax.Array, value: jax.Array, relations: Relations, scale: float
) -> jax.Array:
  """A step through a cache whose arrays are in the order in which it reads them; as `attend`, without dropout.

  Args:
    query: `[B, T, N, H]`.
    key: `[B, K, S, H]`, where K divides N.
    value: `[B, K, S, H]`.
    relations: mask and bias.
    scale: factor on the logits.

  Returns:
    `[B, T, N, H]` in the dtype of `query`.
  """
  key, value = whole_slots((key, value))
  rows, queries, heads, width = query.shape
  kept, keys = key.shape[1:3]
  grouped = query.astype(key.dtype).reshape(rows, queries, kept, heads // kept, width)
  # Keys are the left operand: on the CPU, XLA reads that one along its rows (see `core.products`).
  logits = held(_products(key, grouped.transpose(0, 2, 4, 3, 1).reshape(rows, kept, width, -1)))
  logits = logits.swapaxes(2, 3).reshape(rows, heads, queries, keys) * scale
  bias = relations.bias
  if isinstance(bias, RelativeBias):
    bias = bias.materialise(queries, keys, relations.offset)
  if bias is not None:
    logits += bias.astype(jnp.float32)
  mask = relations.mask.materialise(queries, keys, relations.offset, relations.window)
  if mask is not None:
    logits = jnp.where(mask, logits, 0.7 * jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(logits, axis=-1).astype(query.dtype).astype(value.dtype)
  attended = _products(weights.reshape(rows, kept, -1, keys), value)
  attended = attended.reshape(rows, kept, heads // kept, queries, width).transpose(0, 3, 1, 2, 4)
  return attended.reshape(query.shape).astype(query.dtype)


def _products(x: jax.Array, y: jax.Array) -> jax.Array:
  """Of each row and head, float32."""
  return jax.lax.dot_general(x, y, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _local(
  query: jax.Array, key: jax.Array, value: jax.Array, mask: Mask, style: Style, dropout_key: jax.Array | None
) -> jax.Array:
  """Local attention in blocks, each of which is plain attention."""
  plain = functools.partial(
    dot_product_attention,
    scale=style.scale,
    dropout_rate=style.dropout_rate,
    dropout_key=dropout_key,
    shared_dropout=False,
  )
  return local_attention.local_attention(query, key, value, mask, plain)


def _cudnn(
  query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None, mask: jax.Array | None, scale: float
) -> jax.Array:
  """cuDNN's flash attention; without a dropout, whose seed would be fixed when the program is compiled."""
  shape = (query.shape[1], key.shape[1])
  if mask is not None:
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], *shape))
  bias = None if bias is None else bias.astype(query.dtype)
  return jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale, implementation='cudnn')


def case_of(query: jax.Array, key: jax.Array, relations: Relations, drops_weights: bool) -> Case:
  """What `choose` must know about these arrays."""
  _, queries, heads, head_dim = query.shape
  bias = 'none' if relations.bias is None else 'relative' if isinstance(relations.bias, RelativeBias) else 'array'
  return Case(
    platform=platform(),
    dtype=query.dtype,
    queries=queries,
    keys=key.shape[1],
    heads=heads,
    head_dim=head_dim,
    bias=bias,
    mask=relations.mask,
    any_window=relations.window is not None,
    drops_weights=drops_weights,
  )


def platform() -> str:
  """Of the devices that the program is traced for: those of the mesh, present or not; else those that are present."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return jax.default_backend() if device is None else device.platform


def choose(asked: str, case: Case) -> str:
  """The implementation that runs: the one asked for, or with 'auto' the best that can.

  Raises:
    UsageError: the one asked for cannot; says why, and which can.
  """
  if asked == AUTO:
    preferred = _PREFERRED if case.queries == case.keys else _PREFERRED_ACROSS
    return next((name for name in preferred.get(case.platform, ()) if obstacle(name, case) is None), XLA)
  why = obstacle(asked, case)
  if why is not None:
    able = [repr(name) for name in IMPLEMENTATIONS[1:] if obstacle(name, case) is None]
    raise UsageError(f'attention {asked!r} {why}: expected {" or ".join((repr(AUTO), *able))}')
  return asked


def obstacle(name: str, case: Case) -> str | None:
  """Why an implementation cannot do it, None where it can."""
  return _OBSTACLES[name](case)


def _cudnn_obstacle(case: Case) -> str | None:
  if case.platform != 'gpu':
    return f'runs on a GPU, and this is a {case.platform}'
  if case.dtype not in (jnp.bfloat16, jnp.float16):
    return f'wants activations in half precision, and they are {jnp.dtype(case.dtype)}'
  if case.head_dim % 8 or case.head_dim > 128:
    return f'wants a head_dim that is a multiple of 8 and at most 128, and it is {case.head_dim}'
  if case.drops_weights:
    return 'has no dropout of single weights'
  if (case.queries % 2 or case.keys % 2) and (case.bias != 'none' or _restricts(case.mask) or case.any_window):
    return f'wants even lengths where there is a mask or a bias, and they are {case.queries} and {case.keys}'
  return None


def _kernel_obstacle(case: Case) -> str | None:
  """What no kernel of ours can do."""
  if case.bias == 'array':
    return 'takes no bias but the relative one'
  if case.mask.everywhere is not None:
    return 'has no global tokens'
  return None


def _splash_obstacle(case: Case) -> str | None:
  mask = case.mask
  if case.platform != 'tpu':
    return f'runs on a TPU, and this is a {case.platform}'
  if case.bias != 'none':
    return 'has no bias'
  if case.drops_weights:
    return 'has no dropout of single weights'
  if case.any_window:
    return 'has no window that differs from layer to layer'
  if mask.prefix is not None or mask.query_order is not None or mask.visible is not None:
    return 'has masks by segment, causal and local ones, and no other'
  return _kernel_obstacle(case)


def _pallas_obstacle(case: Case) -> str | None:
  if case.platform != 'tpu':
    return f'runs on a TPU, and this is a {case.platform}'
  if case.mask.query_order is not None or case.mask.visible is not None:
    return 'has masks by segment, prefix, causal and local ones, and no other'
  if case.keys > pallas_attention.MOST_KEYS:
    return f'holds at most {pallas_attention.MOST_KEYS} keys of a row, and there are {case.keys}'
  return _kernel_obstacle(case)


def _restricts(mask: Mask) -> bool:
  return mask.causal or mask.window is not None or bool(jax.tree.leaves(mask))


_OBSTACLES: dict[str, Callable[[Case], str | None]] = {
  XLA: lambda case: None,
  'cudnn': _cudnn_obstacle,
  'splash': _splash_obstacle,
  'blockwise': _kernel_obstacle,
  'pallas': _pallas_obstacle,
}
