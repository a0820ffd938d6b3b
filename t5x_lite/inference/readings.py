"""What a model reads of a line when somebody looks inside: ids, the batch of them, and the texts of its tokens."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, ORDER, SEGMENT_IDS, key
from t5x_lite.data.vocabularies.token_bytes import token_bytes
from t5x_lite.generation import bucket
from t5x_lite.inference import heads, modes, rows
from t5x_lite.inference.heads import Framed
from t5x_lite.inference.likelihood import filled, one_side
from t5x_lite.inference.modes import Item
from t5x_lite.pretrained import Pretrained

_FRAME_ROLES = ('pad', 'bos', 'eos', 'cls', 'sep')


class Reading(NamedTuple):
  """One line.

  Attributes:
    ids: int32 `[S]`, what the encoder reads, or the decoder where there is none.
    types: int32 `[S]`, token types.
    written: int32 `[T]`, what is written behind that: by the decoder of an encoder-decoder, or further on in the same
      row; empty where nothing is.
  """

  ids: np.ndarray
  types: np.ndarray
  written: np.ndarray


class TextReader:
  """Lines as a model reads them: "text", or "inputs"; "pair", a second text (BERT); "targets", what is written then.

  A line of plain text may have two of them, with a tab between. XLNet reads a text alone as one stream which sees all;
  with targets, it has two streams: those see what is before them.

  Args:
    model: with a vocabulary.
    writes: whether an encoder-decoder writes the targets itself, greedily, where there are none; else its decoder
      reads its start alone.
  """

  field = 'line'

  def __init__(self, model: Pretrained, *, writes: bool):
    self.model, self.tokenizer = model, modes.tokenizer_of(model)
    self._writes, self._kind, config = writes, type(model.module).__name__, model.module.config
    self.is_pair = self._kind == 'T5' and config.num_decoder_layers > 0 and 'lm' in config.heads
    self.takes_targets = self.is_pair or (self._kind in ('Gpt', 'Xlnet') and 'lm' in config.heads)
    self.takes_pair = self._kind in ('Bert', 'Xlnet') and not self.takes_targets
    positions = getattr(config, 'max_length', None) if getattr(config, 'positions', '') == 'learned' else None
    positions = None if positions is None else positions - getattr(config, 'first_position', 0) - config.prompt_length
    self.longest: int | None = positions

  @functools.cached_property
  def start(self) -> int:
    """What the decoder of an encoder-decoder reads first."""
    start = self.model.generation_config.decoder_start_token_id
    return self.tokenizer.pad_id if start is None else start

  @functools.cached_property
  def frame_ids(self) -> frozenset[int]:
    """Ids of what is put around texts."""
    found = set()
    for role in _FRAME_ROLES:
      try:
        found.add(int(getattr(self.tokenizer, f'{role}_id')))
      except errors.UsageError:
        continue
    return frozenset(found)

  @functools.cached_property
  def _texts(self) -> list[str]:
    names = {number: name for name, number in getattr(self.tokenizer, 'special_ids', dict)().items()}
    found = []
    for number, own in enumerate(token_bytes(self.tokenizer)):
      shown = names.get(number) or own.decode('utf-8', 'replace') or self.tokenizer.decode([number])
      found.append(shown or f'<{number}>')
    return found

  def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
    """The text of each token; a space in front begins a word."""
    return [self._texts[token] if token < len(self._texts) else f'<{token}>' for token in np.asarray(ids).tolist()]

  def read(self, fields: Mapping[str, Any]) -> Item:
    """A `Reading`, as the item's `more`. Raises ValueError for an empty text, or one that is too long."""
    if self.field in fields:
      text, *others = str(fields[self.field]).split('\t')
      if len(others) > 1:
        raise ValueError(f'got {1 + len(others)} texts with tabs between them, expected one or two')
      second = 'targets' if self.takes_targets else 'pair'
      fields = {'text': text, **({second: others[0]} if others else {})}
    text = heads.said(rows.text_field(fields, 'text', 'inputs'), 'the text')
    shown, pair, targets = {'text': text}, None, None
    if any(name in fields for name in ('pair', 'text_pair')):
      pair = shown['pair'] = heads.said(rows.text_field(fields, 'pair', 'text_pair'), 'the second text')
    if 'targets' in fields:
      targets = shown['targets'] = heads.said(rows.text_field(fields, 'targets'), 'the target')
    reading = self._reading(text, pair, targets)
    length = len(reading.ids) + (0 if self.is_pair else len(reading.written))
    if self.longest is not None and length > self.longest:
      raise ValueError(f'a text of {length} tokens: the model has positions for {self.longest}')
    return Item(reading.ids, shown, reading)

  def _reading(self, text: str, pair: str | None, targets: str | None) -> Reading:
    tokenizer, nothing = self.tokenizer, np.zeros(0, np.int32)
    if targets is not None and not self.takes_targets:
      raise ValueError(f'"targets" for model {self._kind}, which writes nothing: expected "text" and maybe "pair"')
    if pair is not None and self.takes_targets:
      raise ValueError(f'"pair" for model {self._kind}: expected "text" and maybe "targets"')
    if self.is_pair:
      ids, written = self.model.prompt_ids(text), nothing
      if targets is not None:
        written = np.asarray(tokenizer.with_special_tokens(tokenizer.encode(targets))[0], np.int32)
      elif self._writes:
        made = self.model.generate(text, num_beams=1, do_sample=False, num_return_sequences=1)
        written = np.asarray(made.new_ids[0], np.int32)
      return Reading(ids, np.zeros_like(ids), written)
    if self.takes_targets and (targets is not None or self._kind == 'Gpt'):
      before = [*self.model.begin, *tokenizer.encode(text)]
      both = before if targets is None else [*self.model.begin, *tokenizer.encode(text + targets)]
      shared = min(len(before), len(both) - 1) if targets is not None else len(both)
      ids = np.asarray(both[:shared], np.int32)
      return Reading(ids, np.zeros_like(ids), np.asarray(both[shared:], np.int32))
    second = None if pair is None else tokenizer.encode(pair)
    framed, types = tokenizer.with_special_tokens(tokenizer.encode(text), second)
    return Reading(np.asarray(framed, np.int32), np.asarray(types, np.int32), nothing)

  def batch(self, readings: Sequence[Reading], length: int) -> dict[str, np.ndarray]:
    """What the model reads of some lines, the longest of which has at most `length` ids; padded behind."""
    if self.is_pair:
      encoder = [reading.ids for reading in readings]
      decoder = [np.concatenate([[self.start], reading.written[:-1]]) for reading in readings]
      return one_side(ENCODER, encoder, length) | one_side(DECODER, decoder, bucket(max(map(len, decoder))))
    whole = [np.concatenate([reading.ids, reading.written]) for reading in readings]
    longest = max(map(len, whole))
    length = max(longest, min(bucket(max(length, longest)), self.longest or bucket(max(length, longest))))
    if self._kind == 'Gpt' and self.takes_targets:
      return one_side(DECODER, whole, length)
    if self.takes_targets and any(len(reading.written) for reading in readings):
      # All of a batch or none: lines with and without targets are not read together.
      pairs = zip(whole, readings, strict=True)
      orders = [np.maximum(np.arange(len(row)) - len(reading.ids) + 1, 0) for row, reading in pairs]
      return one_side(DECODER, whole, length) | {key(DECODER, ORDER): filled(orders, length)}
    return heads.batch_of(self.model, [Framed(reading.ids, reading.types) for reading in readings], length)

  def tokens_of(self, batch: Mapping[str, np.ndarray], row: int, *, with_prompt: bool = False) -> dict[str, list[str]]:
    """The texts of what stands in a row of a batch, by side, and of the trained vectors in front if asked for."""
    found = {}
    for side in (ENCODER, DECODER):
      if key(side, INPUT_TOKENS) in batch:
        real = np.asarray(batch[key(side, SEGMENT_IDS)][row]) > 0
        found[side] = self.tokens(np.asarray(batch[key(side, INPUT_TOKENS)][row])[real])
    if with_prompt:  # an encoder-decoder has it in its encoder
      prompted = next(iter(found))
      names = [f'<prompt {number}>' for number in range(self.model.module.config.prompt_length)]
      found[prompted] = [*names, *found[prompted]]
    return found
