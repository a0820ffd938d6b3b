"""Predictions of models with heads: classes by argmax, grades, choices, the best span of a context, tags of words."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t5x_lite.core import batch as batch_lib
from t5x_lite.data import packing
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.inference import answers
from t5x_lite.metrics import tagging
from t5x_lite.partitioning import sharding
from t5x_lite.scoring.items import Item, Prediction
from t5x_lite.training.steps import Trainer

_SMALLEST_BUCKET = 16
# As Hugging Face's `run_qa.py`: how many starts and ends are paired, and how long an answer may be, in tokens.
N_BEST, MAX_ANSWER_LENGTH = 20, 30


def buckets(longest: int) -> list[int]:
  """The lengths that rows are padded to: powers of two up to `longest`."""
  lengths = []
  size = _SMALLEST_BUCKET
  while size < longest:
    lengths.append(size)
    size *= 2
  return [*lengths, longest]


class HeadPredictor:
  """Asks a model with a head, in batches of like lengths, one example a row.

  Args:
    trainer: whose model and mesh are used.
    config: features, lengths and batch size.
    member: the task.
  """

  def __init__(self, trainer: Trainer, config: DatasetConfig, member: tasks.Task):
    assert isinstance(config.features, EncoderTaskFeatures) and member.encoder is not None
    self._trainer, self._converter, self._batch_size = trainer, config.features, config.batch_size
    self._buckets = buckets(config.task_feature_lengths['inputs'])
    self._member, self._encoder = member, member.encoder
    learner = trainer.learner

    def logits(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
      return learner.apply(params, batch, deterministic=True, method='label_logits')

    self._logits = jax.jit(logits, out_shardings=sharding.replicated(trainer.mesh))

  def __call__(self, params: Any, items: Sequence[Item]) -> list[Prediction]:
    """A prediction for each item. Every process must call it, with the same items; all get all."""
    parts = [part for item in items for part in item.parts]
    found = iter(self._all_logits(params, parts))
    return [self._predict(item, [next(found) for _ in item.parts]) for item in items]

  def _all_logits(self, params: Any, parts: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
    """Of each part float32 `[n, C]`."""
    side = self._converter.side
    rows = self._trainer.process_rows(self._batch_size)
    found: dict[int, np.ndarray] = {}
    order = sorted(range(len(parts)), key=lambda index: len(parts[index]['inputs']))
    for length, chosen in chunks(order, [len(part['inputs']) for part in parts], self._buckets, self._batch_size):
      batch = {name: np.zeros((self._batch_size, length), batch_lib.dtype(name)) for name in self._converter.keys(side)}
      for row, index in enumerate(chosen):
        entry = packing.Entry(self._converter(parts[index]))
        packing.write_row(packing.Row.of([entry], {side: length}), batch, row, self._converter)
      own = {name: array[rows] for name, array in batch.items()}
      placed = self._trainer.shard_batch(own, self._batch_size)
      with sharding.scope(self._trainer.mesh, self._trainer.rules):
        logits = np.asarray(self._logits(params, placed))
      for row, index in enumerate(chosen):
        found[index] = logits[row, : len(parts[index]['inputs'])]
    return [found[index] for index in range(len(parts))]

  def _predict(self, item: Item, logits: Sequence[np.ndarray]) -> Prediction:
    head, labels = self._encoder.head, self._encoder.labels
    if head == 'span':
      return _span(item, logits, self._encoder.may_lack_answer)
    if head == 'tagging':
      return _tagged(item, logits, labels)
    if head == 'embedding':
      return _compared(item, logits)
    if not logits:  # An example that had no room: whatever is said of it is a guess.
      logits, item = (
        [np.zeros((1, 1), np.float32)],
        Item(item.record, item.example, None, [{'pooled': np.zeros(1, int)}]),
      )
    pooled = [own[part['pooled']] for own, part in zip(logits, item.parts, strict=True)]
    mean = np.mean(np.stack(pooled), axis=0)  # of an example in parts
    label = item.example.get('label', -1)
    if head == 'regression':
      error = float(np.square(mean[0, 0] - label))
      return Prediction(float(mean[0, 0]), {'value': float(mean[0, 0])}, None if math.isnan(label) else error)
    scores = mean[:, 0] if head == 'multiple_choice' else mean[0]
    index = int(np.argmax(scores))
    shown: dict[str, Any] = {'label': index, 'probabilities': _softmax(scores)}
    if head == 'classification' and labels:
      shown = {'label': labels[index], 'index': index, 'probabilities': shown['probabilities']}
    value = index if self._encoder.answer is None else self._encoder.answer(item.record, index)
    return Prediction(value, shown, float(_nll(scores, int(label))) if 0 <= label < len(scores) else None)


def chunks(
  order: Sequence[int], lengths: Sequence[int], sizes: Sequence[int], batch_size: int
) -> Iterator[tuple[int, list[int]]]:
  """Indices, those of the shortest first, in batches: `(length that all of them fit, indices)`."""
  place = functools.partial(_bucket, sizes=sizes)
  start = 0
  while start < len(order):
    length = place(lengths[order[start]])
    stop = start
    while stop < len(order) and stop - start < batch_size and place(lengths[order[stop]]) == length:
      stop += 1
    yield length, list(order[start:stop])
    start = stop


def _bucket(length: int, sizes: Sequence[int]) -> int:
  return next(size for size in sizes if length <= size)


def _softmax(scores: np.ndarray) -> list[float]:
  exponentials = np.exp(scores - scores.max())
  return [round(float(value), 6) for value in exponentials / exponentials.sum()]


def _nll(scores: np.ndarray, label: int) -> np.float64:
  """Cross entropy in nats of a label under logits `[C]`."""
  return -(scores[label] - answers.log_total([scores]))


def _compared(item: Item, logits: Sequence[np.ndarray]) -> Prediction:
  """The cosine of two texts; 0 where there was no room for them."""
  pooled = [own[part['pooled']] for own, part in zip(logits, item.parts, strict=True)]
  cosine = float(pooled[0][0] @ pooled[0][1]) if pooled else 0.0
  return Prediction(cosine, {'cosine': cosine})


def _tagged(item: Item, logits: Sequence[np.ndarray], labels: Sequence[str]) -> Prediction:
  """The tag of every word, and how sure it is; of one that lost its place to the length, none."""
  none = tagging.OUTSIDE if tagging.OUTSIDE in labels else labels[0]
  tags, chances, losses = [none] * len(item.example['words']), [0.0] * len(item.example['words']), []
  for own, part in zip(logits, item.parts, strict=True):
    for position in np.flatnonzero(part['words'] >= 0):
      word, best = int(part['words'][position]), int(np.argmax(own[position]))
      tags[word], chances[word] = labels[best], round(float(np.exp(-_nll(own[position], best))), 6)
      if part['tags'][position] >= 0:
        losses.append(_nll(own[position], int(part['tags'][position])))
  shown = {'words': list(item.example['words']), 'tags': tags, 'probabilities': chances}
  return Prediction(tags, shown, float(np.mean(losses)) if losses else None)


def _span(item: Item, logits: Sequence[np.ndarray], may_lack: bool) -> Prediction:
  """The best answer of all windows, by the sum of the logits of its start and end; none if that scores higher.

  Source: Hugging Face's `postprocess_qa_predictions`, and BERT's `run_squad.py`, section 4.3 of the paper.
  """
  context, found, null = item.example['pair'], [], np.inf
  totals, losses = _span_totals(item, logits)
  for own, part in zip(logits, item.parts, strict=True):
    start, end = own[:, 0], own[:, 1]
    pooled = int(part['pooled'][0])
    null = min(null, float(start[pooled] + end[pooled]))
    for first, last in _pairs(start, end, part['offsets']):
      found.append((float(start[first] + end[last]), int(part['offsets'][first, 0]), int(part['offsets'][last, 1])))
  best = max(found, key=lambda scored: scored[0], default=None)  # the first of equals
  text = context[best[1] : best[2]] if best else ''
  margin, score = null - best[0] if best else np.inf, best[0] if best else null
  shown: dict[str, Any] = {'answer': text, 'start': best[1] if best else None}
  if may_lack:
    shown |= {'no_answer_margin': float(margin)}
    if margin > 0:
      text, score = '', null
      shown |= {'answer': '', 'start': None}
  shown['probability'] = round(float(np.exp(score - totals)), 6) if np.isfinite(score) else 0.0
  return Prediction(text, shown, None if item.reference is None else losses)


def _span_totals(item: Item, logits: Sequence[np.ndarray]) -> tuple[float, float | None]:
  """What the sum of the logits of a span is less than by its log-probability, see `inference.answers`; and the loss.

  The loss is the mean over all windows of that of `label_losses.spans`.
  """
  if not logits:
    return 0.0, None
  inside = [
    own[(part['offsets'][:, 0] >= 0) | (np.arange(len(own)) == int(part['pooled'][0]))]
    for own, part in zip(logits, item.parts, strict=True)
  ]
  totals = sum(answers.log_total([own[:, side] for own in inside]) for side in (0, 1))
  losses = [
    0.5 * sum(float(_nll(own[:, side], int(part['span'][side]))) for side in (0, 1))
    for own, part in zip(logits, item.parts, strict=True)
    if 'span' in part
  ]
  return totals, float(np.mean(losses)) if losses else None


def _pairs(start: np.ndarray, end: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[int, int]]:
  """Likely starts and ends that make an answer: both in the context, in order, not too far apart."""
  firsts, lasts = (np.argsort(-logits, kind='stable')[:N_BEST] for logits in (start, end))
  for first in firsts:
    for last in lasts:
      if first <= last < first + MAX_ANSWER_LENGTH and offsets[first, 0] >= 0 and offsets[last, 0] >= 0:
        yield int(first), int(last)
