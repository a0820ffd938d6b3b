"""What a model leaves on the way, by name and in one form for all families, stacked over layers.

Attention probabilities are called 'encoder', 'decoder' and 'cross' (T5), 'encoder' (BERT), 'decoder' (GPT), 'content'
and 'query' (XLNet's two streams; the second is there when something is predicted). Hidden states have the same names
but for 'cross'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from t5x_lite.nn.intermediates import ATTENTIONS, HIDDEN_STATES

_STACKS = ('encoder', 'decoder')


def attentions(module: Any, params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The attention probabilities of every layer and head, without dropout.

  Args:
    module: a model of this library.
    params: its parameters.
    batch: what it reads, see `core.batch`.

  Returns:
    float32 `[Y, B, N, T, S]` by name. S counts a soft prompt. A row sums to 1, or to 0 where a query of XLNet sees
    nothing; what padding sees means nothing.
  """
  left = _left(module, params, batch, ATTENTIONS)
  if 'blocks' not in left:
    found = {}
    for side in (side for side in _STACKS if side in left):
      layers = _of_layers(left[side]['blocks'])
      found[side] = layers['self_attention']['weights']
      if 'cross_attention' in layers:
        found['cross'] = layers['cross_attention']['weights']
    return found
  own = _of_layers(left['blocks'])['self_attention']
  if 'weights' in own:
    return {side_of(module): own['weights']}
  return {name.removesuffix('_weights'): weights for name, weights in sorted(own.items())}


def hidden_states(module: Any, params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """What each layer reads, and what comes out behind the last, as transformers' `hidden_states`.

  Of a pre-norm stack (T5, GPT) the last is behind its final norm.

  Args:
    module: a model of this library.
    params: its parameters.
    batch: what it reads, see `core.batch`.

  Returns:
    `[Y + 1, B, T, D]` by name, in the dtype of activations. T counts a soft prompt.
  """
  left = _left(module, params, batch, HIDDEN_STATES)
  if 'blocks' not in left:
    return {side: _with_last(left[side], 'stream', 'last') for side in _STACKS if side in left}
  if 'last' in left:
    return {side_of(module): _with_last(left, 'stream', 'last')}
  streams = [name for name in ('content', 'query') if f'last_{name}' in left]
  return {name: _with_last(left, name, f'last_{name}') for name in streams}


def side_of(module: Any) -> str:
  """The side of a batch that a model of one stack reads: 'encoder' (BERT) or 'decoder' (GPT, XLNet)."""
  return 'encoder' if hasattr(module, 'encode') else 'decoder'


def num_layers(module: Any) -> dict[str, int]:
  """Layers by the names of `attentions`."""
  config = module.config
  if not hasattr(config, 'num_encoder_layers'):
    return {side_of(module): config.num_layers}
  found = {'encoder': config.num_encoder_layers, 'decoder': config.num_decoder_layers}
  return {side: count for side, count in found.items() if count}


def _left(module: Any, params: Any, batch: Mapping[str, jax.Array], collection: str) -> Any:
  _, left = module.apply({'params': params}, batch, deterministic=True, method='outputs', mutable=(collection,))
  return left[collection]


def _with_last(stack: Any, name: str, last: str) -> jax.Array:
  return jnp.concatenate([_of_layers(stack['blocks'])[name], stack[last][None]])


def _of_layers(blocks: Any) -> Any:
  """One tree with a leading axis of layers, of scanned or unrolled ones."""
  if 'layers' in blocks:
    return blocks['layers']
  each = [blocks[f'layers_{number}'] for number in range(len(blocks))]
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
