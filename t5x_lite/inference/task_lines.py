"""Lines of a task of the catalogue, for `infer --mode=probe --task=NAME`: texts or words with what is known of them.

a task for a head of classes   "text", "pair" if there are two, and the name of the class as "label"
a task for a head of tags      "words" and the names of their "tags"
any other supervised task      the inputs as "text", the targets as "label"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import task as tasks
from t5x_lite.inference.rows import Line
from t5x_lite.tasks import labelled

_CLASSES, _TAGS = 'classification', 'tagging'


def lines(name: str | tasks.Task, split: str, limit: int, *, pairs: bool) -> Iterator[Line]:
  """The examples of a split whose label is known, numbered from 1.

  Args:
    name: of the task, or the task.
    split: of it.
    limit: records at most, at evenly spaced places.
    pairs: whether the model reads two texts; otherwise they are one, with a blank between.

  Raises:
    UsageError: there is no such task or split, it is a mixture, or has no labels.
  """
  member = tasks.get(name)
  if not isinstance(member, tasks.Task) or not member.supervised:
    raise errors.UsageError(f'task {tasks.name_of(name)!r} has no labels to probe for: expected a supervised task')
  if limit < 1:
    raise errors.UsageError(f'limit={limit}: expected at least 1')
  records = member.spread_records(split, limit)
  return (Line(number, fields) for number, fields in enumerate(_fields(member, records, pairs), start=1))


def _fields(member: tasks.Task, records: Any, pairs: bool) -> Iterator[Mapping[str, Any]]:
  head, labels = (member.encoder.head, member.encoder.labels) if member.encoder is not None else ('', ())
  for record in records:
    if head in (_CLASSES, _TAGS):
      for example in member.encoder_examples(record):
        if head == _TAGS:
          yield {'words': list(example['words']), 'tags': [labels[tag] for tag in example['tags']]}
        elif example['label'] >= 0:
          yield {**_texts(example, pairs), 'label': labels[example['label']]}
    else:
      for example in member.examples(record):
        if example['targets'] != labelled.UNKNOWN:
          yield {'text': example['inputs'], 'label': example['targets']}


def _texts(example: Mapping[str, Any], pairs: bool) -> dict[str, str]:
  texts = {side: str(example[side]) for side in ('text', 'pair') if side in example}
  return texts if pairs else {'text': ' '.join(texts.values())}
