"""Lines in, rows out: order, bad lines, few shapes, resumption; with a mode that counts words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.inference import job, rows
from t5x_lite.inference.modes import Item


class Words:
  """Says how many words a line has; its batches are kept."""

  field = 'inputs'

  def __init__(self):
    self.shapes = []

  def read(self, fields):
    text = rows.text_field(fields, 'inputs', 'text')
    return Item(np.zeros(max(len(text.split()), 1), np.int32), {'inputs': text})

  def run(self, items, length, numbers):
    self.shapes.append((len(items), length))
    assert len(numbers) == len(items) and all(len(item.ids) <= length for item in items)
    return [{**item.shown, 'prediction': str(len(item.shown['inputs'].split()))} for item in items]


def work(raw, kind='text', batch_size=2):
  mode = Words()
  return list(job.run(rows.read(raw, kind, mode.field), mode, batch_size=batch_size)), mode.shapes


def test_rows_come_in_the_order_of_the_lines_whatever_their_lengths():
  rng = np.random.default_rng(0)
  texts = [' '.join(f'w{i}' for i in rng.integers(0, 50, rng.integers(1, 60))) for _ in range(100)]
  found, shapes = work([text.encode() + b'\n' for text in texts])
  assert [row['line'] for row in found] == list(range(1, 101))
  assert [row['inputs'] for row in found] == texts
  assert [int(row['prediction']) for row in found] == [len(text.split()) for text in texts]
  assert set(shapes) <= {(1, 32), (2, 32), (1, 64), (2, 64)}


def test_a_bad_line_has_a_row_of_its_own_and_the_others_are_done():
  raw = [b'{"inputs": "one"}', b'{"inputs": 3}', b'oops', b'[1]', b'\xff', b'{"x": ""}', b'{"text": "two x", "id": 7}']
  found, _ = work(raw, 'jsonl')
  assert [row.get('prediction') for row in found] == ['1', None, None, None, None, None, '2']
  for row, told in zip(found[1:6], ('under "inputs"', 'not JSON', 'JSON list', 'not UTF-8', "keys ['x']"), strict=True):
    assert told in row['error'] and json.loads(json.dumps(row)) == row


def test_a_csv_has_named_fields_which_may_have_line_ends_in_them():
  raw = b'id,text\r\n1,"a, b\nc"\r\n2\r\n3,d\r\n'.splitlines(keepends=True)
  found, _ = work(raw, 'csv')
  assert [row.get('inputs') for row in found] == ['a, b\nc', None, 'd']
  assert 'got 1 fields, expected 2: id, text' in found[1]['error']


def test_a_csv_may_have_blank_lines_and_books_in_its_fields():
  book = 'a b ' * 50_000
  found, _ = work(f'id,text\n1,{book}\n\n2,d\n\n'.encode().splitlines(keepends=True), 'csv')
  assert [(row['line'], row.get('inputs')) for row in found] == [(1, book), (2, 'd')]


def test_a_half_written_field_with_line_ends_costs_its_own_row_alone(tmp_path):
  path = tmp_path / 'out.csv'
  output = job.Output(str(path), 'csv', {}, ('line', 'text'))
  for number in (1, 2, 3):
    output.write({'line': number, 'text': f'a\nb "{number}"\nc'})
  output.close(complete=False)
  path.write_bytes(path.read_bytes()[:-5])
  output = job.Output(str(path), 'csv', {}, ('line', 'text'))
  output.close(complete=True)
  assert output.done == 2


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text():
  lines = list(rows.read([b'\xef\xbb\xbffirst\r\n', b'second\n', b'last'], 'text'))
  assert [line.fields['inputs'] for line in lines] == ['first', 'second', 'last']


@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'text'])
@pytest.mark.parametrize('cut', [0, 3])
def test_a_job_that_was_killed_goes_on_where_it_stopped(tmp_path, kind, cut):
  made = [{'line': n, 'inputs': f'a "{n}"', 'prediction': f'{n}, so'} for n in range(1, 8)]
  whole, killed = tmp_path / f'whole.{kind}', tmp_path / f'killed.{kind}'
  output = job.Output(str(whole), kind, {'mode': 'x'})
  for row in made:
    output.write(row)
  output.close(complete=True)
  output = job.Output(str(killed), kind, {'mode': 'x'})
  for row in made[:4]:
    output.write(row)
  output.close(complete=False)
  if cut:
    killed.write_bytes(killed.read_bytes()[:-cut])  # in the middle of a row
  with pytest.raises(UsageError, match='begun with other settings'):
    job.Output(str(killed), kind, {'mode': 'y'})
  output = job.Output(str(killed), kind, {'mode': 'x'})
  assert output.done == (3 if cut else 4)
  for row in made[output.done :]:
    output.write(row)
  output.close(complete=True)
  assert killed.read_bytes() == whole.read_bytes()
  assert sorted(path.name for path in tmp_path.iterdir()) == [f'killed.{kind}', f'whole.{kind}']


def test_a_finished_file_is_written_anew(tmp_path):
  for text in ('one', 'two'):
    output = job.Output(str(tmp_path / 'out.jsonl'), 'jsonl', {'mode': 'x'})
    output.write({'line': 1, 'prediction': text})
    output.close(complete=True)
  lines = (tmp_path / 'out.jsonl').read_text().splitlines()
  assert [json.loads(line)['prediction'] for line in lines] == ['two']


def test_formats_follow_the_names_of_files():
  assert [rows.format_of('auto', name) for name in ('a.csv', 'a.jsonl', 'a.txt', '-')] == [
    'csv',
    'jsonl',
    'text',
    'text',
  ]
  assert rows.format_of('auto', '-', default='jsonl') == 'jsonl'
  assert rows.format_of('csv', 'a.jsonl') == 'csv'
