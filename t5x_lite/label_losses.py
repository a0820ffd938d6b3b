"""Losses of labelled examples: classes and tags, grades, choices, spans; what heads learn from.

Labels stand at positions of `[B, L]`, each with a weight, so that examples may share a row: what is summed over the
positions of a packed row is what its examples by themselves sum up to. Everything is float32 and not normalised; who
divides by what is the learner's business. Label smoothing is that of `losses.token_losses`.

Sources: Devlin et al. 2019 (BERT), section 4; multiple choice: Radford et al. 2018, section 3.3; texts that are alike:
Henderson et al. 2017, section 4, and Gao et al. 2021 (SimCSE), equation 5, as `MultipleNegativesRankingLoss` of
sentence-transformers has it. The values are those
of transformers' `...ForSequenceClassification` and siblings, with one difference: the softmax of a span is over the
example that asks for it, where theirs is over the padding of its row, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from t5x_lite.core import batch as batch_lib
from t5x_lite.core.batch import Batch

_NEVER = -1e9  # a score that no text has


@struct.dataclass
class LabelSums:
  """Scalar float32 sums over the labels of examples.

  Attributes:
    loss: cross entropy in nats, or squared error.
    correct: hits of the argmax; None of grades, which are never hit.
    weight: the weights themselves.
  """

  loss: jax.Array
  correct: jax.Array | None
  weight: jax.Array

  def named(self) -> dict[str, jax.Array]:
    """The sums as metrics: `loss_sum`, `correct_sum` if there is one, `weight_sum`."""
    sums = {'loss_sum': self.loss, 'correct_sum': self.correct, 'weight_sum': self.weight}
    return {name: value for name, value in sums.items() if value is not None}


@struct.dataclass
class LabelLosses:
  """The losses of labels at the positions `[B, L]` where they stand, not weighted. Fields as in `LabelSums`."""

  loss: jax.Array
  correct: jax.Array | None

  def sums(self, weights: jax.Array) -> LabelSums:
    """Sums with weights float32 `[B, L]`."""
    correct = None if self.correct is None else jnp.sum(self.correct * weights)
    return LabelSums(jnp.sum(self.loss * weights), correct, jnp.sum(weights))


def of_batch(
  logits: jax.Array, batch: Batch, label_smoothing: float = 0.0, similarity_scale: float = 20.0
) -> LabelLosses:
  """The losses of whatever labels the examples of a batch have.

  Args:
    logits: float32 `[B, L, C]` of the head that answers, at every position; C is 1 for grades and choices and 2, start
      and end, for spans; of texts to be compared they are their vectors.
    batch: the rows.
    label_smoothing: of classes, tags, choices and texts.
    similarity_scale: of texts, what their cosines are multiplied by: one over the temperature.
  """
  side = batch_lib.labelled_side(batch)
  named = {name: batch[key] for name in batch_lib.LABELS if (key := batch_lib.key(side, name)) in batch}
  if batch_lib.SPAN_START in named:
    segments = batch[batch_lib.key(side, batch_lib.SEGMENT_IDS)]
    return spans(logits, named[batch_lib.SPAN_START], named[batch_lib.SPAN_END], segments)
  if batch_lib.TEXT_NUMBER in named:
    numbers, ids = named[batch_lib.TEXT_NUMBER], named[batch_lib.TEXT_ID]
    return alike(logits, numbers, ids, similarity_scale, label_smoothing)
  if batch_lib.LABEL_VALUE in named:
    return LabelLosses(jnp.square(logits[..., 0] - named[batch_lib.LABEL_VALUE]), None)
  if batch_lib.LABEL_GROUP in named:
    return choices(logits[..., 0], named[batch_lib.LABEL_GROUP], label_smoothing)
  return classes(logits, named[batch_lib.LABEL], label_smoothing)


def weights_of_batch(batch: Batch, class_weights: Sequence[float] | None = None) -> jax.Array:
  """What each label of a batch weighs in its loss, float32 `[B, L]`.

  A question weighs 1 at the choice that is right, a span 1 at its start; 0 where nothing is known.

  Args:
    batch: the rows.
    class_weights: what the labels of each class or tag are multiplied by; None: nothing.
  """
  side = batch_lib.labelled_side(batch)
  start = batch.get(batch_lib.key(side, batch_lib.SPAN_START))
  if start is not None:
    return start.astype(jnp.float32)
  weights = batch[batch_lib.key(side, batch_lib.LABEL_WEIGHTS)].astype(jnp.float32)
  if batch_lib.key(side, batch_lib.LABEL) not in batch:
    return weights
  labels = batch[batch_lib.key(side, batch_lib.LABEL)]
  if batch_lib.key(side, batch_lib.LABEL_GROUP) in batch:
    return weights * labels.astype(jnp.float32)
  return weights if class_weights is None else weights * jnp.asarray(class_weights, jnp.float32)[labels]


def label_sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> LabelSums:
  """Sums over classes at some positions.

  Args:
    logits: float32 `[B, L, C]`.
    labels: int32 `[B, L]`.
    weights: float32 `[B, L]`, 0 where there is no label.
  """
  return classes(logits, labels).sums(weights)


def classes(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> LabelLosses:
  """Cross entropy of classes or tags int32 `[B, L]` under logits `[B, L, C]`."""
  log_probabilities = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
  loss = _smoothed(nll, -jnp.sum(log_probabilities, axis=-1), logits.shape[-1], label_smoothing)
  return LabelLosses(loss, (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32))


def choices(logits: jax.Array, groups: jax.Array, label_smoothing: float = 0.0) -> LabelLosses:
  """At every choice the loss of a question if that choice is the right one.

  Args:
    logits: float32 `[B, L]`.
    groups: int32 `[B, L]`: at each choice the number, from 1, that its question has in its row; 0 elsewhere.
    label_smoothing: mass of the wrong choices.
  """
  chosen = jnp.where(groups > 0, logits, -jnp.inf)
  log_z = _log_sum_exp(chosen, groups)
  nll = jnp.where(groups > 0, log_z - logits, 0.0)
  if label_smoothing:
    total = _within(jax.ops.segment_sum, nll, groups)
    count = _within(jax.ops.segment_sum, (groups > 0).astype(jnp.float32), groups)
    nll = _smoothed(nll, total, count, label_smoothing)
  return LabelLosses(nll, _is_best(chosen, groups))


def spans(logits: jax.Array, start: jax.Array, end: jax.Array, segments: jax.Array) -> LabelLosses:
  """At every position of an example the mean of the losses of its start and its end; a hit is one of both.

  Args:
    logits: float32 `[B, L, 2]`.
    start: float32 `[B, L]`, 1.0 at one position of every example.
    end: the same.
    segments: int32 `[B, L]`, which example a position belongs to; 0 is padding.
  """
  total, hits = jnp.zeros(segments.shape, jnp.float32), jnp.zeros(segments.shape, jnp.float32)
  for index, wanted in enumerate((start, end)):
    own = logits[..., index]
    total += wanted * (_log_sum_exp(own, segments) - own)
    hits += wanted * _is_best(own, segments)
  loss, hits = (_within(jax.ops.segment_sum, values, segments) for values in (0.5 * total, hits))
  return LabelLosses(loss, (hits > 1.5).astype(jnp.float32))


def alike(
  vectors: jax.Array, numbers: jax.Array, ids: jax.Array, scale: float, label_smoothing: float = 0.0
) -> LabelLosses:
  """At every first text the loss of telling what is like it from all the other texts of the batch.

  The cross entropy of its pair among the second and third texts of all rows, whatever devices they lie on, under their
  cosines times the scale. What is the very same text as the pair, or as the first text, is not told from the pair, but
  left out. A hit is a pair that is closest.

  Args:
    vectors: float32 `[B, L, D]`, of length 1.
    numbers: int32 `[B, L]`, 1, 2 and 3 at one position each of a row where there is such a text; 0 elsewhere.
    ids: int32 `[B, L]`, at these positions the same for the same text.
    scale: what cosines are multiplied by.
    label_smoothing: mass of the other texts.
  """
  first, pair, unlike = (_text(vectors, numbers, ids, number) for number in (1, 2, 3))
  rows = len(vectors)
  scores, chosen = [], []
  for place, (others, other_ids, there) in enumerate((pair, unlike)):
    cosines = jnp.einsum('bd,cd->bc', first[0], others, precision=jax.lax.Precision.HIGHEST)
    same = (other_ids[None] == pair[1][:, None]) | (other_ids[None] == first[1][:, None])
    own = jnp.eye(rows, dtype=bool) if place == 0 else jnp.zeros((rows, rows), bool)
    scores.append(scale * cosines)
    chosen.append(there[None] & (own | ~same))
  known, counted = first[2] & pair[2], jnp.concatenate(chosen, axis=1)
  # Finite, so that a row of padding has no gradient.
  scores = jnp.where(counted, jnp.concatenate(scores, axis=1), _NEVER)
  nll = jnp.where(counted, jax.nn.logsumexp(scores, axis=1, keepdims=True) - scores, 0.0)
  loss = _smoothed(jnp.diagonal(nll), jnp.sum(nll, axis=1), jnp.sum(counted, axis=1), label_smoothing)
  hits = (jnp.argmax(scores, axis=1) == jnp.arange(rows)).astype(jnp.float32)
  return LabelLosses(*(jnp.where((numbers == 1) & known[:, None], each[:, None], 0.0) for each in (loss, hits)))


def _text(
  vectors: jax.Array, numbers: jax.Array, ids: jax.Array, number: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Of the text of that number in every row: its vector `[B, D]`, its id `[B]`, and whether there is one, `[B]`."""
  found = numbers == number
  at = jnp.argmax(found, axis=1)[:, None]
  vector = jnp.take_along_axis(vectors, at[..., None], axis=1)[:, 0]
  return vector, jnp.take_along_axis(ids, at, axis=1)[:, 0], jnp.any(found, axis=1)


def _smoothed(nll: jax.Array, total: jax.Array, count: jax.Array | int, mass: float) -> jax.Array:
  """Cross entropy with some mass taken from the label and spread over the others, less the entropy of that.

  Args:
    nll: of the label.
    total: the sum of the nll of all labels.
    count: how many there are.
    mass: taken from the label.
  """
  if not mass:
    return nll
  confidence, low = 1.0 - mass, mass / jnp.maximum(jnp.asarray(count, jnp.float32) - 1.0, 1.0)
  entropy = -(confidence * math.log(confidence) + mass * jnp.log(low))
  return (confidence - low) * nll + low * total - entropy


def _within(reduce: jax.stages.Wrapped, values: jax.Array, groups: jax.Array) -> jax.Array:
  """For every position of `[B, L]`, the values of its group in its row reduced; groups are numbered from 0 to L."""

  def row(values: jax.Array, groups: jax.Array) -> jax.Array:
    return reduce(values, groups, num_segments=values.shape[0] + 1)[groups]

  return jax.vmap(row)(values, groups)


def _log_sum_exp(values: jax.Array, groups: jax.Array) -> jax.Array:
  """log of the sum of exp over the group of each position `[B, L]`; a group may be of -inf alone."""
  top = jax.lax.stop_gradient(_within(jax.ops.segment_max, values, groups))
  top = jnp.where(jnp.isfinite(top), top, 0.0)
  total = _within(jax.ops.segment_sum, jnp.exp(values - top), groups)
  return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1.0)) + top, 0.0)


def _is_best(values: jax.Array, groups: jax.Array) -> jax.Array:
  """1.0 at the position of every group that has its largest value, the first of equals."""
  places = jnp.broadcast_to(jnp.arange(values.shape[1], dtype=jnp.int32), values.shape)
  tops = jnp.where(values == _within(jax.ops.segment_max, values, groups), places, values.shape[1])
  return (places == _within(jax.ops.segment_min, tops, groups)).astype(jnp.float32)
