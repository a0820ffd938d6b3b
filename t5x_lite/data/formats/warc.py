"""WARC files (ISO 28500), the format of web archives such as Common Crawl: the pages of a crawl, or their text.

Records are the `conversion` records of WET files, whose text is taken as it is, and the successful HTTP `response`
records whose content is HTML or plain text; HTML is reduced to the text that a reader sees. Requests, redirects, images
and what crawlers say about themselves are no documents.
"""

from __future__ import annotations

import array
import dataclasses
import email.message
import gzip
import re
import zlib
from typing import Any

from t5x_lite.data.bad_records import BadRecord, utf8
from t5x_lite.data.formats import html_text, span_index

_HEAD_END = b'\r\n\r\n'
_HTML = ('text/html', 'application/xhtml+xml')
_PAGES = (*_HTML, 'text/plain')
_META_CHARSET = re.compile(rb'<meta[^>]{0,200}?charset\s*=\s*["\']?\s*([\w.:-]+)', re.IGNORECASE)
_SEARCHED_FOR_CHARSET = 2048  # bytes; browsers search 1024

Headers = dict[str, str]


@dataclasses.dataclass(frozen=True)
class WarcDocuments:
  """The documents of an archive: `{'text', 'url', 'date', 'id'}`."""

  name: str = 'warc'

  def find(self, data: span_index.Data) -> span_index.Found:
    """The spans of those records that are documents."""
    places = array.array('q')
    at, number = 0, 0
    problem = None
    while (at := _next_record(data, at)) < len(data):
      body = data.find(_HEAD_END, at) + len(_HEAD_END)
      if data[at : at + 5] != b'WARC/':
        problem = f'WARC record {number}: got {data[at : at + 20]!r} at byte {at}, expected WARC/'
        break
      if body < len(_HEAD_END):
        problem = f'WARC record {number}: truncated within its headers'
        break
      headers = _headers(data[at:body])
      length = headers.get('content-length', '')
      if not length.isdecimal():
        problem = f'WARC record {number}: bad Content-Length {length!r}'
        break
      end = body + int(length)
      if end > len(data):
        problem = f'WARC record {number}: truncated: {len(data) - body} bytes of {length} are there'
        break
      if _is_document(headers, data, body, end):
        places.extend((at, end))
      at, number = end, number + 1
    return span_index.Found(span_index.as_spans(places), problem)

  def parse(self, data: bytes) -> dict[str, Any]:
    """The document."""
    head, _, body = data.partition(_HEAD_END)
    headers = _headers(head)
    text = _page_text(body) if headers.get('warc-type') == 'response' else utf8(body)
    return {
      'text': text.strip(),
      'url': headers.get('warc-target-uri', '').strip('<>'),
      'date': headers.get('warc-date', ''),
      'id': headers.get('warc-record-id', '').strip('<>'),
    }


def _next_record(data: span_index.Data, at: int) -> int:
  """Where the next record begins, after the two line ends that follow every record."""
  while data[at : at + 1] in (b'\r', b'\n'):
    at += 1
  return at


def _headers(head: bytes) -> Headers:
  """The headers of a record or an HTTP response, their names in lower case; of one that comes twice, the first."""
  headers: Headers = {}
  for line in head.decode('utf-8', errors='replace').split('\r\n')[1:]:
    name, colon, value = line.partition(':')
    if colon:
      headers.setdefault(name.strip().lower(), value.strip())
  return headers


def _is_document(headers: Headers, data: span_index.Data, body: int, end: int) -> bool:
  kind = headers.get('warc-type')
  if kind != 'response':
    return kind == 'conversion'
  head_end = data.find(_HEAD_END, body, end)
  if head_end < 0 or not re.match(rb'HTTP/[\d.]+ 200\b', data[body : body + 16]):
    return False
  return _content_type(_headers(data[body:head_end])).get_content_type() in _PAGES


def _content_type(http: Headers) -> email.message.Message:
  """The content type, read as mail programs read it."""
  message = email.message.Message()
  message['content-type'] = http.get('content-type', 'application/octet-stream')
  return message


def _page_text(response: bytes) -> str:
  """The text of an HTTP response. Raises `BadRecord` if it cannot be decoded."""
  head, _, content = response.partition(_HEAD_END)
  http = _headers(head)
  try:
    if 'chunked' in http.get('transfer-encoding', '').lower():
      content = _joined_chunks(content)
    encoding = http.get('content-encoding', '').lower()
    if encoding in ('gzip', 'x-gzip'):
      content = gzip.decompress(content)
    elif encoding == 'deflate':
      content = zlib.decompress(content)
  except (ValueError, EOFError, OSError, zlib.error) as error:
    raise BadRecord('bad HTTP response', f'bad HTTP response: {error}') from error
  content_type = _content_type(http)
  page = _decoded(content, content_type.get_content_charset())
  return html_text.visible_text(page) if content_type.get_content_type() in _HTML else page


def _joined_chunks(content: bytes) -> bytes:
  """A chunked body (RFC 9112, section 7.1) in one piece. Raises `ValueError` if it is none."""
  chunks: list[bytes] = []
  at = 0
  while True:
    end = content.index(b'\r\n', at)
    size = int(content[at:end].partition(b';')[0], 16)
    if size == 0:
      return b''.join(chunks)
    at = end + 2 + size + 2
    if at > len(content):
      raise ValueError('a chunk is truncated')
    chunks.append(content[end + 2 : at - 2])


def _decoded(content: bytes, charset: str | None) -> str:
  """A page as text: in the charset it says, else UTF-8 if it is that, else what browsers assume of western pages."""
  if charset is None and (said := _META_CHARSET.search(content, 0, _SEARCHED_FOR_CHARSET)):
    charset = said[1].decode('ascii')
  try:
    return content.decode(charset or 'utf-8', errors='replace' if charset else 'strict')
  except (LookupError, ValueError):  # no such charset, or one of Python's own, as `undefined`
    return content.decode('windows-1252', errors='replace')
