"""Where in a text each piece of it stands, also where the text was normalised before it was cut into pieces.

Offsets count characters of the text as it was given, not bytes, and leave out the white space at the ends of a piece.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from t5x_lite.data.vocabularies import sentencepiece_layout, token_layouts

Span = tuple[int, int]

_CLEANED_UNITS = re.compile(r"``|''|.", re.DOTALL)


class Origins:
  """A text made of another, and the place in the other of each of its characters.

  Attributes:
    text: as it is now.
  """

  def __init__(self, text: str):
    """Of a text that nothing was done to yet."""
    self.text = text
    self._starts: Sequence[int] = range(len(text))
    self._ends: Sequence[int] = range(1, len(text) + 1)

  def changed(self, units: Iterable[tuple[str, str]]) -> Origins:
    """The text with each unit (what it was, what it becomes) replaced; the units must be the text, cut up."""
    texts, starts, ends, at = [], [], [], 0
    for was, becomes in units:
      start, end = self.span(at, at + len(was))
      texts.append(becomes)
      starts += [start] * len(becomes)
      ends += [end] * len(becomes)
      at += len(was)
    assert at == len(self.text), (at, len(self.text))
    new = Origins(''.join(texts))
    new._starts, new._ends = starts, ends
    return new

  def span(self, begin: int, end: int) -> Span:
    """Where in the original the characters from `begin` to `end` come from."""
    if begin < end:
      return self._starts[begin], self._ends[end - 1]
    at = self._starts[begin] if begin < len(self._starts) else max(self._ends, default=0)
    return at, at


def cleaned_units(text: str, cleaning: token_layouts.Cleaning | None) -> Iterator[tuple[str, str]]:
  """A text cut up, and what `sentencepiece_layout.clean` makes of each unit; put together, what it makes of the text.

  Decomposing characters one by one gives another order of the marks on a letter, but whoever decomposes drops them.
  """
  for match in _CLEANED_UNITS.finditer(text):
    yield match.group(), sentencepiece_layout.clean(match.group(), cleaning)


def in_characters(text: str, spans: Iterable[Span]) -> list[Span]:
  """Offsets into `text` as UTF-8, as offsets in characters."""
  if text.isascii():
    return list(spans)
  starts = list(itertools.accumulate((len(character.encode()) for character in text), initial=0))
  character_at = [0] * (starts[-1] + 1)
  for index, (start, end) in enumerate(itertools.pairwise(starts)):
    character_at[start:end] = [index] * (end - start)
  character_at[-1] = len(text)
  return [(character_at[start], character_at[end]) for start, end in spans]


def trimmed(text: str, spans: Iterable[Span]) -> list[Span]:
  """`spans` without the white space at their ends, in order; of what is nothing else, an empty one at its end.

  Neither beginnings nor ends go back: pieces of nothing in the midst of a normalised cluster stand where it does.
  """
  found, last_start, last_end = [], 0, 0
  for start, end in spans:
    while start < end and text[start].isspace():
      start += 1
    while start < end and text[end - 1].isspace():
      end -= 1
    last_start, last_end = max(start, last_start), max(end, last_end)
    found.append((last_start, last_end))
  return found
