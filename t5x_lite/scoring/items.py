"""What is scored: the examples of a split in the order of its records, each with what is right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder import examples as encoder_examples
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.features import DecoderOnlyFeatures, EncoderDecoderFeatures
from t5x_lite.metrics import registry
from t5x_lite.tasks import labelled

_UNKNOWN_LABEL = -1  # what test sets have whose answers are not published
_AT_ONCE = 256  # records that are tokenised together


@dataclasses.dataclass(frozen=True)
class Item:
  """An example whose prediction is scored.

  Attributes:
    record: what it was made of, the source's.
    example: as its task gives it: `inputs` and `targets`, or what its head needs.
    reference: what is right, as the metrics compare it; None where it is unknown.
    parts: of a task for a head, the arrays of the rows that it makes, one unless it was split; none if it was dropped.
  """

  record: tasks.Record
  example: Mapping[str, Any]
  reference: Any
  parts: Sequence[Mapping[str, np.ndarray]] = ()


@dataclasses.dataclass(frozen=True)
class Prediction:
  """A prediction.

  Attributes:
    value: what the metrics compare with the item's reference.
    shown: the same and more, JSON-able, by name, for people and files.
    loss: of what is right, in nats, or a squared error; None where that or the probability of it is unknown.
  """

  value: Any
  shown: Mapping[str, Any]
  loss: float | None = None


def is_scored(member: tasks.Task, config: DatasetConfig) -> bool:
  """Whether predictions of a task are scored with metrics of its own, by a model that reads these features."""
  return bool(metrics_of(member, config)) and can_predict(member, config)


def can_predict(member: tasks.Task, config: DatasetConfig) -> bool:
  """Whether a task has answers that a model which reads these features could give."""
  if isinstance(config.features, EncoderTaskFeatures):
    return member.encoder is not None
  return member.supervised and isinstance(config.features, EncoderDecoderFeatures | DecoderOnlyFeatures)


def metrics_of(member: tasks.Task, config: DatasetConfig) -> tuple[str, ...]:
  """The names of the metrics of a task."""
  if isinstance(config.features, EncoderTaskFeatures) and member.encoder is not None:
    return member.metrics if member.encoder.metrics is None else member.encoder.metrics
  return member.metrics


def read(member: tasks.Task, config: DatasetConfig, limit: int | None = None) -> list[Item]:
  """The items of a split.

  Args:
    member: the task.
    config: split, features, lengths and tokenizer.
    limit: of records; None: all.
  """
  records = member.source.random_access(member.source_split(config.split))
  count = len(records) if limit is None else min(limit, len(records))
  make = _labelled(member, config) if isinstance(config.features, EncoderTaskFeatures) else _written(member)
  found: list[Item] = []
  for start in range(0, count, _AT_ONCE):
    found += make(records.__getitems__(list(range(start, min(start + _AT_ONCE, count)))))
  if not found:
    raise errors.UsageError(f'task {member.name!r} has no examples in its split {config.split!r}')
  return found


def score(metrics: Sequence[str], items: Sequence[Item], predictions: Sequence[Prediction]) -> dict[str, float]:
  """The values of metrics by name, and `score`, their mean; nothing where no reference is known.

  A metric that tells several things, as EM and F1, counts in the mean as what it tells first of the whole set: with
  `em` and `f1` as both. Source: GLUE (Wang et al. 2019), which averages the metrics of a task, and SuperGLUE.
  """
  pairs = [(item.reference, own.value) for item, own in zip(items, predictions, strict=True)]
  known = [(reference, value) for reference, value in pairs if reference is not None]
  if not known:
    return {}
  references, values = zip(*known, strict=True)
  found: dict[str, float] = {}
  for name in metrics:
    found |= registry.get(name)(references, values)
  counted = [value for name, value in found.items() if _counts(name)]
  return found | ({'score': float(np.mean(counted))} if counted else {})


# What details a metric rather than being one: precision and recall of an F1, subsets, other ranks.
_DETAILS = ('precision', 'recall', 'has_answer', 'no_answer', 'hits@', 'belief')


def _counts(name: str) -> bool:
  return not any(detail in name for detail in _DETAILS)


def _written(member: tasks.Task) -> Any:
  def make(records: Sequence[tasks.Record]) -> list[Item]:
    return [
      Item(record, example, _reference(member, record, example))
      for record in records
      for example in member.examples(record)
    ]

  return make


def _reference(member: tasks.Task, record: tasks.Record, example: Mapping[str, str]) -> Any:
  if example['targets'] == labelled.UNKNOWN:
    return None
  if member.reference is not None:
    reference = member.reference(record)
    label = reference.get('label') if isinstance(reference, Mapping) else reference
    return None if isinstance(label, int | float) and label == _UNKNOWN_LABEL else reference
  return example['targets'] if member.postprocess is None else member.postprocess(example['targets'])


def _labelled(member: tasks.Task, config: DatasetConfig) -> Any:
  assert config.tokenizer is not None and isinstance(config.features, EncoderTaskFeatures)
  length = config.task_feature_lengths['inputs']
  parts_of = encoder_examples.labelled_parts(member, config.tokenizer, length, config.features.max_query_length)

  def make(records: Sequence[tasks.Record]) -> Iterator[Item]:
    for record, examples in zip(records, parts_of(records), strict=True):
      for example, parts in examples:
        yield Item(record, example, _right(member, record, example), [part.features for part in parts])

  return make


def _right(member: tasks.Task, record: tasks.Record, example: Mapping[str, Any]) -> Any:
  """What a head should say; None where it is unknown."""
  assert member.encoder is not None
  head, label = member.encoder.head, example.get('label')
  if label is not None and (label == _UNKNOWN_LABEL or (isinstance(label, float) and math.isnan(label))):
    return None
  if head == 'span' and not example['answers'] and not member.encoder.may_lack_answer:
    return None
  if head == 'span':
    return list(example['answers'])  # as they stand in the context: the task's own reference is of what T5 writes
  if head == 'multiple_choice' and member.encoder.answer is None:
    return label  # The task's own reference is the text of a choice.
  return label if member.reference is None else member.reference(record)
