"""Web archives: the text of pages, and nothing else; HTML as a reader sees it."""

import gzip
import zlib

import pytest

from t5x_lite.core import errors
from t5x_lite.data import files
from t5x_lite.data.formats import html_text

PAGE = (
  '<html><head><title>T</title><style>p {}</style></head><body><p>Caf&eacute; &amp; b<b>ar</b></p><p>Zwei</p></body>'
)
SEEN = 'Café & bar\nZwei'


def record(kind, body, uri='http://a.b/', content_type='text/plain', date='2024-01-01T00:00:00Z'):
  head = (
    f'WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nWARC-Date: {date}\r\n'
    f'WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n'
  )
  return head.encode() + body + b'\r\n\r\n'


def response(content, status='200 OK', content_type='text/html; charset=utf-8', **headers):
  more = ''.join(f'{key.replace("_", "-")}: {value}\r\n' for key, value in headers.items())
  body = f'HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{more}\r\n'.encode() + content
  return record('response', body, content_type='application/http; msgtype=response')


def read(path, **options):
  return files.FilesSource(str(path), **options).random_access('train')


def texts(path, *records):
  path.write_bytes(b''.join(records))
  return [found['text'] for found in read(path)]


def test_wet_files(tmp_path):
  path = tmp_path / 'CC-MAIN-00000.warc.wet.gz'
  parts = [record('warcinfo', b'software: x'), record('conversion', 'Ä text\n\nof lines\n'.encode(), 'http://a.b/c')]
  parts.append(record('conversion', b'second'))
  path.write_bytes(b''.join(map(gzip.compress, parts)))  # a gzip member for each record, as Common Crawl has it
  found = read(path)
  assert [found[1]['text'], found[0]['text']] == ['second', 'Ä text\n\nof lines']
  assert found[0] == {
    'text': 'Ä text\n\nof lines',
    'url': 'http://a.b/c',
    'date': '2024-01-01T00:00:00Z',
    'id': 'urn:uuid:1',
  }


def test_only_pages_are_documents(tmp_path):
  page = PAGE.encode()
  found = texts(
    tmp_path / 'x.warc',
    record('request', b'GET / HTTP/1.1\r\n\r\n'),
    response(b'', status='301 Moved'),
    response(b'\x89PNG', content_type='image/png'),
    response(page),
    response(b'{}', content_type='application/json'),
    response(b'plain <b>\r\n\r\ntext', content_type='text/plain'),
    record('metadata', b'x: y'),
    record('resource', b'log', 'metadata://log'),
  )
  assert found == [SEEN, 'plain <b>\r\n\r\ntext']


def test_bodies_are_decoded(tmp_path):
  page = PAGE.encode()
  chunked = b''.join(b'%x;n=v\r\n%s\r\n' % (len(part), part) for part in (page[:20], page[20:])) + b'0\r\n\r\n'
  german = '<p>für</p>'
  path = tmp_path / 'x.warc'
  path.write_bytes(
    response(chunked, Transfer_Encoding='chunked')
    + response(gzip.compress(page), Content_Encoding='gzip')
    + response(zlib.compress(page), Content_Encoding='deflate')
    + response(german.encode('latin-1'), content_type='text/html; charset=iso-8859-1')
    + response(f'<meta charset="iso-8859-1">{german}'.encode('latin-1'), content_type='text/html')
    + response(german.encode('cp1252'), content_type='text/html')
    + response(german.encode('cp1252'), content_type='text/html; charset=undefined')
    + response(b'cut', Content_Encoding='gzip')
    + response(b'ff\r\nshort', Transfer_Encoding='chunked')
  )
  found = read(path, skip_bad=True)
  assert [document['text'] for document in found] == [SEEN] * 3 + ['für'] * 4
  assert found.skipped == {'bad HTTP response': 2}
  with pytest.raises(errors.UsageError, match=r'x\.warc: record 7: bad HTTP response'):
    read(path)[7]


@pytest.mark.parametrize(
  ('damage', 'problem'),
  [
    (lambda data: data[:-10], 'WARC record 1: truncated: 42 bytes of 48 are there'),
    (lambda data: data + b'WARC/1.0\r\nWARC-Ty', 'WARC record 2: truncated within its headers'),
    (lambda data: data.replace(b'Content-Length: 48', b'Content-Length: -1'), "record 1: bad Content-Length '-1'"),
    (lambda data: data + b'garbage\r\n\r\n', "record 2: got b'garbage"),
  ],
)
def test_damaged_archives(tmp_path, damage, problem):
  path = tmp_path / 'x.warc'
  path.write_bytes(damage(record('conversion', b'whole') + record('conversion', b'second' * 8)))
  with pytest.raises(errors.UsageError) as caught:
    read(path)
  assert f'{path}: ' in str(caught.value) and problem in str(caught.value)
  found = read(path, skip_bad=True)
  assert found[0]['text'] == 'whole' and found.skipped == {'truncated file': 1}


@pytest.mark.parametrize(
  ('page', 'seen'),
  [
    (PAGE, SEEN),
    ('<div>a<div>b</div>c</div><br>d<br/>e', 'a\nb\nc\nd\ne'),
    ('<script>if (a < b) { "</p>" }</script>x<noscript>y</noscript>', 'x'),
    ('<head><meta charset="x"><body>no end of head', 'no end of head'),
    ('<ul><li>one<li>two</ul><table><tr><td>1<td>2</table>', 'one\ntwo\n1\n2'),
    ('  many\n   spaces \t and&nbsp;one &lt;p&gt; ', 'many spaces and one <p>'),
    ('<svg><title>hidden</title><svg></svg>still</svg>shown', 'shown'),
    ('<!-- c -->a</p></b></html>b', 'a\nb'),
    ('a<![foo]>b<![ if !IE]>c<![\n>d<![CDATA[e]]>f<![endif]>g<![foo', 'abcdfg<![foo'),
    ('', ''),
  ],
)
def test_what_a_reader_sees(page, seen):
  assert html_text.visible_text(page) == seen
