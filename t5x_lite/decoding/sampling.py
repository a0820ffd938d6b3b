"""Greedy decoding and sampling: one token of every row at a time, until all have ended."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.decoding import engine, largest, processors
from t5x_lite.decoding.config import Decoding
from t5x_lite.decoding.engine import Start, TokensToLogits, Written
from t5x_lite.decoding.warpers import warp


class _State(struct.PyTreeNode):
  """Of K continuations of every row, each on its own."""

  step: jax.Array
  logits: jax.Array
  tokens: jax.Array
  token_scores: jax.Array | None
  lengths: jax.Array
  ended: jax.Array
  states: jax.Array
  cache: Any


def sample(tokens_to_logits: TokensToLogits, start: Start, decoding: Decoding, keys: jax.Array | None) -> Written:
  """Writes `num_return_sequences` continuations of every row; greedily, that is one.

  Args:
    tokens_to_logits: see `engine`.
    start: where to begin.
    decoding: the options.
    keys: random keys `[B]`, one a row, so that a row is continued alike whatever stands beside it; None: the likeliest
      token is taken.
  """
  rows, vocabulary = start.logits.shape
  count, new = decoding.options.num_return_sequences or 1, decoding.max_new
  shape = (rows, count)
  chain = processors.build(decoding)
  with_scores = bool(decoding.options.output_scores)

  def choose(state: _State) -> _State:
    """The next token of every row, from `state.logits` `[B, K, V]`."""
    scores = state.logits.reshape(-1, vocabulary)
    if chain:
      scores = processors.process(chain, engine.step_of(start, state.tokens, state.step), scores)
    token, score = _pick(decoding, scores, None if keys is None else _keys(keys, count, state.step), with_scores)
    token = jnp.where(state.ended, decoding.pad, token.reshape(shape))
    states, ends = engine.read_token(decoding, start.stop, state.states, token)
    token_scores = state.token_scores
    if token_scores is not None:
      score = jnp.where(state.ended, 0.0, score.reshape(shape))
      token_scores = jax.lax.dynamic_update_slice(token_scores, score[..., None], (0, 0, state.step))
    return state.replace(
      step=state.step + 1,
      tokens=jax.lax.dynamic_update_slice(state.tokens, token[..., None], (0, 0, state.step)),
      token_scores=token_scores,
      lengths=state.lengths + (~state.ended).astype(jnp.int32),
      ended=state.ended | ends,
      states=states,
    )

  def advance(state: _State) -> _State:
    last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=2, keepdims=False)
    logits, cache = tokens_to_logits(last, state.cache)
    return choose(state.replace(logits=logits, cache=cache))

  first = _State(
    step=jnp.zeros((), jnp.int32),
    logits=jnp.broadcast_to(start.logits[:, None], (rows, count, vocabulary)),
    tokens=jnp.full((*shape, new), decoding.pad, jnp.int32),
    token_scores=jnp.zeros((*shape, new), jnp.float32) if with_scores else None,
    lengths=jnp.zeros(shape, jnp.int32),
    ended=jnp.zeros(shape, bool),
    states=jnp.broadcast_to(engine.first_states(start.stop, start.prompt)[:, None], shape),
    cache=start.cache.branch(count, start.prompt.shape[1]) if new > 1 else (),
  )
  state = choose(first)
  if new > 1:
    # The loop does not carry logits: what is not read again need not be kept.
    state = state.replace(logits=jnp.zeros((), jnp.float32))

    def body(state: _State) -> _State:
      return advance(state).replace(logits=state.logits)

    state = jax.lax.while_loop(lambda s: (s.step < new) & ~jnp.all(s.ended), body, state)
  total = jnp.zeros(shape, jnp.float32) if state.token_scores is None else jnp.sum(state.token_scores, axis=-1)
  return Written(state.tokens, state.lengths, total, state.token_scores)


def _keys(keys: jax.Array, count: int, step: jax.Array) -> jax.Array:
  """One key for each continuation of every row, `[B * K]`, at one step."""

  def of_row(key: jax.Array) -> jax.Array:
    return jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(key, k), step))(jnp.arange(count))

  return jax.vmap(of_row)(keys).reshape(-1)


def _pick(
  decoding: Decoding, scores: jax.Array, keys: jax.Array | None, with_scores: bool
) -> tuple[jax.Array, jax.Array]:
  """A token for each row of scores `[R, V]`, and the logarithm of its probability, 0 where it is not wanted."""
  ids = None
  if keys is not None:
    scores, ids = warp(decoding.options, scores)
  if decoding.options.renormalize_logits:
    scores = jax.nn.log_softmax(scores, axis=-1)
  if keys is None:
    place = largest.argmax(scores)
  else:
    place = jax.vmap(jax.random.categorical)(keys, scores).astype(jnp.int32)
  token = place if ids is None else jnp.take_along_axis(ids, place[:, None], axis=1)[:, 0].astype(jnp.int32)
  if not with_scores:
    return token, jnp.zeros(token.shape, jnp.float32)
  chosen = jnp.take_along_axis(scores, place[:, None], axis=1)[:, 0]
  return token, chosen - jax.nn.logsumexp(scores, axis=-1)
