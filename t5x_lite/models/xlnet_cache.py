"""What XLNet needs to go on writing: the states of its memory as keys and values, one row for every continuation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


class XlnetCache(struct.PyTreeNode):
  """See `Xlnet.decode_with_cache`.

  Attributes:
    layers: `nn.relative_attention.RelativeCache` with a leading axis of layers, or a tuple of them.
    index: int32 scalar, the number of tokens already read.
    segment_ids: int32 `[R, S]` of what was read, 0 for padding and for what is still to come.
    last: int32 `[R, 1]`, the token read last.
    started: whether a prompt was read.
  """

  layers: Any
  index: jax.Array
  segment_ids: jax.Array
  last: jax.Array
  started: bool = struct.field(pytree_node=False, default=False)

  def branch(self, count: int, prompt_length: int) -> XlnetCache:
    """The cache of a prompt that was read, for `count` continuations of every row, which are rows of their own.

    What stands at a position depends on the token behind it, so continuations share nothing that lasts.
    """
    del prompt_length
    return self if count == 1 else self._of_rows(lambda x, axis: jnp.repeat(x, count, axis=axis))

  def reordered(self, chosen: jax.Array) -> XlnetCache:
    """Continuation k of every row goes on from what was continuation `chosen[:, k]`, int32 `[B, K]`."""
    rows = (jnp.arange(chosen.shape[0], dtype=jnp.int32)[:, None] * chosen.shape[1] + chosen).reshape(-1)
    return self._of_rows(lambda x, axis: jnp.take(x, rows, axis=axis))

  def _of_rows(self, change: Any) -> XlnetCache:
    def changed(layer: Any, axis: int) -> Any:
      return layer.replace(content=jax.tree.map(lambda x: change(x, axis), layer.content))

    apart = isinstance(self.layers, tuple)
    return self.replace(
      layers=tuple(changed(layer, 0) for layer in self.layers) if apart else changed(self.layers, 1),
      segment_ids=change(self.segment_ids, 0),
      last=change(self.last, 0),
    )
