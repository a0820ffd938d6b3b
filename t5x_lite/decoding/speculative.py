"""Speculative decoding: a smaller model drafts some tokens, and the model that writes reads them in one pass.

A draft is kept where it is what the model would have written. Greedily, that is its likeliest token. In sampling a
token drawn from the draft's distribution q is kept with probability min(1, p / q), and else drawn anew from what p has
more than q, so that what is written has the model's own distribution p (Leviathan et al. 2023, section 2.3 and
appendix A.1).

What a row draws at a place depends on its own key and on what stands before it, and on nothing else: it is the same in
any batch and for any number of drafted tokens. So all rows of a batch may go on together, as far as the drafts of all
of them were kept; what one of them had more is drafted again, and is then the same. For this reason no token is drawn
without a draft, which the paper does where all were kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.decoding import engine, processors
from t5x_lite.decoding.config import Decoding
from t5x_lite.decoding.engine import Start, TokensToLogits, Written
from t5x_lite.decoding.warpers import warp

_DRAFT, _KEEP, _INSTEAD = range(3)  # what a key is drawn for


class Draft(NamedTuple):
  """The smaller model, and what it has read: the same prompts.

  Attributes:
    tokens_to_logits: see `engine`; it takes several tokens of a row, `[B, T]`, one after the other.
    cache: of the prompts.
  """

  tokens_to_logits: TokensToLogits
  cache: Any


class _State(struct.PyTreeNode):
  """Of rows that have all written `step` tokens, or ended before."""

  step: jax.Array
  tokens: jax.Array
  token_scores: jax.Array | None
  lengths: jax.Array
  ended: jax.Array
  states: jax.Array
  cache: Any
  draft_cache: Any


class _Rules(NamedTuple):
  """How tokens are chosen: what both models go by."""

  start: Start
  decoding: Decoding
  chain: tuple[processors.Processor, ...]
  keys: jax.Array | None

  def scores(self, logits: jax.Array, tokens: jax.Array, place: jax.Array) -> jax.Array:
    """Of the token at a place behind the prompt, float32 `[B, V]`, as all the options leave them; where tokens are
    drawn they are log-probabilities.

    Args:
      logits: float32 `[B, V]`.
      tokens: int32 `[B, T]`, of which those before the place count.
      place: int32 scalar.
    """
    step = engine.step_of(self.start, tokens[:, None], place)
    scores = processors.process(self.chain, step, logits) if self.chain else logits
    if self.keys is not None:
      scores, ids = warp(self.decoding.options, scores)
      if ids is not None:
        rows = jnp.arange(len(ids), dtype=jnp.int32)[:, None]
        scores = jnp.full(logits.shape, -jnp.inf, scores.dtype).at[rows, ids].set(scores)
    # Normalised, scores that differ may be rounded to the same: greedily they stay as they are, as without a draft.
    normalised = self.keys is not None or self.decoding.options.renormalize_logits
    return jax.nn.log_softmax(scores, axis=-1) if normalised else scores

  def keys_of(self, place: jax.Array, use: int) -> jax.Array:
    """A key for each row at a place, `[B]`."""
    assert self.keys is not None
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, place), use))(self.keys)

  def drawn(self, scores: jax.Array, place: jax.Array, use: int) -> jax.Array:
    """A token of each row, int32 `[B]`: the likeliest, where nothing is drawn."""
    if self.keys is None:
      return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(self.keys_of(place, use), scores).astype(jnp.int32)

  def judged(
    self, drafted: jax.Array, model: jax.Array, draft: jax.Array, place: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Whether a drafted token of each row, int32 `[B]`, is kept, and what is written at its place.

    Args:
      drafted: int32 `[B]`, drawn from `draft`.
      model: scores of the model that writes, float32 `[B, V]`.
      draft: those of the smaller one.
      place: int32 scalar.
    """
    if self.keys is None:
      likeliest = self.drawn(model, place, _INSTEAD)
      return likeliest == drafted, likeliest
    at = drafted[:, None]
    ratio = jnp.take_along_axis(model, at, axis=1) - jnp.take_along_axis(draft, at, axis=1)
    uniform = jax.vmap(jax.random.uniform)(self.keys_of(place, _KEEP))
    kept = uniform < jnp.exp(ratio[:, 0])
    more = jnp.maximum(jnp.exp(model) - jnp.exp(draft), 0.0)
    # Where the two are equal but for rounding nothing is left, and a draft is hardly ever not kept.
    more = jnp.where(jnp.sum(more, axis=-1, keepdims=True) > 0, jnp.log(more), model)
    return kept, jnp.where(kept, drafted, self.drawn(more, place, _INSTEAD))


def speculate(
  tokens_to_logits: TokensToLogits, start: Start, draft: Draft, decoding: Decoding, keys: jax.Array | None
) -> Written:
  """Writes one continuation of every row, in as many passes as drafts are kept.

  Args:
    tokens_to_logits: of the model that writes; it takes several tokens of a row, `[B, T]`, one after the other.
    start: where to begin.
    draft: the smaller model.
    decoding: the options; `num_assistant_tokens` are drafted at a time.
    keys: of the rows, `[B]`; None: the likeliest token is taken.
  """
  rows, new = len(start.logits), decoding.max_new
  rules = _Rules(start, decoding, processors.build(decoding), keys)
  # A window of places, drafted and judged together. It ends with the last place at the latest, so that nothing is read
  # that could not be written: near the end it begins with places that were written already.
  width = min(decoding.options.num_assistant_tokens or 1, new - 1)
  prompt = start.prompt.shape[1]

  def first() -> _State:
    place = jnp.zeros((), jnp.int32)
    tokens = jnp.full((rows, new), decoding.pad, jnp.int32)
    scores = rules.scores(start.logits, tokens, place)
    token = rules.drawn(scores, place, _DRAFT)
    states, ended = engine.read_token(decoding, start.stop, engine.first_states(start.stop, start.prompt), token)
    token_scores = jnp.zeros((rows, new), jnp.float32).at[:, 0].set(_log_probs(scores, token))
    return _State(
      step=jnp.ones((), jnp.int32),
      tokens=tokens.at[:, 0].set(token),
      token_scores=token_scores if decoding.options.output_scores else None,
      lengths=jnp.ones((rows,), jnp.int32),
      ended=ended,
      states=states,
      cache=start.cache if width else (),
      draft_cache=draft.cache if width else (),
    )

  def go_on(state: _State) -> _State:
    begin = jnp.minimum(state.step, new - width)
    places = begin + jnp.arange(width, dtype=jnp.int32)
    read = prompt + begin - 1
    drafted, of_draft, draft_cache = _drafted(rules, draft, state, places, state.draft_cache.rewound(read))
    window = jax.lax.dynamic_slice(drafted, (0, begin - 1), (rows, width))
    logits, cache = tokens_to_logits(window, state.cache.rewound(read))
    of_model = jax.vmap(rules.scores, in_axes=(1, None, 0))(logits, drafted, places)
    chosen = jax.lax.dynamic_slice(drafted, (0, begin), (rows, width)).T
    kept, tokens = jax.vmap(rules.judged)(chosen, of_model, of_draft, places)
    known = (places < state.step)[:, None]
    state = state.replace(cache=cache, draft_cache=draft_cache)
    return _written(rules, state, places, kept | known, jnp.where(known, chosen, tokens), of_model)

  state = first()
  if width:
    state = jax.lax.while_loop(lambda s: (s.step < new) & ~jnp.all(s.ended), go_on, state)
  total = jnp.zeros((rows,), jnp.float32) if state.token_scores is None else jnp.sum(state.token_scores, axis=-1)
  token_scores = None if state.token_scores is None else state.token_scores[:, None]
  return Written(state.tokens[:, None], state.lengths[:, None], total[:, None], token_scores)


def _drafted(
  rules: _Rules, draft: Draft, state: _State, places: jax.Array, cache: Any
) -> tuple[jax.Array, jax.Array, Any]:
  """The tokens with drafts at places that are not written yet, the scores at all places `[W, B, V]`, the next cache."""

  def one(carry: tuple[jax.Array, Any], place: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
    tokens, cache = carry
    last = jax.lax.dynamic_slice_in_dim(tokens, place - 1, 1, axis=1)
    logits, cache = draft.tokens_to_logits(last, cache)
    scores = rules.scores(logits[:, 0], tokens, place)
    known = jax.lax.dynamic_slice_in_dim(tokens, place, 1, axis=1)
    token = jnp.where(place < state.step, known, rules.drawn(scores, place, _DRAFT)[:, None])
    return (jax.lax.dynamic_update_slice(tokens, token, (0, place)), cache), scores

  (tokens, cache), scores = jax.lax.scan(one, (state.tokens, cache), places)
  return tokens, scores, cache


def _written(
  rules: _Rules, state: _State, places: jax.Array, kept: jax.Array, tokens: jax.Array, scores: jax.Array
) -> _State:
  """The state behind the last place of a window up to which every row knows what it writes.

  Args:
    rules: tell what ends a row.
    state: before the window.
    places: int32 `[W]`.
    kept: bool `[W, B]`: behind a token that was not kept, nothing is known of a row, unless it has ended.
    tokens: int32 `[W, B]`.
    scores: of the model, float32 `[W, B, V]`.
  """
  start, decoding = rules.start, rules.decoding

  def read(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
    states, ended, lengths = carry
    place, token = at
    token = jnp.where(ended, decoding.pad, token)
    following, ends = engine.read_token(decoding, start.stop, states, token)
    is_new = place >= state.step
    after = (
      jnp.where(is_new, following, states),
      jnp.where(is_new, ended | ends, ended),
      lengths + (is_new & ~ended).astype(jnp.int32),
    )
    return after, (after, token, ended)

  carry = (state.states, state.ended, state.lengths)
  _, ((states, ended, lengths), written, before) = jax.lax.scan(read, carry, (places, tokens))
  stuck = jnp.any(~kept & ~ended, axis=1)
  last = jnp.where(jnp.any(stuck), jnp.argmax(stuck), len(places) - 1)
  is_new = (places >= state.step) & (jnp.arange(len(places)) <= last)

  def merged(old: jax.Array, new: jax.Array) -> jax.Array:
    own = jax.lax.dynamic_slice(old, (0, places[0]), new.T.shape)
    return jax.lax.dynamic_update_slice(old, jnp.where(is_new, new.T, own), (0, places[0]))

  token_scores = state.token_scores
  if token_scores is not None:
    token_scores = merged(token_scores, jnp.where(before, 0.0, jax.vmap(_log_probs)(scores, written)))
  return state.replace(
    step=places[last] + 1,
    tokens=merged(state.tokens, written),
    token_scores=token_scores,
    lengths=lengths[last],
    ended=ended[last],
    states=states[last],
  )


def _log_probs(scores: jax.Array, tokens: jax.Array) -> jax.Array:
  """Of some tokens, float32 `[B]`."""
  chosen = jnp.take_along_axis(scores, tokens[:, None], axis=1)[:, 0]
  return chosen - jax.nn.logsumexp(scores, axis=-1)
