"""What is to be seen of a task's predictions: what is taken for what, how sure, and where it is most wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.data import task as tasks
from t5x_lite.scoring import items as items_lib
from t5x_lite.scoring.items import Item, Prediction

_ANSWERABLE = ('answer', 'no answer')
_NOT_SHOWN = ('label', 'tags', 'answers', 'starts', 'targets')  # of an example, what is right
_ALL = 100.0 - 1e-6  # percent of a metric


@dataclasses.dataclass(frozen=True)
class Judged:
  """Predictions of labels, each of an example or of a word.

  Attributes:
    labels: their names.
    references: index of what is right for each.
    predictions: index of what is predicted; -1 for what is no label.
  """

  labels: tuple[str, ...]
  references: list[int]
  predictions: list[int]


@dataclasses.dataclass(frozen=True)
class Case:
  """A wrong prediction.

  Attributes:
    number: of the example in its split, from 0.
    texts: what the model read, by name.
    right: what is right.
    predicted: what was predicted.
    loss: see `items.Prediction`.
    confidence: of what was predicted, if known.
  """

  number: int
  texts: dict[str, str]
  right: str
  predicted: str
  loss: float | None
  confidence: float | None


@dataclasses.dataclass(frozen=True)
class Review:
  """Of all predictions whose reference is known.

  Attributes:
    judged: of a task with labels.
    confidences: probabilities of predictions, and
    hits: whether each is right; both empty where no probabilities are known.
    unit: what these two and `judged` count: 'examples' or 'words'.
    cases: the worst errors, the worst first.
    wrong: how many errors there are.
    known: how many examples have a reference.
    order: what makes an error a worse one.
  """

  judged: Judged | None
  confidences: list[float]
  hits: list[bool]
  unit: str
  cases: list[Case]
  wrong: int
  known: int
  order: str


def review(
  member: tasks.Task, metrics: Sequence[str], items: Sequence[Item], predictions: Sequence[Prediction], most: int = 25
) -> Review:
  """Looks at predictions.

  Args:
    member: the task.
    metrics: that a text is scored by, of a task without probabilities.
    items: what was predicted.
    predictions: for each.
    most: errors at most.
  """
  known = [
    (number, item, own)
    for number, (item, own) in enumerate(zip(items, predictions, strict=True))
    if item.reference is not None
  ]
  looked = [_look(member, metrics, item, own) for _, item, own in known]
  judged = _judged(member, [item for _, item, _ in known], looked)
  wrong = [(*each, own) for each, own in zip(known, looked, strict=True) if not own.is_right]
  has_losses = all(own.loss is not None for *_, own in wrong)
  wrong.sort(key=lambda each: -(each[3].loss or 0.0) if has_losses else each[3].score)
  sure = [(chance, hit) for own in looked for chance, hit in zip(own.confidences, own.hits, strict=True)]
  return Review(
    judged=judged,
    confidences=[chance for chance, _ in sure],
    hits=[hit for _, hit in sure],
    unit='words' if any(item.example.get('words') for _, item, _ in known) else 'examples',
    cases=[_case(member, *each) for each in wrong[:most]],
    wrong=len(wrong),
    known=len(known),
    order='their loss' if has_losses else 'their own score, the lowest first',
  )


class _Look(NamedTuple):
  """Of one prediction: pairs of indices of labels, confidences and hits, one or one for each word; else as `Case`."""

  is_right: bool
  pairs: Sequence[tuple[int, int]] = ()
  confidences: Sequence[float] = ()
  hits: Sequence[bool] = ()
  loss: float | None = None
  score: float = 0.0


def _look(member: tasks.Task, metrics: Sequence[str], item: Item, own: Prediction) -> _Look:
  labels = _labels(member)
  chances = own.shown.get('probabilities')
  if 'tags' in item.example:
    return _tagged(labels, item, own)
  label = _index(item.example.get('label', item.reference))
  predicted = _index(own.value) if chances is None else int(np.argmax(chances))
  if label is not None and predicted is not None and (chances is not None or labels):  # a class, or a choice
    sure = [] if chances is None else [float(max(chances))]
    hit = predicted == label
    return _Look(hit, [(label, predicted)], sure, [hit] * len(sure), own.loss)
  if isinstance(own.value, float):
    error = float(np.square(own.value - float(item.reference))) if own.loss is None else own.loss
    return _Look(False, loss=error)
  score = float(np.nan_to_num(items_lib.score(metrics, [item], [own]).get('score', 0.0)))
  hit = score >= _ALL
  sure = [own.shown['probability']] if 'probability' in own.shown else []
  pairs = [(int(not item.example['answers']), int(not own.value))] if 'answers' in item.example else []
  return _Look(hit, pairs, sure, [hit] * len(sure), own.loss, score)


def _tagged(labels: Sequence[str], item: Item, own: Prediction) -> _Look:
  """Of the words whose tags are known."""
  known = [place for place, tag in enumerate(item.example['tags']) if tag >= 0]
  right = [int(item.example['tags'][place]) for place in known]
  predicted = [labels.index(own.shown['tags'][place]) for place in known]
  hits = [one == other for one, other in zip(right, predicted, strict=True)]
  sure = [float(own.shown['probabilities'][place]) for place in known]
  return _Look(all(hits), list(zip(right, predicted, strict=True)), sure, hits, own.loss)


def _judged(member: tasks.Task, items: Sequence[Item], looked: Sequence[_Look]) -> Judged | None:
  """All pairs of labels, if they are of one set of labels that have names."""
  pairs = [pair for own in looked for pair in own.pairs]
  labels = _labels(member)
  if any('answers' in item.example for item in items):
    labels = _ANSWERABLE if member.encoder is not None and member.encoder.may_lack_answer else ()
  if not pairs or not labels or any('choices' in item.example for item in items):
    return None
  return Judged(labels, [right for right, _ in pairs], [predicted for _, predicted in pairs])


def _labels(member: tasks.Task) -> tuple[str, ...]:
  return () if member.encoder is None else tuple(member.encoder.labels)


def _index(value: Any) -> int | None:
  """The index of a label, which may lie in a record of more; None where there is none."""
  if isinstance(value, Mapping):
    value = next((value[name] for name in ('value', 'label') if name in value), None)
  is_index = isinstance(value, int | np.integer) and not isinstance(value, bool)
  return int(value) if is_index and value >= -1 else None


def _case(member: tasks.Task, number: int, item: Item, own: Prediction, look: _Look) -> Case:
  texts = {name: _text(value) for name, value in item.example.items() if name not in _NOT_SHOWN}
  labels, right, predicted = _labels(member), item.reference, own.value
  if 'tags' in item.example:
    words, tags = item.example['words'], own.shown['tags']
    known = [(place, int(tag)) for place, tag in enumerate(item.example['tags']) if tag >= 0]
    off = [(words[place], labels[tag], tags[place]) for place, tag in known if labels[tag] != tags[place]]
    texts = {'words': ' '.join(words)}
    right, predicted = (', '.join(f'{each[0]}: {each[side]}' for each in off) for side in (1, 2))
  elif 'choices' in item.example and look.pairs:
    right, predicted = (item.example['choices'][place] for place in look.pairs[0])
  elif look.pairs and labels:
    right, predicted = (labels[place] if 0 <= place < len(labels) else _text(own.value) for place in look.pairs[0])
  elif 'answers' in item.example:
    right, predicted = (
      ' | '.join(dict.fromkeys(item.example['answers'])) or _ANSWERABLE[1],
      own.value or _ANSWERABLE[1],
    )
  confidence = look.confidences[0] if len(look.confidences) == 1 and 'tags' not in item.example else None
  return Case(number, texts, _text(right), _text(predicted), look.loss, confidence)


def _text(value: Any) -> str:
  """A value as people read it: texts as they are, several one a line."""
  if isinstance(value, str):
    return value
  if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
    return '\n'.join(value)
  if isinstance(value, float):
    return f'{value:.4g}'
  return json.dumps(value, ensure_ascii=False, default=str)
