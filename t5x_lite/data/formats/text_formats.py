"""Formats of text files whose records are spans of bytes: where each lies, and what is in it.

A format finds all spans in one pass, which looks at line ends and little else, and parses one when it is read. Lines
end in \\n or \\r\\n; nothing else that Unicode has for a line end counts. Lines of white space alone are no records. A
byte order mark at the beginning of a file is no text.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from typing import Any, Protocol

import numpy as np

from t5x_lite.data.bad_records import BadRecord, utf8
from t5x_lite.data.formats import span_index

_BYTE_ORDER_MARK = b'\xef\xbb\xbf'
_SPACE = 32
_NEWLINE = 10
_BLOCK = 2**24


class SpanFormat(Protocol):
  """How to read the files of one format."""

  @property
  def name(self) -> str:
    """For the index in the cache: formats of one name find the same spans."""

  def find(self, data: span_index.Data) -> span_index.Found:
    """The spans of all records of a file."""

  def parse(self, data: bytes) -> dict[str, Any]:
    """The record in one span. Raises `BadRecord`."""


@dataclasses.dataclass(frozen=True)
class TextLines:
  """A document a line: `{'text': ...}`."""

  name: str = 'lines'

  def find(self, data: span_index.Data) -> span_index.Found:
    """Lines that are not blank."""
    lines = line_spans(data)
    return span_index.Found(lines[~blank_lines(data, lines)])

  def parse(self, data: bytes) -> dict[str, Any]:
    """The line, without its end."""
    return {'text': utf8(without_line_end(data))}


@dataclasses.dataclass(frozen=True)
class Paragraphs:
  """Documents of several lines, with blank lines between them: `{'text': ...}`."""

  name: str = 'paragraphs'

  def find(self, data: span_index.Data) -> span_index.Found:
    """Runs of lines that are not blank."""
    lines = line_spans(data)
    filled = np.concatenate([[False], ~blank_lines(data, lines), [False]])
    first, last = filled[1:-1] & ~filled[:-2], filled[1:-1] & ~filled[2:]
    return span_index.Found(np.stack([lines[first, 0], lines[last, 1]], axis=1))

  def parse(self, data: bytes) -> dict[str, Any]:
    """The lines, with \\n between them."""
    return {'text': text_of_lines(without_line_end(data))}


@dataclasses.dataclass(frozen=True)
class JsonLines:
  """A JSON object a line; its values are what they are in the file."""

  name: str = 'lines'

  def find(self, data: span_index.Data) -> span_index.Found:
    """Lines that are not blank."""
    return TextLines().find(data)

  def parse(self, data: bytes) -> dict[str, Any]:
    """The object."""
    text = utf8(data)
    try:
      value = json.loads(text)
    except (ValueError, RecursionError) as error:
      raise BadRecord('not JSON', f'not JSON: {error}') from error
    if not isinstance(value, dict):
      raise BadRecord('not a JSON object', f'got a JSON {type(value).__name__}, expected an object with fields')
    return value


_WIKI_DOCUMENT = re.compile(rb'(?ms)^<doc [^\n]*>\r?\n.*?</doc>[ \t\r]*$')
_WIKI_BEGIN = re.compile(rb'(?m)^<doc ')
_WIKI_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+="|\s*>$)')


@dataclasses.dataclass(frozen=True)
class WikiDocuments:
  """WikiExtractor's `<doc id= url= title=>` ... `</doc>`: `{'id', 'url', 'title', 'text'}`.

  The text begins with the title, as WikiExtractor has it.
  """

  name: str = 'wiki'

  def find(self, data: span_index.Data) -> span_index.Found:
    """Documents that have an end."""
    spans = span_index.as_spans(place for match in _WIKI_DOCUMENT.finditer(data) for place in match.span())
    rest = _WIKI_BEGIN.search(data, int(spans[-1, 1]) if len(spans) else 0)
    return span_index.Found(spans, rest and f'record {len(spans)}: truncated: <doc> without </doc>')

  def parse(self, data: bytes) -> dict[str, Any]:
    """The document and its attributes."""
    head, _, text = utf8(data).partition('\n')
    attributes = {key: html.unescape(value) for key, value in _WIKI_ATTRIBUTE.findall(head.rstrip())}
    return {**attributes, 'text': text.rstrip().removesuffix('</doc>').strip()}


def begin_of_text(data: span_index.Data) -> int:
  """Where the text of a file begins: after the byte order mark, if it has one."""
  return len(_BYTE_ORDER_MARK) if data[: len(_BYTE_ORDER_MARK)] == _BYTE_ORDER_MARK else 0


def line_spans(data: span_index.Data) -> np.ndarray:
  """The spans of all lines, with their ends: int64 [lines, 2]."""
  begin, size = begin_of_text(data), len(data)
  if begin == size:
    return np.zeros((0, 2), np.int64)
  ends = [np.flatnonzero(_bytes(data, at, min(at + _BLOCK, size)) == _NEWLINE) + at for at in range(0, size, _BLOCK)]
  stops = np.concatenate([*ends, [size - 1]]) + 1
  if len(stops) > 1 and stops[-2] == size:
    stops = stops[:-1]
  return np.stack([np.concatenate([[begin], stops[:-1]]), stops], axis=1)


def blank_lines(data: span_index.Data, lines: np.ndarray) -> np.ndarray:
  """Which of `lines` are white space: bool [lines]."""
  blank = np.zeros(len(lines), bool)
  if len(lines):
    for index in np.flatnonzero(_bytes(data, 0, len(data))[lines[:, 0]] <= _SPACE).tolist():
      blank[index] = data[lines[index, 0] : lines[index, 1]].isspace()
  return blank


def without_line_end(data: bytes) -> bytes:
  """`data` without the `\\n` or `\\r\\n` that it ends in."""
  return data.removesuffix(b'\n').removesuffix(b'\r')


def text_of_lines(data: bytes) -> str:
  """`data` as text with `\\n` for every `\\r\\n`. Raises `BadRecord` where it is not UTF-8."""
  return utf8(data).replace('\r\n', '\n')


def _bytes(data: span_index.Data, begin: int, end: int) -> np.ndarray:
  return np.frombuffer(data, np.uint8, end - begin, begin)
