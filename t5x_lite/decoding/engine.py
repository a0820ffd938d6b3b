"""What greedy decoding, sampling and beam search share: where they start, what ends a row, what they return.

None of it knows a model. `tokens_to_logits` maps int32 tokens `[B, K]`, one of each of K continuations of every row,
and a cache to float32 logits `[B, K, V]` and the next cache. A cache has the methods `branch(count, prompt_length)`,
which makes it that of several continuations, and `reordered(chosen)` (see `nn.cache.DecodeCache`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.decoding.config import Decoding
from t5x_lite.decoding.processors import Step
from t5x_lite.decoding.stopping import StopTable

TokensToLogits = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


class Cache(Protocol):
  """What was read."""

  def branch(self, count: int, prompt_length: int) -> Any:
    """That of `count` continuations of every row."""

  def reordered(self, chosen: jax.Array) -> Any:
    """That in which continuation k goes on from what was continuation `chosen[:, k]`, int32 `[B, K]`."""


class Start(struct.PyTreeNode):
  """Rows whose prompts were read.

  Attributes:
    logits: float32 `[B, V]` of the first new token.
    prompt: int32 `[B, P]`, below 0 where it is padding.
    cache: of the prompts.
    encoder: int32 `[B, S]`, the input of an encoder, below 0 where it is padding; None without one.
    stop: finds stop strings; None: there are none.
  """

  logits: jax.Array
  prompt: jax.Array
  cache: Any
  encoder: jax.Array | None = None
  stop: StopTable | None = None


class Written(struct.PyTreeNode):
  """What was written, of K continuations of every row, the best first where there is a best.

  Attributes:
    tokens: int32 `[B, K, T]`, ends included.
    lengths: int32 `[B, K]`, how many of them were written; the rest fills up.
    scores: float32 `[B, K]`: the score of a beam, else the sum of `token_scores`; zeros if neither is wanted.
    token_scores: float32 `[B, K, T]`: the log-probability with which each token was chosen, if wanted.
  """

  tokens: jax.Array
  lengths: jax.Array
  scores: jax.Array
  token_scores: jax.Array | None = None


def first_states(stop: StopTable | None, prompt: jax.Array) -> jax.Array:
  """The states of the automaton behind the prompts, int32 `[B]`; zeros without one."""
  states = jnp.zeros(prompt.shape[:1], jnp.int32)
  if stop is None:
    return states
  following = jnp.asarray(stop.following)

  def read(state: jax.Array, token: jax.Array) -> tuple[jax.Array, None]:
    return jnp.where(token < 0, state, following[state, jnp.clip(token, 0, following.shape[1] - 1)]), None

  return jax.lax.scan(read, states, prompt.T)[0]


def read_token(
  decoding: Decoding, stop: StopTable | None, states: jax.Array, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The next states, and whether these tokens end their rows, for arrays of any one shape."""
  ends = jnp.zeros(tokens.shape, bool)
  for eos in decoding.eos:
    ends |= tokens == eos
  if stop is None:
    return states, ends
  known = jnp.minimum(tokens, stop.following.shape[1] - 1)
  beyond = tokens >= stop.following.shape[1]  # a row of the embedding table without a token
  following = jnp.where(beyond, 0, jnp.asarray(stop.following)[states, known])
  return following, ends | (jnp.asarray(stop.hits)[states, known] & ~beyond)


def step_of(start: Start, tokens: jax.Array, written: jax.Array) -> Step:
  """What a processor may know, for tokens `[B, K, T]` of which `written` are."""
  rows, count, new = tokens.shape
  prompt = jnp.repeat(start.prompt, count, axis=0)
  own = jnp.where(jnp.arange(new, dtype=jnp.int32) < written, tokens, -1).reshape(rows * count, new)
  encoder = None if start.encoder is None else jnp.repeat(start.encoder, count, axis=0)
  return Step(jnp.concatenate([prompt, own], axis=1), written, encoder, prompt=prompt.shape[1])
