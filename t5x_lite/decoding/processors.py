"""Changes to the scores of the next token before one is chosen: pure functions, in Hugging Face's order.

A processor maps `(Step, scores)` to scores, float32 `[R, V]`, R rows of a batch and their continuations. What is
forbidden has the score -inf. Padding is no part of a row here, so that a prompt is continued alike in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from t5x_lite.decoding.config import Decoding, Ids

NEGATIVE = -jnp.inf


class Step(struct.PyTreeNode):
  """What a processor may know.

  Attributes:
    history: int32 `[R, P + T]`, prompts and what was written; below 0 where there is padding, or nothing yet.
    written: int32 scalar, the number of tokens written.
    encoder: int32 `[R, S]`, the input of an encoder, below 0 where there is padding; None without one.
    prompt: P.
  """

  history: jax.Array
  written: jax.Array
  encoder: jax.Array | None = None
  prompt: int = struct.field(pytree_node=False, default=0)


Processor = Callable[[Step, jax.Array], jax.Array]


def process(processors: Sequence[Processor], step: Step, scores: jax.Array) -> jax.Array:
  """The scores after all of them."""
  for processor in processors:
    scores = processor(step, scores)
  return scores


def build(decoding: Decoding) -> tuple[Processor, ...]:
  """What the options ask for, but for what concerns sampling alone (see `warpers`)."""
  options, made = decoding.options, []
  if decoding.num_tokens is not None:
    made.append(within(decoding.num_tokens))
  if options.encoder_repetition_penalty != 1.0:
    made.append(encoder_repetition_penalty(options.encoder_repetition_penalty or 1.0))
  if options.repetition_penalty != 1.0:
    made.append(repetition_penalty(options.repetition_penalty or 1.0))
  if options.no_repeat_ngram_size:
    made.append(no_repeat_ngram(options.no_repeat_ngram_size))
  if options.encoder_no_repeat_ngram_size:
    made.append(no_repeat_ngram(options.encoder_no_repeat_ngram_size, of_encoder=True))
  if options.bad_words_ids:
    made.append(bad_words([word for word in options.bad_words_ids if len(word) > 1 or word[0] not in decoding.eos]))
  if decoding.min_new and decoding.eos:
    made.append(at(lambda step: step.written < decoding.min_new, suppress(decoding.eos)))
  if options.forced_bos_token_id is not None and decoding.starts_bare:
    made.append(at(lambda step: step.written == 0, force((options.forced_bos_token_id,))))
  if options.forced_eos_token_id is not None:
    forced = options.forced_eos_token_id
    ids = (forced,) if isinstance(forced, int) else forced
    made.append(at(lambda step: step.written == decoding.max_new - 1, force(ids)))
  if options.remove_invalid_values:
    made.append(remove_invalid)
  if options.exponential_decay_length_penalty is not None:
    made.append(length_decay(*options.exponential_decay_length_penalty, decoding.eos))
  if options.suppress_tokens:
    made.append(suppress(options.suppress_tokens))
  if options.begin_suppress_tokens:
    begin = int(decoding.starts_bare and options.forced_bos_token_id is not None)
    made.append(at(lambda step: step.written == begin, suppress(options.begin_suppress_tokens)))
  return tuple(made)


def at(when: Callable[[Step], jax.Array], processor: Processor) -> Processor:
  """A processor that acts at some steps only."""
  return lambda step, scores: jnp.where(when(step), processor(step, scores), scores)


def within(num_tokens: int) -> Processor:
  """Forbids rows of the embedding table that no token stands for."""
  return lambda step, scores: jnp.where(jnp.arange(scores.shape[-1]) < num_tokens, scores, NEGATIVE)


def suppress(ids: Ids) -> Processor:
  """Forbids ids."""
  return lambda step, scores: jnp.where(_members(ids, scores), NEGATIVE, scores)


def force(ids: Ids) -> Processor:
  """Forbids all but these, which are equally likely."""
  return lambda step, scores: jnp.broadcast_to(jnp.where(_members(ids, scores), 0.0, NEGATIVE), scores.shape)


def repetition_penalty(penalty: float) -> Processor:
  """Divides positive scores of what the row holds, and multiplies negative ones (Keskar et al. 2019, sec. 4.1)."""
  return lambda step, scores: _penalised(scores, step.history, penalty)


def encoder_repetition_penalty(penalty: float) -> Processor:
  """The opposite, for what the input holds; a decoder alone has its prompt for an input."""
  return lambda step, scores: _penalised(scores, _input_of(step), 1.0 / penalty)


def no_repeat_ngram(size: int, of_encoder: bool = False) -> Processor:
  """Forbids what would end an n-gram that the row, or the input, already holds (Paulus et al. 2018)."""

  def processor(step: Step, scores: jax.Array) -> jax.Array:
    source = _input_of(step) if of_encoder else step.history
    windows = source.shape[1] - size + 1
    if windows < 1:
      return scores
    last = _last(step, size - 1)
    last_of = source[:, size - 1 :]
    same = last_of >= 0
    for place in range(size - 1):
      window = source[:, place : place + windows]
      same &= (window == last[:, place : place + 1]) & (window >= 0)
    banned = _scattered(scores, jnp.where(same, last_of, scores.shape[1]))
    return jnp.where(banned, NEGATIVE, scores)

  return processor


def bad_words(words: Sequence[Ids]) -> Processor:
  """Forbids what would complete one of the sequences."""

  def processor(step: Step, scores: jax.Array) -> jax.Array:
    scores = suppress(tuple(word[0] for word in words if len(word) == 1))(step, scores)
    for size in sorted({len(word) for word in words if len(word) > 1}):
      chosen = np.asarray([word for word in words if len(word) == size], np.int32)
      if size - 1 > step.history.shape[1]:
        continue
      last = _last(step, size - 1)
      matches = jnp.all(last[:, None] == chosen[None, :, :-1], axis=-1)
      banned = _scattered(scores, jnp.where(matches, chosen[None, :, -1], scores.shape[1]))
      scores = jnp.where(banned, NEGATIVE, scores)
    return scores

  return processor


def length_decay(start: int, factor: float, eos: Ids) -> Processor:
  """Raises the score of the end, the more the longer a row is than `start` new tokens."""

  def processor(step: Step, scores: jax.Array) -> jax.Array:
    over = jnp.maximum(step.written - start, 0).astype(scores.dtype)
    raised = jnp.where(jnp.isfinite(scores), jnp.abs(scores), 0.0) * (jnp.asarray(factor, scores.dtype) ** over - 1.0)
    return jnp.where(_members(eos, scores), scores + raised, scores)

  return processor


def remove_invalid(step: Step, scores: jax.Array) -> jax.Array:
  """NaN is 0, and infinity the greatest float32."""
  return jnp.nan_to_num(scores)


def _members(ids: Ids, scores: jax.Array) -> np.ndarray:
  """bool `[V]`, of ids that there are."""
  return np.isin(np.arange(scores.shape[-1]), np.asarray(ids, np.int64))


def _last(step: Step, count: int) -> jax.Array:
  """The last tokens of every row, int32 `[R, count]`; below 0 where it has not so many."""
  padded = jnp.pad(step.history, ((0, 0), (count, 0)), constant_values=-1)
  return jax.lax.dynamic_slice_in_dim(padded, step.prompt + step.written, count, axis=1)


def _input_of(step: Step) -> jax.Array:
  return step.history[:, : step.prompt] if step.encoder is None else step.encoder


def _scattered(scores: jax.Array, ids: jax.Array) -> jax.Array:
  """bool `[R, V]`: which ids `[R, L]` are there; ids that are none are left out."""
  rows = jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None]
  ids = jnp.where(ids < 0, scores.shape[1], ids)
  return jnp.zeros(scores.shape, bool).at[rows, ids].set(True, mode='drop')


def _penalised(scores: jax.Array, ids: jax.Array, penalty: float) -> jax.Array:
  changed = jnp.where(scores < 0, scores * penalty, scores / penalty)
  return jnp.where(_scattered(scores, ids), changed, scores)
