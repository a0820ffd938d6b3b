"""Beam search, and beam sampling, with the bookkeeping of transformers' `_beam_search`, decision by decision.

At every step each row has K beams that go on and K results. Of all continuations the best `keep` are looked at, enough
for K that go on even if the best ones end: those that ended among the first K are results if they beat one, with the
score divided by a power of the length, and the K best others go on.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.decoding import engine, largest, processors, warpers
from t5x_lite.decoding.config import Decoding
from t5x_lite.decoding.engine import Start, TokensToLogits, Written

_NEVER = -1.0e9  # what is added to the score of what must not be chosen


class _Sequences(struct.PyTreeNode):
  """Some sequences of every row; all arrays begin with `[B, n]`."""

  tokens: jax.Array
  scores: jax.Array
  lengths: jax.Array
  token_scores: jax.Array | None

  def taken(self, chosen: jax.Array) -> _Sequences:
    """Those at places `[B, m]`."""
    return jax.tree.map(lambda x: _take(x, chosen), self)


class _State(struct.PyTreeNode):
  step: jax.Array
  running: _Sequences
  states: jax.Array  # of the automaton of stop strings, [B, K]
  results: _Sequences
  finished: jax.Array  # bool [B, K]: which results are some
  hopeful: jax.Array  # bool [B]: whether a better result is likely
  done: jax.Array  # bool: whether to stop
  cache: Any


def beam_search(
  tokens_to_logits: TokensToLogits, start: Start, decoding: Decoding, keys: jax.Array | None = None
) -> Written:
  """The best `num_return_sequences` of `num_beams` results of every row, the best first.

  Args:
    tokens_to_logits: see `engine`.
    start: where to begin.
    decoding: the options.
    keys: random keys `[B]`: continuations are drawn, without replacement, by their accumulated scores; None: the best
      are taken.
  """
  options, new = decoding.options, decoding.max_new
  rows, vocabulary = start.logits.shape
  beams = options.num_beams or 1
  keep = max(2, 1 + len(decoding.eos)) * beams
  with_scores = bool(options.output_scores)
  chain = processors.build(decoding)
  penalty = float(1.0 if options.length_penalty is None else options.length_penalty)
  early = options.early_stopping

  def scored(logits: jax.Array, state: _State) -> jax.Array:
    """Processed log-probabilities, float32 `[B, K, V]`."""
    log_probs = jax.nn.log_softmax(logits, axis=-1).reshape(-1, vocabulary)
    if chain:
      log_probs = processors.process(chain, engine.step_of(start, state.running.tokens, state.step), log_probs)
    if keys is not None:
      log_probs = _warped(decoding, log_probs)
    if options.renormalize_logits:
      log_probs = jax.nn.log_softmax(log_probs, axis=-1)
    return log_probs.reshape(rows, beams, vocabulary)

  def advance(logits: jax.Array, state: _State) -> _State:
    step, running = state.step, state.running
    log_probs = scored(logits, state)
    total = (log_probs + running.scores[..., None]).reshape(rows, -1)
    if keys is None:
      best, places = _top_k(total, keep, beams)
    else:
      noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step), total.shape[1:]))(keys)
      places = jax.lax.top_k(total + noise, keep)[1]
      best = jnp.take_along_axis(total, places, axis=1)
      order = jnp.argsort(-best, axis=1, stable=True)
      best, places = (jnp.take_along_axis(x, order, axis=1) for x in (best, places))
    origin, token = places // vocabulary, (places % vocabulary).astype(jnp.int32)
    candidates = running.replace(scores=best, lengths=jnp.full(best.shape, step + 1, jnp.int32))
    candidates = candidates.replace(
      tokens=jax.lax.dynamic_update_slice(_take(running.tokens, origin), token[..., None], (0, 0, step))
    )
    if with_scores:
      assert running.token_scores is not None
      chosen = jnp.take_along_axis(log_probs.reshape(rows, -1), places, axis=1)
      kept = _take(running.token_scores, origin)
      candidates = candidates.replace(token_scores=jax.lax.dynamic_update_slice(kept, chosen[..., None], (0, 0, step)))
    states, ends = engine.read_token(decoding, start.stop, _take(state.states, origin), token)
    ends |= step + 1 >= new

    going = best + jnp.where(ends, _NEVER, 0.0)
    going_scores, next_places = jax.lax.top_k(going, beams)
    next_running = candidates.taken(next_places).replace(scores=going_scores)
    cache = state.cache if new == 1 else state.cache.reordered(_take(origin, next_places))

    just_finished = ends & (jnp.arange(keep) < beams)
    final = best / _power(step + 1, penalty)
    if early is True:
      final += jnp.where(jnp.all(state.finished, axis=1, keepdims=True), _NEVER, 0.0)
    final += jnp.where(state.hopeful[:, None], 0.0, _NEVER)
    final += jnp.where(just_finished, 0.0, _NEVER)
    merged = jax.tree.map(
      lambda old, found: jnp.concatenate([old, found], axis=1), state.results, candidates.replace(scores=final)
    )
    finished = jnp.concatenate([state.finished, just_finished], axis=1)
    result_places = jax.lax.top_k(merged.scores, beams)[1]
    results, finished = merged.taken(result_places), _take(finished, result_places)

    length = jnp.asarray(new, jnp.int32) if early == 'never' and penalty > 0.0 else step + 1
    possible = going_scores[:, :1] / _power(length, penalty)
    worst = jnp.where(finished, jnp.min(results.scores, axis=1, keepdims=True), _NEVER)
    hopeful = state.hopeful & jnp.any(possible > worst, axis=1)
    done = ~jnp.any(hopeful) | jnp.all(ends)
    if early is True:
      done |= jnp.all(finished)
    return _State(step + 1, next_running, _take(states, next_places), results, finished, hopeful, done, cache)

  fill = (decoding.pad or decoding.eos[0]) if decoding.eos else -1  # an id of 0 does not fill there
  empty = _Sequences(
    tokens=jnp.full((rows, beams, new), fill, jnp.int32),
    scores=jnp.full((rows, beams), _NEVER, jnp.float32),
    lengths=jnp.zeros((rows, beams), jnp.int32),
    token_scores=jnp.zeros((rows, beams, new), jnp.float32) if with_scores else None,
  )
  # At first all beams are alike, so only one of them counts.
  only_first = jnp.broadcast_to(jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER), (rows, beams))
  states = jnp.broadcast_to(engine.first_states(start.stop, start.prompt)[:, None], (rows, beams))
  state = _State(
    step=jnp.zeros((), jnp.int32),
    running=empty.replace(scores=only_first),
    states=states,
    results=empty,
    finished=jnp.zeros((rows, beams), bool),
    hopeful=jnp.ones(rows, bool),
    done=jnp.zeros((), bool),
    cache=start.cache.branch(beams, start.prompt.shape[1]) if new > 1 else (),
  )
  state = advance(jnp.broadcast_to(start.logits[:, None], (rows, beams, vocabulary)), state)

  def body(state: _State) -> _State:
    last = jax.lax.dynamic_index_in_dim(state.running.tokens, state.step - 1, axis=2, keepdims=False)
    logits, cache = tokens_to_logits(last, state.cache)
    return advance(logits, state.replace(cache=cache))

  if new > 1:
    state = jax.lax.while_loop(lambda s: ~s.done, body, state)
  best = state.results.taken(jnp.broadcast_to(jnp.arange(decoding.returned), (rows, decoding.returned)))
  return Written(best.tokens, best.lengths, best.scores, best.token_scores)


def _warped(decoding: Decoding, log_probs: jax.Array) -> jax.Array:
  """Log-probabilities with -inf at what is not drawn from; enough is left for a beam to go on."""
  scores, ids = warpers.warp(decoding.options, log_probs, keep=len(decoding.eos) + 1 if decoding.eos else 2)
  if ids is None:
    return scores
  rows = jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None]
  return jnp.full(log_probs.shape, -jnp.inf, log_probs.dtype).at[rows, ids].set(scores)


def _top_k(total: jax.Array, keep: int, beams: int) -> tuple[jax.Array, jax.Array]:
  """The best of all beams, `[B, keep]`, and their places: of each beam first, which is far less to sort."""
  rows, width = total.shape[0], total.shape[1] // beams
  if keep >= width:
    return jax.lax.top_k(total, keep)
  best, places = largest.top_k(total.reshape(rows, beams, width), keep)
  places = places + (jnp.arange(beams, dtype=places.dtype) * width)[:, None]
  best, order = jax.lax.top_k(best.reshape(rows, -1), keep)
  return best, jnp.take_along_axis(places.reshape(rows, -1), order, axis=1)


def _take(x: jax.Array, chosen: jax.Array) -> jax.Array:
  """`[B, m, ...]` of `[B, n, ...]`."""
  return jnp.take_along_axis(x, chosen.reshape(*chosen.shape, *(1,) * (x.ndim - 2)), axis=1)


def _power(length: jax.Array, penalty: float) -> jax.Array:
  return length.astype(jnp.float32) ** jnp.asarray(penalty, jnp.float32)
