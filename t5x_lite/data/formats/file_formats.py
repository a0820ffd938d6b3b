"""Which format a local file is in, and its records.

    text      .txt .text                 documents: a line, a paragraph or a file each
    jsonl     .jsonl .ndjson             an object a line (Dolma, C4, WikiExtractor --json)
    json      .json                      a list of objects or texts; an object that holds one such list; or JSON lines
    csv, tsv  .csv .tsv                  rows under a header
    parquet   .parquet
    arrow     .arrow                     stream or file format
    warc      .warc .wet                 web archives and their extracted text
    wiki      (known by its beginning)   WikiExtractor's <doc> files

Each may end in .gz, .bz2, .xz or .zst besides. A file with another ending is what it begins like, if that is Arrow,
Parquet, WARC or <doc>.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from t5x_lite.core import errors
from t5x_lite.data.bad_records import BadRecord, utf8
from t5x_lite.data.formats import arrow, delimited, file_cache, span_index, text_formats, warc

AUTO = 'auto'
LINE, PARAGRAPH, FILE = DOCUMENTS = ('line', 'paragraph', 'file')

_ENDINGS = {
  '.txt': 'text',
  '.text': 'text',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.json': 'json',
  '.csv': 'csv',
  '.tsv': 'tsv',
  '.parquet': 'parquet',
  '.arrow': 'arrow',
  '.warc': 'warc',
  '.wet': 'warc',
}
_MAGIC = {b'PAR1': 'parquet', arrow.FILE_MAGIC: 'arrow', b'WARC/': 'warc', b'<doc ': 'wiki'}
FORMATS = tuple(dict.fromkeys([*_ENDINGS.values(), *_MAGIC.values()]))

_COPY = 'copy.jsonl'


class Reading(NamedTuple):
  """How files are read; see `files.FilesSource`."""

  format: str
  documents: str
  columns: tuple[str, ...] | None


class RecordFile(Protocol):
  """The records of one file."""

  @property
  def problem(self) -> str | None:
    """Why there are no more of them where the file breaks off, in words; None if it is whole."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """One record. Raises `BadRecord` if there is something wrong with it."""


class NoRecords:
  """A file of which nothing can be read."""

  problem: str | None = None

  def __len__(self) -> int:
    return 0

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Raises `IndexError`."""
    raise IndexError(index)


class SpanFile:
  """The records of a file that are spans of its bytes.

  Args:
    plain: the file, not compressed, and whether it breaks off.
    format: how to find and to read them.
  """

  def __init__(self, plain: file_cache.PlainCopy, format: text_formats.SpanFormat):
    self._file = plain.file
    self._format = format
    self._index = span_index.SpanIndex(plain.file, format.name, format.find)
    self.problem = plain.problem or self._index.problem

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Record `index`. Raises `BadRecord`."""
    begin, end = self._index[index]
    return self._format.parse(file_cache.memory(self._file)[begin:end])


class WholeFile:
  """A file that is one document. It is opened when it is read, for there may be very many.

  Args:
    path: of the file, which may be compressed.
  """

  def __init__(self, path: str):
    self.problem: str | None = None
    self._path = path

  def __len__(self) -> int:
    return 1

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The document. Raises `BadRecord` if the file cannot be read or is not UTF-8."""
    if index != 0:
      raise IndexError(index)
    try:
      data = file_cache.whole(self._path)
    except errors.UsageError as error:
      raise BadRecord('cannot be read', str(error)) from error
    return {'text': text_formats.text_of_lines(data[text_formats.begin_of_text(data) :])}


def format_of(path: str) -> str | None:
  """The format of the file at `path`, by its ending, else by its beginning; None if neither tells."""
  plain = path[: len(path) - len(file_cache.ending(path))]
  known = _ENDINGS.get(pathlib.PurePath(plain).suffix.lower())
  if known is not None:
    return known
  start = file_cache.beginning(path, 8)
  return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def open_file(path: str, reading: Reading) -> RecordFile:
  """The records of the file at `path`.

  Raises:
    BrokenOff: it breaks off before there is anything that can be read.
    UsageError: it cannot be read, or its format is unknown.
  """
  name = reading.format if reading.format != AUTO else format_of(path)
  if name is None:
    endings = ', '.join(_ENDINGS)
    raise errors.UsageError(
      f'cannot tell the format of {path}: expected an ending of {endings} (and {", ".join(file_cache.COMPRESSED)}), '
      f'or a format of {", ".join(FORMATS)} to be given'
    )
  if name == 'text' and reading.documents == FILE:
    return WholeFile(path)
  plain = file_cache.decompressed(file_cache.identify(path))
  if plain.problem is not None and not plain.file.size:
    raise file_cache.BrokenOff(f'{path}: {plain.problem}')
  if name in ('arrow', 'parquet'):
    if plain.problem is not None:
      raise file_cache.BrokenOff(f'{path}: {plain.problem}')
    return arrow.ArrowFile(plain.file if name == 'arrow' else arrow.arrow_copy(plain.file))
  if name == 'json':
    plain = _json_lines(path, plain)
  return SpanFile(plain, _span_format(path, plain.file, name, reading))


def _span_format(path: str, file: file_cache.FileId, name: str, reading: Reading) -> text_formats.SpanFormat:
  if name in ('csv', 'tsv'):
    return delimited.delimited(path, file_cache.memory(file), name == 'csv', reading.columns)
  if name == 'text':
    return text_formats.TextLines() if reading.documents == LINE else text_formats.Paragraphs()
  formats: dict[str, text_formats.SpanFormat] = {
    'jsonl': text_formats.JsonLines(),
    'json': text_formats.JsonLines(),
    'warc': warc.WarcDocuments(),
    'wiki': text_formats.WikiDocuments(),
  }
  return formats[name]


def _json_lines(path: str, plain: file_cache.PlainCopy) -> file_cache.PlainCopy:
  """`plain` if it holds JSON lines, else a copy of it, an object a line: JSON itself has no random access."""
  data = file_cache.memory(plain.file)
  if _holds_lines(data):
    return plain
  if plain.problem is not None:
    raise file_cache.BrokenOff(f'{path}: {plain.problem}')

  def build(folder: pathlib.Path) -> None:
    try:
      document = json.loads(utf8(data[text_formats.begin_of_text(data) :]))
    except (ValueError, RecursionError) as error:
      raise errors.UsageError(f'{path} is not JSON: {error}') from error
    with (folder / _COPY).open('w') as copy:
      for record in _records_of(document):
        copy.write(json.dumps({'text': record} if isinstance(record, str) else record) + '\n')

  return file_cache.PlainCopy(file_cache.identify(file_cache.in_cache(plain.file, 'json', build) / _COPY), None)


def _holds_lines(data: span_index.Data) -> bool:
  """Whether the first line is an object of which more follow."""
  begin = text_formats.begin_of_text(data)
  first_end = data.find(b'\n', begin) + 1
  if data[begin : begin + 1] != b'{' or not first_end or not data[first_end : first_end + 1].strip():
    return False
  try:
    return isinstance(json.loads(data[begin:first_end]), dict)
  except ValueError:
    return False


def _records_of(document: Any) -> Sequence[Any]:
  """The records in a JSON document."""
  if isinstance(document, list):
    return document
  values = document.values() if isinstance(document, dict) else ()
  lists = [value for value in values if isinstance(value, list) and value and all(isinstance(x, dict) for x in value)]
  return lists[0] if len(lists) == 1 else [document]
