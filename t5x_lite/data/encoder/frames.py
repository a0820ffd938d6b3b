"""Texts in the frame of their family, and what becomes of those that are too long for it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import documents
from t5x_lite.data.task import DROP, LONG_EXAMPLES, SPLIT, TRUNCATE
from t5x_lite.data.vocabularies import token_layouts, tokenizers

Ids = list[int]
Texts = tuple[Ids, Ids | None]

_FIRST, _SECOND = -1, -2  # ids that no token has


class Frame(NamedTuple):
  """Where a family's frame puts what.

  Attributes:
    special: number of special tokens.
    first: how many of them stand before the first text.
    second: how many before the second; 0 if there is one text only.
    pooled: position of the token that stands for the whole (`[CLS]`), counted from the end if it is negative.
  """

  special: int
  first: int
  second: int
  pooled: int


@dataclasses.dataclass(frozen=True)
class Framer:
  """Frames of one text or two, `length` tokens at most.

  Attributes:
    tokenizer: of the family.
    length: of an example, special tokens included.
    long_examples: what becomes of a longer one, see `data.task.Task`.
    stride: with 'split', how many tokens of a part are repeated in the next.
  """

  tokenizer: tokenizers.Tokenizer
  length: int
  long_examples: str = TRUNCATE
  stride: int = 0

  def __post_init__(self):
    if self.long_examples not in LONG_EXAMPLES:
      raise errors.unknown('long_examples', self.long_examples, LONG_EXAMPLES)

  def frame(self, pair: bool) -> Frame:
    """The frame of one text, or of two.

    Raises:
      UsageError: no token in it stands for the whole, or the frame leaves no room for texts.
    """
    return self._frames[pair]

  def for_each(self, count: int) -> Framer:
    """The same with so much of the length as there is for each of `count` frames."""
    return dataclasses.replace(self, length=self.length // count)

  def room(self, pair: bool) -> int:
    """Tokens that texts may have in all. Raises `UsageError` where that is not at least one for each."""
    room = self.length - self.frame(pair).special
    if room < 1 + pair:
      raise errors.UsageError(
        f'got a length of {self.length} for {"two texts" if pair else "a text"}, expected at least '
        f'{self.length - room + 1 + pair}: {self.tokenizer} adds {self.length - room} special tokens'
      )
    return room

  def arrays(self, texts: Texts) -> dict[str, np.ndarray]:
    """Framed texts, which must fit: `inputs` and `token_types` int32 `[n]`, `pooled` int32 `[1]` (see `Frame`)."""
    ids, types = self.tokenizer.with_special_tokens(*texts)
    assert len(ids) <= self.length, (len(ids), self.length)
    pooled = self.frame(texts[1] is not None).pooled % len(ids)
    return {
      'inputs': np.array(ids, np.int32),
      'token_types': np.array(types, np.int32),
      'pooled': np.array([pooled], np.int32),
    }

  def fitted(self, texts: Texts) -> tuple[list[Texts], bool]:
    """One text or two as parts that fit, none if they are dropped; and whether tokens were lost.

    Truncated, the longer text gives way first, as by `longest_first` of Hugging Face. Split, the longer text is cut
    into parts, each with the whole shorter one; of that, too, tokens are lost if it takes more than half of the room.
    """
    first, second = texts
    room = self.room(second is not None)
    if len(first) + len(second or ()) <= room:
      return [texts], False
    if self.long_examples == DROP:
      return [], False
    if self.long_examples == TRUNCATE:
      if second is None:
        return [(first[:room], None)], True
      return [token_layouts.truncate_longest_first(first, second, room)], True
    if second is None:
      return [(first[start:stop], None) for start, stop in self.windows(len(first), room)], False
    shorter = min(first, second, key=len)[: room // 2]
    windows = self.windows(max(len(first), len(second)), room - len(shorter))
    lost = len(shorter) < min(len(first), len(second))
    if len(first) > len(second):
      return [(first[start:stop], shorter) for start, stop in windows], lost
    return [(shorter, second[start:stop]) for start, stop in windows], lost

  def windows(self, length: int, size: int) -> list[tuple[int, int]]:
    """Where to cut `length` tokens into parts of at most `size`; only the first unless examples are split.

    Raises:
      UsageError: a part would repeat all of the one before it.
    """
    if self.long_examples != SPLIT:
      return [(0, min(size, length))]
    if self.stride >= size:
      raise errors.UsageError(
        f'got stride {self.stride}, expected less than the {size} tokens of a part: {self.length} tokens hold special '
        'tokens and a second text, too'
      )
    return documents.spans(length, size, self.stride)

  @functools.cached_property
  def _frames(self) -> tuple[Frame, Frame]:
    """Of one text, and of two."""
    return _frame(self.tokenizer, False), _frame(self.tokenizer, True)


def _frame(tokenizer: tokenizers.Tokenizer, pair: bool) -> Frame:
  ids, _ = tokenizer.with_special_tokens([_FIRST], [_SECOND] if pair else None)
  special: Sequence[int] = [token_id for token_id in ids if token_id >= 0]
  if tokenizer.cls_id not in special:
    raise errors.UsageError(f'{tokenizer} frames texts without a token that stands for them: expected one such as BERT')
  first, pooled = ids.index(_FIRST), ids.index(tokenizer.cls_id)
  return Frame(
    special=len(special),
    first=first,
    second=ids.index(_SECOND) - 1 if pair else 0,
    pooled=pooled if pooled < first else pooled - len(ids),
  )
