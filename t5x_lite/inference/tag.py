"""`infer --mode=tag`: the tags of the words of a text, and the entities that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import documents
from t5x_lite.data.encoder import tags as encoder_tags
from t5x_lite.inference import classify, entities, heads, rows
from t5x_lite.inference.heads import HeadReader
from t5x_lite.inference.modes import Item, Options
from t5x_lite.pretrained import Pretrained

_STRIDE = 128  # tokens that two windows of a long text share, at most
_WINDOW = 512  # tokens of a window where the model has no limit


class Tag:
  """See `modes.Mode`. Raises UsageError where the model has no head that tags.

  Long texts are read in windows. A token is tagged in the one where it has more text around it.
  """

  field = 'text'
  columns = (
    'line',
    'text',
    'prediction',
    'entities',
    'words',
    'tags',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    if options.aggregation_strategy not in entities.STRATEGIES:
      raise errors.unknown('aggregation_strategy', options.aggregation_strategy, entities.STRATEGIES)
    self._strategy = options.aggregation_strategy
    self._reader = HeadReader(model, ('tagging',), 'tag', options.max_input_length)
    self._labels = heads.label_names(model.config, model.module.config.num_labels)
    self._room = (self._reader.longest or _WINDOW) - self._reader.num_special(pair=False)
    if self._room < 1:
      raise errors.UsageError(f'rows of {self._reader.longest} tokens have no room for a text: expected longer ones')
    self._stride = min(_STRIDE, self._room // 2) if options.doc_stride is None else options.doc_stride
    if not 0 <= self._stride < self._room:
      raise errors.UsageError(f'doc_stride is {self._stride}: expected at least 0 and less than {self._room}')
    self._before = encoder_tags.space_before_words(self._reader.tokenizer)
    self._first = self._reader.tokenizer.with_special_tokens([-1])[0].index(-1)

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "text", or of "words", a list: then these are what is tagged."""
    if 'words' in fields:
      words = classify.texts_field(fields, 'words')
      ids, places, numbers = self._of_words(words)
      text = ' '.join(words)
    else:
      text = heads.said(rows.text_field(fields, 'text', 'inputs'), 'the text')
      ids, places, numbers = self._of_text(text)
    if not ids:
      raise ValueError('no words to tag: expected a text with some')
    windows = documents.spans(len(ids), self._room, self._stride)
    framed = [self._reader.framed(ids[start:stop])[0] for start, stop in windows]
    return Item(framed[0].ids, {'text': text}, (framed, windows, places, numbers))

  def _of_text(self, text: str) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Ids, their places in characters, and the number of the word of each: what continues nothing begins one."""
    ids, places = self._reader.tokenizer.encode_with_offsets(text)
    begins = ~self._reader.tokenizer.piece_continues[np.asarray(ids, np.int64)]
    begins[:1] = True
    return ids, places, (np.cumsum(begins) - 1).tolist()

  def _of_words(self, words: Sequence[str]) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """The same of words, each by itself; a word's pieces stand where the word does in the text of all."""
    ids: list[int] = []
    places: list[tuple[int, int]] = []
    numbers, at = [], 0
    for number, pieces in enumerate(self._reader.tokenizer.encode_batch([self._before + word for word in words])):
      pieces = pieces or [self._reader.tokenizer.unk_id]
      ids += pieces
      places += [(at, at + len(words[number]))] * len(pieces)
      numbers += [number] * len(pieces)
      at += len(words[number]) + 1
    return ids, places, numbers

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Words with their tags, and entities, of each."""
    each = heads.each_once(items)
    logits = iter(self._reader.logits([row for item in each for row in item.more[0]], length, len(items)))
    found = {id(item): self._row(item, [next(logits) for _ in item.more[0]]) for item in each}
    return [found[id(item)] for item in items]

  def _row(self, item: Item, logits: Sequence[np.ndarray]) -> dict[str, Any]:
    _, windows, places, numbers = item.more
    own = encoder_tags.own_parts(windows)
    parts = [
      window[self._first + start - begin : self._first + stop - begin]
      for window, (begin, _), (start, stop) in zip(logits, windows, own, strict=True)
    ]
    chances, text = heads.softmax(np.concatenate(parts)), item.shown['text']
    found = entities.entities(text, entities.units(chances, places, numbers, self._strategy), self._labels)
    of_words = 'first' if self._strategy == 'simple' else self._strategy
    words = entities.units(chances, places, numbers, of_words)
    return {
      **item.shown,
      'prediction': entities.annotated(text, found),
      'entities': found,
      'words': [text[word.start : word.end] for word in words],
      'tags': [self._labels[word.tag] for word in words],
    }

  def tell(self, row: Mapping[str, Any]) -> list[str]:
    """What a person is told: the text with its entities in brackets."""
    return [row['prediction']]
