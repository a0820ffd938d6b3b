"""What a model hands to the loss: logits as two factors, so that the full `[B, L, V]` array need never exist."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.core import products

# The collection in which layers leave losses of their own (mixtures of experts), already weighted.
LAYER_LOSSES = 'losses'
# The collection in which a model leaves float32 logits `[B, L, C]` of the labels that the batch has at some positions.
LABEL_LOGITS = 'label_logits'


@struct.dataclass
class FactoredLogits:
  """`logits = hidden @ kernel (+ bias)`, not multiplied out.

  Attributes:
    hidden: activations `[B, L, D]`, already scaled where the model scales them (T5 1.0: by 1/sqrt(D)).
    kernel: the output projection `[V, D]` (rows are tokens, as in an embedding table), float32.
    bias: `[V]` float32, or None.
  """

  hidden: jax.Array
  kernel: jax.Array
  bias: jax.Array | None = None

  def logits(self) -> jax.Array:
    """float32 logits `[B, L, V]`; the product takes the dtype of `hidden` and accumulates in float32."""
    out = products.attend(self.hidden, self.kernel)
    return out if self.bias is None else out + self.bias.astype(jnp.float32)
