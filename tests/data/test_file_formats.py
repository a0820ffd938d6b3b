"""Formats of local files: whatever a text holds, what was written is read, in any order; damage is named or counted."""

import bz2
import csv
import dataclasses
import gzip
import io
import json
import lzma
import pickle

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from t5x_lite.core import errors
from t5x_lite.data import files
from t5x_lite.data.formats import file_cache, file_records, span_index

TEXTS = st.text(st.characters(codec='utf-8'), max_size=60)
RECORDS = st.lists(st.fixed_dictionaries({'text': TEXTS, 'title': TEXTS}), min_size=1, max_size=12)


def as_json_lines(records):
  return ''.join(json.dumps(record, ensure_ascii=False) + '\n' for record in records).encode()


def as_json(records):
  return json.dumps({'version': '1', 'data': records}, indent=1).encode()


def as_csv(records):
  out = io.StringIO(newline='')
  writer = csv.DictWriter(out, ['text', 'title'], quoting=csv.QUOTE_ALL)
  writer.writeheader()
  writer.writerows(records)
  return out.getvalue().encode()


def as_parquet(records):
  out = io.BytesIO()
  parquet.write_table(pa.Table.from_pylist(records), out, row_group_size=3)
  return out.getvalue()


def as_arrow(records, writer=pa.ipc.new_stream):
  out = io.BytesIO()
  table = pa.Table.from_pylist(records)
  with writer(out, table.schema) as stream:
    stream.write_table(table, max_chunksize=3)
  return out.getvalue()


WRITERS = {
  'x.jsonl': as_json_lines,
  'x.json': as_json,
  'lines.json': as_json_lines,
  'x.csv': as_csv,
  'x.parquet': as_parquet,
  'x.arrow': as_arrow,
  'file.arrow': lambda records: as_arrow(records, pa.ipc.new_file),
  'x.jsonl.gz': lambda records: gzip.compress(as_json_lines(records[:1])) + gzip.compress(as_json_lines(records[1:])),
  'x.csv.bz2': lambda records: bz2.compress(as_csv(records)),
  'x.json.xz': lambda records: lzma.compress(as_json(records)),
  'x.jsonl.zst': lambda records: pa.Codec('zstd').compress(as_json_lines(records), asbytes=True),
}


@pytest.fixture(scope='module')
def new_folder(tmp_path_factory):
  """A folder for every example: a file that is rewritten at once may have the size and the time that it had."""
  return lambda: tmp_path_factory.mktemp('files')


@pytest.fixture(params=[0, 2**24], ids=['kept', 'in memory'])
def kept_from(request, monkeypatch):
  """From which size on indices are kept in the cache."""
  monkeypatch.setattr(span_index, '_KEPT_FROM', request.param)
  monkeypatch.setattr(file_records, '_KEPT_FROM', request.param)


def read(path, **options):
  return files.FilesSource(str(path), **options).random_access('train')


def message(function, *args, **options):
  with pytest.raises(errors.UsageError) as caught:
    function(*args, **options)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.mark.parametrize('name', WRITERS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(records=RECORDS, order=st.randoms(use_true_random=False))
def test_what_is_written_is_read_in_any_order(new_folder, name, records, order):
  folder = new_folder()
  (folder / name).write_bytes(WRITERS[name](records))
  found = read(folder / name)
  assert [found[i] for i in range(len(found))] == records
  indices = order.sample(range(len(records)), len(records))
  assert found.__getitems__(indices) == [records[i] for i in indices]
  with pytest.raises(IndexError):
    found[len(records)]


@settings(max_examples=150, deadline=None)
@given(
  lines=st.lists(TEXTS.map(lambda text: text.replace('\n', ' ')), max_size=12), end=st.sampled_from(['\n', '\r\n'])
)
def test_text_by_line_paragraph_and_file(new_folder, lines, end):
  folder = new_folder()
  lines = [line.removesuffix('\r') for line in ['first', *lines]]
  (folder / 'x.txt').write_bytes(end.join(lines).encode())
  encoded = [line for line in lines if line and not line.encode().isspace()]
  found = read(folder / 'x.txt')
  assert [record['text'] for record in found] == encoded
  paragraphs = [record['text'] for record in read(folder / 'x.txt', documents='paragraph')]
  assert [line for text in paragraphs for line in text.split('\n')] == [line.replace('\r\n', '\n') for line in encoded]
  blank = [not line or line.encode().isspace() for line in lines]
  assert len(paragraphs) == sum(not b and (i == 0 or blank[i - 1]) for i, b in enumerate(blank))
  whole = read(folder / 'x.txt', documents='file')
  assert len(whole) == 1 and whole[0]['text'] == '\n'.join(lines).replace('\r\n', '\n')


def test_a_byte_order_mark_is_no_text(tmp_path):
  for name, data in {'a.txt': 'é', 'b.jsonl': '{"text": "é"}', 'c.csv': 'text\né', 'd.json': '["é"]'}.items():
    (tmp_path / name).write_bytes(data.encode('utf-8-sig'))
    assert read(tmp_path / name)[0] == {'text': 'é'}
  assert read(tmp_path / 'a.txt', documents='file')[0] == {'text': 'é'}


def test_tsv_takes_quotes_as_they_are(tmp_path):
  (tmp_path / 'a.tsv').write_text('sentence\tlabel\n"Who\t1\n\nsays "so"?\t\n')
  assert list(read(tmp_path / 'a.tsv')) == [{'sentence': '"Who', 'label': '1'}, {'sentence': 'says "so"?', 'label': ''}]
  (tmp_path / 'b.tsv').write_text('x\ty\r\nx\tz')
  assert list(read(tmp_path / 'b.tsv', columns=['a', 'b'])) == [{'a': 'x', 'b': 'y'}, {'a': 'x', 'b': 'z'}]


def test_json_documents(tmp_path):
  (tmp_path / 'texts.json').write_text('["one", "two\\nlines"]')
  assert list(read(tmp_path / 'texts.json')) == [{'text': 'one'}, {'text': 'two\nlines'}]
  (tmp_path / 'one.json').write_text('{"text": "only", "notes": []}\n')
  assert list(read(tmp_path / 'one.json')) == [{'text': 'only', 'notes': []}]
  (tmp_path / 'bad.json').write_text('[{"text": "cut')
  assert 'bad.json is not JSON' in message(read, tmp_path / 'bad.json')


def test_wiki_extractor(tmp_path):
  head = '<doc id="{0}" url="https://w?curid={0}" title="The &quot;{0}&quot; of "it"">\n'
  page = head + 'Title\n\nBody < {0} </p>\n\n\n</doc>\n'
  (tmp_path / 'wiki_00').write_text(page.format(1) + page.format(2))
  found = read(tmp_path)
  title, text = 'The "2" of "it"', 'Title\n\nBody < 2 </p>'
  assert len(found) == 2 and found[1] == {'id': '2', 'url': 'https://w?curid=2', 'title': title, 'text': text}
  (tmp_path / 'wiki_00').write_text(page.format(1) + page.format(2)[:-9])
  assert 'wiki_00: record 1: truncated' in message(read, tmp_path)


def test_bad_records_are_named(tmp_path, kept_from):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(
    b'{"text": "ok"}\n{"text": "\xff"}\n{"text"\n[1]\n{"txt": "a"}\n{"text": null}\n{"text": "\\ud800"}\n'
  )
  found = read(path, fields=['text'])
  assert found[0] == {'text': 'ok'} and found.skipped == {}
  expected = [
    'invalid UTF-8 at byte 10 of',
    'not JSON: ',
    'got a JSON list, expected an object',
    "unknown field 'text': did you mean 'txt'?",
    "field 'text' is null, expected text or a number",
    "field 'text' has half a surrogate pair",
  ]
  for number, text in enumerate(expected, start=1):
    assert f'{path}: record {number}: {text}' in message(found.__getitem__, number)


@pytest.mark.parametrize('times', [1, 2])
def test_bad_records_are_skipped_and_counted(tmp_path, kept_from, times):
  good = [{'text': f'document {i}'} for i in range(6)]
  bad = [b'{"text": "\xff"}', b'{"text"', b'{"no": 1}', b'{"text": 1, "text": []}']
  lines = [json.dumps(record).encode() for record in good]
  lines = [bad[0], lines[0], lines[1], bad[1], bad[2], lines[2], *lines[3:], bad[3]]
  (tmp_path / 'x.jsonl').write_bytes(b'\n'.join(lines))
  (tmp_path / 'y.jsonl').write_bytes(b'\n'.join(lines))
  for _ in range(times):  # the second time from the cache
    files._opened.cache_clear()
    found = read(tmp_path, fields=['text'], skip_bad=True)
    assert list(found) == good * 2
    assert found.skipped == {'invalid UTF-8': 2, 'missing field': 2, 'not JSON': 2, 'not text': 2}
  assert list(pickle.loads(pickle.dumps(found))) == good * 2


def test_rows_that_are_not_csv(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_bytes(b'text,label\n"a ""b""\nc",1\nd\n"e"f,2\n\n\xff,3\ng,4\n"open,5\nh,6\n')
  found = read(path, skip_bad=True)
  assert list(found) == [{'text': 'a "b"\nc', 'label': '1'}, {'text': 'g', 'label': '4'}, {'text': 'h', 'label': '6'}]
  assert found.skipped == {'invalid UTF-8': 1, 'not CSV': 2, 'wrong number of columns': 1}
  assert 'record 1: got 1 columns, expected 2: text, label' in message(read(path).__getitem__, 1)
  path.write_text('a,a\n1,2\n')
  assert 'names a column twice: a, a' in message(read, path)
  path.write_text('')
  assert 'is empty: expected a header' in message(read, path)


@pytest.mark.parametrize('name', ['x.jsonl.gz', 'x.csv.bz2', 'x.jsonl.zst'])
def test_compressed_files_that_break_off(tmp_path, name):
  records = [{'text': f'{i**9:x}' * 50, 'title': ''} for i in range(4000)]
  whole = WRITERS[name](records)
  (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
  assert f'{name}: breaks off or is damaged after' in message(read, tmp_path / name)
  found = read(tmp_path / name, skip_bad=True)
  assert 0 < len(found) < 4000 and list(found) == records[: len(found)]
  assert found.skipped['truncated file'] == 1
  (tmp_path / name).write_bytes(b'not compressed at all')
  assert f'cannot read {tmp_path / name}' in message(read, tmp_path / name, skip_bad=True)


@pytest.mark.parametrize('name', ['x.parquet', 'x.arrow', 'file.arrow'])
def test_arrow_and_parquet_files_that_break_off(tmp_path, name):
  whole = WRITERS[name]([{'text': 'abc' * 50, 'title': ''}] * 50)
  (tmp_path / name).write_bytes(whole[: len(whole) // 2])
  assert f'file {tmp_path / name}' in message(read, tmp_path / name)


def test_categories_may_differ_between_the_row_groups_of_a_parquet_file(tmp_path):
  def table(*names):
    return pa.table({'text': list(names), 'kind': pa.array(names).dictionary_encode()})

  groups = [table('a', 'b'), table('c', 'a')]
  with parquet.ParquetWriter(tmp_path / 'x.parquet', groups[0].schema) as out:
    for group in groups:
      out.write_table(group)
  found = read(tmp_path / 'x.parquet')
  assert [(record['text'], record['kind']) for record in found] == [(name, name) for name in 'abca']


def test_arrow_text_that_is_not_utf8(tmp_path):
  column = pa.array([b'ok', b'\xff', b'fine']).view(pa.string())
  table = pa.table({'text': column})
  with pa.OSFile(str(tmp_path / 'x.arrow'), 'wb') as out, pa.ipc.new_stream(out, table.schema) as stream:
    stream.write_table(table)
  assert 'x.arrow: record 1: invalid UTF-8' in message(read(tmp_path / 'x.arrow').__getitem__, 1)
  found = read(tmp_path / 'x.arrow', skip_bad=True)
  assert list(found) == [{'text': 'ok'}, {'text': 'fine'}] and found.skipped == {'invalid UTF-8': 1}


def test_a_gigantic_document(tmp_path):
  text = 'word ' * 4_000_000
  (tmp_path / 'x.txt').write_text(f'small\n{text}\nsmall\n')
  (tmp_path / 'y.csv').write_text(f'text\n"{text}"\nsmall\n')
  assert read(tmp_path / 'x.txt')[1]['text'] == text
  assert [len(record['text']) for record in read(tmp_path / 'y.csv')] == [len(text), 5]


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
  for number in range(20):
    (tmp_path / f'{number:02}.txt').write_text(f'{number}')
  found = read(tmp_path)
  file_cache.memory.cache_clear()
  monkeypatch.setattr(file_cache, 'memory', file_cache.functools.lru_cache(2)(file_cache.memory.__wrapped__))
  assert [record['text'] for record in found.__getitems__(range(19, -1, -1))] == [str(i) for i in range(19, -1, -1)]


def test_a_file_that_changes_while_it_is_read(tmp_path):
  path = tmp_path / 'x.txt'
  path.write_text('one\n')
  found = read(path)
  path.write_text('another\n')
  file_cache.memory.cache_clear()
  assert 'has changed while it was being read' in message(found.__getitem__, 0)
  assert list(read(path)) == [{'text': 'another'}]


def test_unknown_formats(tmp_path):
  (tmp_path / 'train.en').write_text('a line\n')
  assert 'cannot tell the format of' in message(read, tmp_path / 'train.en')
  assert read(tmp_path / 'train.en', format='text')[0] == {'text': 'a line'}
  assert "did you mean 'jsonl'" in message(files.FilesSource, 'x', format='jsonls')
  assert "did you mean 'line'" in message(files.FilesSource, 'x', documents='lines')


@pytest.mark.parametrize('keep', [5, 12, 60])
@pytest.mark.parametrize('name', ['x.jsonl.gz', 'x.csv.gz', 'x.json.gz', 'x.jsonl.xz', 'x.parquet.gz'])
def test_a_small_compressed_file_that_breaks_off_is_told_or_skipped_and_counted(tmp_path, name, keep):
  """Wherever it breaks off, also before there is a single record; the files beside it are read."""
  rows = [{'text': f'document {n} {n**9}'} for n in range(30)]
  content = {
    'jsonl': lambda: as_json_lines(rows),
    'csv': lambda: b'text\n' + b''.join(row['text'].encode() + b'\n' for row in rows),
    'json': lambda: json.dumps(rows).encode(),
    'parquet': lambda: b'PAR1' + bytes(range(256)) * 3,
  }[name.split('.')[1]]()
  packed = (gzip if name.endswith('gz') else lzma).compress(content)
  (tmp_path / name).write_bytes(packed[:keep])
  (tmp_path / 'whole.jsonl').write_bytes(as_json_lines(rows[:3]))
  source = files.FilesSource(str(tmp_path), fields=('text',))
  assert f'{name}: breaks off or is damaged after' in message(source.random_access, 'train')
  records = dataclasses.replace(source, skip_bad=True).random_access('train')
  assert records.skipped['truncated file'] == 1
  texts = [record['text'] for record in records]
  assert texts[:3] == [row['text'] for row in rows[:3]]
  rest = texts[3:-1] if name == 'x.csv.gz' else texts[3:]  # the last row of a table may be a part of one
  assert rest == [row['text'] for row in rows[: len(rest)]]
