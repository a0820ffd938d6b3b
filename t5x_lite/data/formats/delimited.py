"""CSV and TSV files: rows as dicts of text, with random access.

CSV is RFC 4180: a field in quotes may hold commas, line ends and doubled quotes. TSV is the format that IANA registers
and that data sets such as GLUE use: a row is a line, a tab ends a field, and quotes are text.
"""

from __future__ import annotations

import array
import csv
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.bad_records import BadRecord, utf8
from t5x_lite.data.formats import span_index, text_formats

csv.field_size_limit(sys.maxsize)  # documents are larger than the 128 KB that the csv module takes for a mistake


@dataclasses.dataclass(frozen=True)
class Delimited:
  """Rows of the same columns.

  Attributes:
    columns: their names.
    quoted: whether fields may be in quotes and are separated by commas (CSV); else by tabs (TSV).
    header: whether the first row of a file is its header.
  """

  columns: tuple[str, ...]
  quoted: bool
  header: bool

  @property
  def name(self) -> str:
    """For the index in the cache."""
    return f'{"csv" if self.quoted else "tsv"}{"-header" if self.header else ""}'

  def find(self, data: span_index.Data) -> span_index.Found:
    """All rows but the header. A row that is not CSV is the line that it begins in, and an error when it is read."""
    spans = _quoted_rows(data) if self.quoted else _plain_rows(data)
    return span_index.Found(spans[1:] if self.header else spans)

  def parse(self, data: bytes) -> dict[str, Any]:
    """The row."""
    fields = _fields(data, self.quoted)
    if len(fields) != len(self.columns):
      raise BadRecord(
        'wrong number of columns',
        f'got {len(fields)} columns, expected {len(self.columns)}: {", ".join(self.columns)}',
      )
    return dict(zip(self.columns, fields, strict=True))


def delimited(path: str, data: span_index.Data, quoted: bool, columns: Sequence[str] | None) -> Delimited:
  """The format of one file: with `columns`, or with those that its first row names.

  Raises:
    UsageError: the file has no header, or one that names a column twice.
  """
  if columns is not None:
    return Delimited(tuple(columns), quoted, header=False)
  rows = _quoted_rows(data, limit=1) if quoted else _plain_rows(data)
  try:
    names = _fields(data[rows[0, 0] : rows[0, 1]], quoted) if len(rows) else []
  except BadRecord as error:
    raise errors.UsageError(f'{path}: cannot read its header: {error.detail}') from error
  if not names:
    raise errors.UsageError(f'{path} is empty: expected a header with the names of the columns')
  if len(set(names)) < len(names):
    raise errors.UsageError(f'{path}: its header names a column twice: {", ".join(names)}; give the columns names')
  return Delimited(tuple(names), quoted, header=True)


def _fields(data: bytes, quoted: bool) -> list[str]:
  """The fields of one row."""
  text = utf8(data)
  if not quoted:
    return text.removesuffix('\n').removesuffix('\r').split('\t')
  try:
    return next(csv.reader(io.StringIO(text, newline='\n'), strict=True))
  except csv.Error as error:
    raise BadRecord('not CSV', f'not CSV: {error}') from error


def _plain_rows(data: span_index.Data) -> np.ndarray:
  """Lines that are not empty."""
  lines = text_formats.line_spans(data)
  short = np.flatnonzero(lines[:, 1] - lines[:, 0] <= 2).tolist()
  empty = [index for index in short if data[lines[index, 0] : lines[index, 1]] in (b'\n', b'\r\n', b'\r')]
  return np.delete(lines, empty, axis=0)


def _quoted_rows(data: span_index.Data, limit: int | None = None) -> np.ndarray:
  """Spans of the rows, found by the csv module itself; at most `limit`."""
  places = array.array('q')
  begin = text_formats.begin_of_text(data)
  while begin < len(data) and (limit is None or len(places) < 2 * limit):
    lines = _Lines(data, begin)
    try:
      for row in csv.reader(lines, strict=True):
        if row:
          places.extend((begin, lines.end))
          if limit is not None and len(places) >= 2 * limit:
            break
        begin = lines.end
      else:
        break
    except csv.Error:
      # Where the row ends nobody knows: perhaps with its first line. Those after it may be good.
      places.extend((begin, _line_end(data, begin)))
      begin = places[-1]
  return span_index.as_spans(places)


class _Lines:
  """The lines from `begin` on, and where the last that was asked for ends.

  As Latin-1, which has a character for every byte and UTF-8's bytes for all that CSV knows: a row that is not UTF-8 is
  an error when it is read, and not before.
  """

  def __init__(self, data: span_index.Data, begin: int):
    self._data = data
    self.end = begin

  def __iter__(self) -> Iterator[str]:
    while self.end < len(self._data):
      begin, self.end = self.end, _line_end(self._data, self.end)
      yield self._data[begin : self.end].decode('latin-1')


def _line_end(data: span_index.Data, begin: int) -> int:
  """Where the line that begins at `begin` ends."""
  return data.find(b'\n', begin) + 1 or len(data)
