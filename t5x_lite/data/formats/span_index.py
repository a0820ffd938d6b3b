"""Where the records of a file lie: found in one pass, and for large files kept in the cache.

An index is an int64 array of (begin, end) in bytes. That of a file of some size is memory-mapped itself, so that an
index of 10^8 records costs a process nothing.
"""

from __future__ import annotations

import functools
import logging
import mmap
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from t5x_lite.data.formats import file_cache

Data = mmap.mmap | bytes

_KEPT_FROM = 2**24  # bytes of a file; that many are searched in a moment
_MAX_OPEN = 128
_SPANS, _PROBLEM = 'spans.npy', 'problem'
_log = logging.getLogger(__name__)


class Found(NamedTuple):
  """What a pass over a file has found.

  Attributes:
    spans: int64 [records, 2], begin and end of each in bytes.
    problem: why the search ended before the file, in words; None if it did not.
  """

  spans: np.ndarray
  problem: str | None = None


def as_spans(places: Iterable[int]) -> np.ndarray:
  """Begin, end, begin, end, ... as int64 [records, 2]."""
  return np.fromiter(places, np.int64).reshape(-1, 2)


class SpanIndex:
  """The spans of the records of one file.

  Args:
    file: the file.
    kind: name of what is searched for; part of the name in the cache.
    find: makes the index of the file's bytes.
  """

  def __init__(self, file: file_cache.FileId, kind: str, find: Callable[[Data], Found]):
    self._kept: pathlib.Path | None = None
    self._spans = np.zeros((0, 2), np.int64)
    if file.size < _KEPT_FROM:
      self._spans, self.problem = find(file_cache.memory(file))
      return

    def build(folder: pathlib.Path) -> None:
      _log.info('searching %s for records', file.path)
      found = find(file_cache.memory(file))
      np.save(folder / _SPANS, found.spans)
      (folder / _PROBLEM).write_text(found.problem or '')

    folder = file_cache.in_cache(file, kind, build)
    self._kept = folder / _SPANS
    self.problem = (folder / _PROBLEM).read_text() or None

  def __len__(self) -> int:
    return len(self._array())

  def __getitem__(self, index: int) -> tuple[int, int]:
    begin, end = self._array()[index].tolist()
    return begin, end

  def _array(self) -> np.ndarray:
    return self._spans if self._kept is None else _mapped(self._kept)


@functools.lru_cache(_MAX_OPEN)
def _mapped(path: pathlib.Path) -> np.ndarray:
  return np.load(path, mmap_mode='r')
