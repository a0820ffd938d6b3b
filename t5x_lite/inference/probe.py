"""`infer --mode=probe`: what a linear classifier reads off the hidden states of each layer (see `research.probes`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import ENCODER
from t5x_lite.data.encoder import tags as encoder_tags
from t5x_lite.inference import classify, embed, inside, rows, task_lines
from t5x_lite.inference.inside import HiddenStates
from t5x_lite.inference.modes import Item, Options
from t5x_lite.inference.readings import Reading
from t5x_lite.pretrained import Pretrained
from t5x_lite.research import intermediates, probe_page, probes

_FEWEST = 8
_MOST_LABELS = 1_000


class Probe:
  """See `modes.Mode`; its rows are of layers, and come when all lines are read (`finish`).

  A line is "text" (of models that read two texts also "pair") and "label", and a text's vector the mean of its
  positions, or as `pooling` says. Or it has "words" and "tags", lists of equal length, and a word's vector is the mean
  of its tokens'. A line of plain text has a tab before its label.
  """

  field = 'line'
  kinds = ('html',)
  columns = ('layer', 'accuracy', 'standard_error', 'control_accuracy', 'selectivity', 'train_accuracy')

  def __init__(self, model: Pretrained, options: Options):
    if options.pooling not in embed.POOLINGS:
      raise errors.unknown('pooling', options.pooling, embed.POOLINGS)
    self._states, self._options = HiddenStates(model, dataclasses.replace(options, layers=None)), options
    counts = intermediates.num_layers(model.module)
    self._stack = ENCODER if ENCODER in counts else 'decoder'
    self._layers = inside.chosen_layers({self._stack: counts[self._stack] + 1}, options.layers)[self._stack]
    self._reader = self._states.reader
    self._pooling = 'mean' if options.pooling == 'auto' else options.pooling
    self._facts: dict[str, Any] = {}

  def lines_of(self, task: str, split: str, limit: int) -> Iterator[rows.Line]:
    """Lines of a task in the place of a file's, see `task_lines.lines`."""
    return task_lines.lines(task, split, limit, pairs=self._reader.takes_pair)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of a text, its words' places among them, and its labels."""
    if self.field in fields:
      text, tab, behind = str(fields[self.field]).rpartition('\t')
      if not tab:
        raise ValueError('no label: expected a text, a tab and a label')
      fields = {'text': text, 'label': behind}
    if 'words' in fields:
      return self._read_words(classify.texts_field(fields, 'words'), classify.texts_field(fields, 'tags'))
    label: Any = fields.get('label')
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
      raise ValueError(f'expected a text or a whole number under "label", got {label!r}')
    pair = {'pair': fields['pair']} if 'pair' in fields else {}
    item = self._states.read({'text': rows.text_field(fields, 'text', 'inputs'), **pair})
    kind = '\t'.join(item.shown.values())
    return dataclasses.replace(item, shown={**item.shown, 'labels': [str(label)], 'kinds': [kind]})

  def _read_words(self, words: list[str], tags: list[str]) -> Item:
    if len(words) != len(tags):
      raise ValueError(f'got {len(words)} words and {len(tags)} tags: expected as many')
    tokenizer, before = self._reader.tokenizer, encoder_tags.space_before_words(self._reader.tokenizer)
    pieces = [own or [tokenizer.unk_id] for own in tokenizer.encode_batch([before + word for word in words])]
    begin = self._reader.model.begin
    ids, types = tokenizer.with_special_tokens([*begin, *(token for own in pieces for token in own)])
    first = len(begin) + tokenizer.with_special_tokens([-1])[0].index(-1)
    if self._reader.longest is not None and len(ids) > self._reader.longest:
      raise ValueError(f'a text of {len(ids)} tokens: the model has positions for {self._reader.longest}')
    ends = np.cumsum([len(own) for own in pieces])
    places = [(first + int(end) - len(own), first + int(end)) for own, end in zip(pieces, ends, strict=True)]
    shown = {'text': ' '.join(words), 'labels': tags, 'kinds': words, 'places': places}
    reading = Reading(np.asarray(ids, np.int32), np.asarray(types, np.int32), np.zeros(0, np.int32))
    return Item(reading.ids, shown, reading)

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The vectors of each, float32 `[layers, examples, D]`."""
    found = []
    for item, row in zip(items, self._states.run(items, length, numbers), strict=True):
      states = row['hidden_states'].get(self._stack, row['hidden_states'].get('content'))[list(self._layers)]
      own = {name: item.shown[name] for name in ('labels', 'kinds')}
      found.append({**own, 'vectors': self._pooled(states, item.shown.get('places'))})
    return found

  def _pooled(self, states: np.ndarray, places: Sequence[tuple[int, int]] | None) -> np.ndarray:
    prompt = self._reader.model.module.config.prompt_length
    if places is not None:
      return np.stack([states[:, prompt + start : prompt + end].mean(axis=1) for start, end in places], axis=1)
    if self._pooling == 'mean':
      return states[:, prompt:].mean(axis=1, keepdims=True)
    return states[:, prompt : prompt + 1] if self._pooling == 'cls' else states[:, -1:]

  def finish(self, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each layer.

    Raises:
      UsageError: too few lines, one label only, or too many.
    """
    if len(found) < _FEWEST:
      raise errors.UsageError(f'{len(found)} lines to probe with: expected at least {_FEWEST}')
    labels = [label for row in found for label in row['labels']]
    names = sorted(set(labels))
    if not 2 <= len(names) <= _MOST_LABELS:
      raise errors.UsageError(f'{len(names)} labels, such as {names[0]!r}: expected from 2 to {_MOST_LABELS}')
    numbers = np.asarray([names.index(label) for label in labels], np.int32)
    groups = [place for place, row in enumerate(found) for _ in row['labels']]
    is_test = probes.held_out(groups, self._options.seed)
    control = probes.control_labels([kind for row in found for kind in row['kinds']], numbers, self._options.seed)
    vectors = np.concatenate([row['vectors'] for row in found], axis=1)
    made = probes.probe(vectors, numbers, control, is_test)
    commonest = np.bincount(numbers[~is_test]).argmax()
    self._facts = {
      'examples': len(numbers),
      'held out': int(is_test.sum()),
      'labels': len(names),
      'share of the commonest label': float((numbers[is_test] == commonest).mean()),
    }
    return [
      {
        **dataclasses.asdict(own),
        'layer': layer,
        **{name.replace(' ', '_'): fact for name, fact in self._facts.items()},
      }
      for layer, own in zip(self._layers, made, strict=True)
    ]

  def render(self, rows: Sequence[Mapping[str, Any]], kind: str, title: str) -> str:
    """The page of all layers."""
    return probe_page.render(title, rows, self._facts)
