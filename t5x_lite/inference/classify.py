"""`infer --mode=classify`: the class of a text or of two, its grade, or the right one of several choices.

Probabilities are those of transformers' text classification pipeline: softmax over classes; sigmoid where several may
hold at once (`problem_type` in config.json) or where there is one output; the output itself where that is a grade.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.inference import heads, rows
from t5x_lite.inference.heads import HeadReader
from t5x_lite.inference.modes import Item, Options
from t5x_lite.pretrained import Pretrained
from t5x_lite.tasks import race

_HOLDS = 0.5  # the probability from which on a label holds, where several may


class Classify:
  """See `modes.Mode`. Raises UsageError where the model has no head that classifies."""

  field = 'line'
  columns = (
    'line',
    'text',
    'pair',
    'question',
    'choices',
    'prediction',
    'choice',
    'probability',
    'probabilities',
    'truncated',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    self._reader = HeadReader(model, ('classification', 'multiple_choice'), 'classify', options.max_input_length)
    count = model.module.config.num_labels
    self._labels = heads.label_names(model.config, count)
    self._problem = model.config.get('problem_type')
    self._chooses = self._reader.head == 'multiple_choice'
    self._encode = self._reader.tokenizer.encode

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "text", or "text" and "pair", or of "text" with each of "choices"; a line has tabs between two."""
    if self._chooses:
      return self._read_choices(fields)
    if self.field in fields:
      text, *others = str(fields[self.field]).split('\t')
      if len(others) > 1:
        raise ValueError(f'got {1 + len(others)} texts with tabs between them, expected one or two')
      fields = {'text': text, **({'pair': others[0]} if others else {})}
    text = heads.said(rows.text_field(fields, 'text', 'inputs'), 'the text')
    shown, pair = {'text': text}, None
    if any(name in fields for name in ('pair', 'text_pair')):
      pair = shown['pair'] = heads.said(rows.text_field(fields, 'pair', 'text_pair'), 'the second text')
    framed, told = self._reader.framed(self._encode(text), None if pair is None else self._encode(pair))
    return Item(framed.ids, shown, ([framed], told))

  def _read_choices(self, fields: Mapping[str, Any]) -> Item:
    if self.field in fields:
      raise ValueError('a line of text has no choices: expected JSONL or CSV with "text" and "choices"')
    text = heads.said(rows.text_field(fields, 'text', 'inputs'), 'the text')
    choices = texts_field(fields, 'choices')
    if len(choices) < 2:
      raise ValueError(f'got {len(choices)} choices, expected at least two')
    shown: dict[str, Any] = {'text': text, 'choices': choices}
    if fields.get('question'):
      shown['question'] = rows.text_field(fields, 'question')
      choices = [race.with_option(shown['question'], choice) for choice in choices]
    first = self._encode(text)
    made = [self._reader.framed(first, self._encode(choice)) for choice in choices]
    longest = max((framed.ids for framed, _ in made), key=len)
    return Item(longest, shown, ([framed for framed, _ in made], dict(kv for _, told in made for kv in told.items())))

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The prediction for each, with probabilities."""
    each = heads.each_once(items)
    logits = iter(self._reader.logits([row for item in each for row in item.more[0]], length, len(items)))
    found = {id(item): self._row(item, np.stack([next(logits) for _ in item.more[0]])) for item in each}
    return [found[id(item)] for item in items]

  def _row(self, item: Item, logits: np.ndarray) -> dict[str, Any]:
    told = item.more[1]
    if self._chooses:
      chances = heads.softmax(logits[:, 0])
      right = int(np.argmax(chances))
      return {
        **item.shown,
        'prediction': item.shown['choices'][right],
        'choice': right,
        'probability': _rounded(chances[right]),
        'probabilities': [_rounded(chance) for chance in chances],
        **told,
      }
    (scores,) = logits
    if self._problem == 'regression':
      grades = [_rounded(score) for score in scores]
      return {**item.shown, 'prediction': grades[0] if len(grades) == 1 else grades, **told}
    several = self._problem == 'multi_label_classification'
    chances = 1.0 / (1.0 + np.exp(-scores)) if several or len(scores) == 1 else heads.softmax(scores)
    named = {name: _rounded(chance) for name, chance in zip(self._labels, chances, strict=True)}
    best = self._labels[int(np.argmax(chances))]
    held = [name for name, chance in named.items() if chance >= _HOLDS]
    chosen = {'prediction': held} if several else {'prediction': best, 'probability': named[best]}
    return {**item.shown, **chosen, 'probabilities': named, **told}

  def tell(self, row: Mapping[str, Any]) -> list[str]:
    """What a person is told: the classes, the likeliest first, or the grade."""
    chances = row.get('probabilities')
    if chances is None:
      return [str(row['prediction'])]
    named = chances.items() if isinstance(chances, Mapping) else zip(row['choices'], chances, strict=True)
    return [f'{chance:.4f}  {name}' for name, chance in sorted(named, key=lambda pair: -pair[1])]


def texts_field(fields: Mapping[str, Any], name: str) -> list[str]:
  """The texts under a name: a list, or, as in a CSV, a list in JSON. Raises ValueError where there are none."""
  given = fields.get(name)
  if isinstance(given, str):
    try:
      given = json.loads(given)
    except json.JSONDecodeError:
      given = None
  if not isinstance(given, list) or not all(isinstance(text, str) and text.strip() for text in given):
    raise ValueError(f'expected a list of texts under "{name}", got {fields.get(name)!r}')
  return given


def _rounded(value: Any) -> float:
  return round(float(value), 6)
