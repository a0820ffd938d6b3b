"""The records of several files, one file after the other, checked as they are read.

A bad record is an error that names file and record. Or it is left out, and counted: then all files are read once, for
the number of a record must not depend on what has been read before.
"""

from __future__ import annotations

import bisect
import collections
import hashlib
import itertools
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.bad_records import BadRecord
from t5x_lite.data.formats import file_cache, file_formats

_KEPT_FROM = 2**24  # bytes of a file; that many are read in a moment
_BAD, _SKIPPED = 'bad.npy', 'skipped.json'
_TRUNCATED = 'truncated file'
_log = logging.getLogger(__name__)


class FileRecords:
  """A `RandomAccess` over files.

  Args:
    paths: of the files.
    reading: how they are read.
    fields: names of fields that every record must have, with text or a number.
    skip_bad: whether bad records are left out; else they are errors, and so is a file that breaks off.

  Raises:
    UsageError: a file cannot be opened, or breaks off.
  """

  def __init__(
    self,
    paths: Sequence[str],
    reading: file_formats.Reading,
    fields: tuple[str, ...],
    skip_bad: bool,
  ):
    self._files = [_File(path, reading, fields, skip_bad) for path in paths]
    self._ends = list(itertools.accumulate(len(file) for file in self._files))
    skipped: collections.Counter[str] = collections.Counter()
    for file in self._files:
      skipped.update(file.skipped)
    self.skipped: Mapping[str, int] = dict(sorted(skipped.items()))
    if skipped:
      _log.warning('skipped %d bad records of %d: %s', skipped.total(), skipped.total() + len(self), self.skipped)

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Record `index`. Raises `UsageError` with file and record if it is bad."""
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)}')
    file = bisect.bisect_right(self._ends, index)
    return self._files[file].read(index - (self._ends[file - 1] if file else 0))

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several records."""
    return [self[index] for index in indices]


class _File:
  """The records of one file; its bad ones have no number if they are skipped."""

  def __init__(self, path: str, reading: file_formats.Reading, fields: tuple[str, ...], skip_bad: bool):
    self._path = path
    self._fields = fields
    self._bad = np.zeros(0, np.int64)
    self.skipped: dict[str, int] = {}
    self._records: file_formats.RecordFile
    try:
      self._records = file_formats.open_file(path, reading)
    except file_cache.BrokenOff as error:
      if not skip_bad:
        raise
      _log.warning('skipped a whole file: %s', error)
      self._records, self.skipped = file_formats.NoRecords(), {_TRUNCATED: 1}
      return
    if skip_bad:
      self._skip_bad(hashlib.sha256(repr((reading, fields)).encode()).hexdigest()[:8])
    elif self._records.problem is not None:
      near = f', near record {len(self._records) - 1}' if len(self._records) else ''
      raise errors.UsageError(f'{path}: {self._records.problem}{near}')

  def __len__(self) -> int:
    return len(self._records) - len(self._bad)

  def read(self, index: int) -> dict[str, Any]:
    """Record `index` of those that count."""
    number = index
    if len(self._bad):  # before the j-th bad record (of number bad[j]) there are bad[j] - j good ones
      number += int(np.searchsorted(self._good_before_bad, index, side='right'))
    try:
      return self._checked(number)
    except BadRecord as error:
      raise errors.UsageError(f'{self._path}: record {number}: {error.detail}') from error

  def _checked(self, number: int) -> dict[str, Any]:
    record = self._records[number]
    for field in self._fields:
      value = record.get(field)
      if isinstance(value, str):
        if not value.isascii() and _has_surrogate(value):
          raise BadRecord('invalid UTF-8', f'field {field!r} has half a surrogate pair')
      elif isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad_field(record, field)
    return record

  def _skip_bad(self, kind: str) -> None:
    """Finds the bad records. What is found in a large file is kept in the cache."""
    file = file_cache.identify(self._path)
    if file.size < _KEPT_FROM:
      self._bad, self.skipped = self._search()
    else:

      def build(folder: pathlib.Path) -> None:
        _log.info('searching %s for bad records', file.path)
        bad, skipped = self._search()
        np.save(folder / _BAD, bad)
        (folder / _SKIPPED).write_text(json.dumps(skipped))

      folder = file_cache.in_cache(file, f'bad-{kind}', build)
      self._bad, self.skipped = np.load(folder / _BAD), json.loads((folder / _SKIPPED).read_text())
    self._good_before_bad = self._bad - np.arange(len(self._bad))
    if self.skipped:
      _log.info('%s: skipped bad records: %s', self._path, self.skipped)

  def _search(self) -> tuple[np.ndarray, dict[str, int]]:
    bad: list[int] = []
    reasons: collections.Counter[str] = collections.Counter()
    for number in range(len(self._records)):
      try:
        self._checked(number)
      except BadRecord as error:
        bad.append(number)
        reasons[error.reason] += 1
    if self._records.problem is not None:
      _log.warning('%s: %s', self._path, self._records.problem)
      reasons[_TRUNCATED] += 1
    return np.array(bad, np.int64), dict(reasons)


def _has_surrogate(text: str) -> bool:
  try:
    text.encode('utf-8')
  except UnicodeEncodeError:
    return True
  return False


def _bad_field(record: Mapping[str, Any], field: str) -> BadRecord:
  """What is wrong with a field that is missing or no text."""
  if field in record:
    got = 'null' if record[field] is None else type(record[field]).__name__
    return BadRecord('not text', f'field {field!r} is {got}, expected text or a number')
  return BadRecord('missing field', str(errors.unknown('field', field, record)))
