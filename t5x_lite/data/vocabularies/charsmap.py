"""SentencePiece's rules of normalisation as Hugging Face's `tokenizers` applies them.

SentencePiece replaces the longest run of characters that has a rule, wherever it begins. `tokenizers` goes by grapheme
clusters: a cluster of fewer than six bytes becomes what its shortest beginning with a rule becomes, the rest of it is
lost; longer clusters go character by character. They differ on conjoining jamo, kana with combining sound marks,
several combining characters on one letter, and combining characters after what has a rule of its own. White space
without a rule, such as U+0085 in most models, separates words to `tokenizers` alone.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterator

_WHITE_SPACE = (*'\t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000', *map(chr, range(0x2000, 0x200B)))
_LARGEST_CLUSTER = 5  # bytes
_JOINERS = frozenset('\u200c\u200d\u0e33\u0eb3\uff9e\uff9f')
_MODIFIERS = range(0x1F3FB, 0x1F400)
_JAMO = (range(0x1160, 0x1200), range(0xFFA1, 0xFFDD))  # Full and half width: they compose with what is before them.


class Charsmap:
  """The rules of one model: a double-array trie (Aoe 1989) of UTF-8, whose values are offsets of the replacements.

  Attributes:
    white_space: for `str.translate`, makes a space of all that is white space to Unicode and has no rule.
  """

  def __init__(self, compiled: bytes) -> None:
    """Reads compiled rules; there may be none."""
    (size,) = struct.unpack_from('<I', compiled) if compiled else (0,)
    self._units = struct.unpack_from(f'<{size // 4}I', compiled, 4) if compiled else ()
    self._replacements = compiled[4 + size :]
    self.white_space = {ord(c): ' ' for c in _WHITE_SPACE if self._shortest(c) is None}

  def normalise(self, text: str) -> str:
    """`text` by the rules, cluster by cluster."""
    return ''.join(becomes for _, becomes in self.units(text))

  def units(self, text: str) -> Iterator[tuple[str, str]]:
    """The clusters of a text, and what becomes of each."""
    return ((cluster, self._cluster(cluster)) for cluster in _clusters(text))

  def _cluster(self, cluster: str) -> str:
    if len(cluster) > 1 and len(cluster.encode()) <= _LARGEST_CLUSTER:
      replacement = self._shortest(cluster)
      if replacement is not None:
        return replacement
    found = ((character, self._shortest(character)) for character in cluster)
    return ''.join(character if replacement is None else replacement for character, replacement in found)

  def _shortest(self, text: str) -> str | None:
    """What the shortest beginning of `text` that has a rule becomes; None if none has."""
    if not self._units:
      return None
    position = _offset(self._units[0])
    for byte in text.encode('utf-8', 'surrogatepass'):
      position ^= byte
      unit = self._units[position]
      if unit & 0x800000FF != byte:
        return None
      position ^= _offset(unit)
      if unit >> 8 & 1:
        start = self._units[position] & 0x7FFFFFFF
        return self._replacements[start : self._replacements.index(b'\0', start)].decode()
    return None


def differs(text: str) -> bool:
  """Whether clusters may matter: a cheap test that most texts fail."""
  return not text.isascii() and any(_joins(c) or any(ord(c) in jamo for jamo in _JAMO) for c in set(text))


def _clusters(text: str) -> Iterator[str]:
  """Grapheme clusters (Unicode Annex 29), those that are long in any case not put together to the last."""
  start = 0
  for index in range(1, len(text)):
    if not _joins(text[index]) or _is_control(text[index - 1]):
      yield text[start:index]
      start = index
  yield text[start:]


def _joins(character: str) -> bool:
  if character < '\u0300':
    return False
  return unicodedata.category(character)[0] == 'M' or character in _JOINERS or ord(character) in _MODIFIERS


def _is_control(character: str) -> bool:
  return unicodedata.category(character) in ('Cc', 'Cf', 'Zl', 'Zp') and character not in _JOINERS


def _offset(unit: int) -> int:
  return (unit >> 10) << ((unit & 0x200) >> 6)
