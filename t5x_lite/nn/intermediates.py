"""What models leave on the way for those who ask, by name, and what they can be given in the place of it.

A model leaves a thing in a collection of its own, and only where that collection is mutable:

    outputs, left = module.apply({'params': params}, batch, method='outputs', mutable=(ATTENTIONS, HIDDEN_STATES))

Nothing is computed, kept or compiled for it otherwise: the program of a training step is the same. Of scanned layers
the arrays are stacked, of others they are apart; `research.intermediates` gives both the same form.
"""

from __future__ import annotations

import jax
from flax import linen as nn

# Attention probabilities, float32 `[B, N, T, S]`: 'weights' of each attention layer, and of XLNet's two streams
# 'content_weights' and 'query_weights'.
ATTENTIONS = 'attentions'
# What each layer reads, `[B, T, D]` (XLNet: of both streams), and what the stack hands to its heads.
HIDDEN_STATES = 'hidden_states'
# The vectors of the tokens, `[B, T, D]`, before positions are added. A model takes others where there are variables of
# this name: `module.apply({'params': params, VECTORS: {...}}, batch)` is a function of them, which has a gradient.
VECTORS = 'vectors'


def asked_for(module: nn.Module, collection: str) -> bool:
  """Whether somebody wants what a module leaves in a collection."""
  return module.is_mutable_collection(collection) and not module.is_initializing()


def leave(module: nn.Module, collection: str, name: str, value: jax.Array) -> None:
  """Leaves an array under a name, if it was asked for."""
  if asked_for(module, collection):
    module.put_variable(collection, name, value)


def vectors_of_tokens(module: nn.Module, side: str, found: jax.Array) -> jax.Array:
  """The vectors that a model goes on with: those it was given, or those that it found, `[B, T, D]`.

  Args:
    module: the model, which leaves what it found.
    side: 'encoder' or 'decoder'.
    found: the vectors of its tokens.
  """
  name = f'of_{side}'  # not the side itself, which T5 calls a submodule
  leave(module, VECTORS, name, found)
  if not module.is_mutable_collection(VECTORS) and module.has_variable(VECTORS, name):
    return module.get_variable(VECTORS, name)
  return found
