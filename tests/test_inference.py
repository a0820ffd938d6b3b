"""Lines in, rows out: order, bad lines, and few shapes; with a model that writes back what it reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from t5x_lite import inference


class Words:
  """Ids of words in the order of their first use, from 3 on."""

  eos_id = 1

  def __init__(self):
    self.known = []

  def encode_batch(self, texts):
    self.known += [word for text in texts for word in text.split() if word not in self.known]
    return [[3 + self.known.index(word) for word in text.split()] for text in texts]

  def decode(self, ids):
    return ' '.join(self.known[i - 3] for i in ids if i >= 3)


def predict(lines, *, longest=64, batch_size=2):
  shapes = []

  def echo(batch):
    tokens, segments = batch['encoder_input_tokens'], batch['encoder_segment_ids']
    np.testing.assert_array_equal(segments, tokens > 0)
    shapes.append(tokens.shape)
    return tokens

  rows = list(inference.predict(lines, echo, Words(), longest=longest, batch_size=batch_size))
  return rows, shapes


def text_lines(*texts):
  return list(inference.read_lines([text.encode() + b'\n' for text in texts], jsonl=False))


def test_rows_come_in_the_order_of_the_lines_whatever_their_lengths():
  rng = np.random.default_rng(0)
  texts = [' '.join(f'w{i}' for i in rng.integers(0, 50, rng.integers(0, 60))) for _ in range(100)]
  rows, shapes = predict(text_lines(*texts))
  assert [row['line'] for row in rows] == list(range(1, 101))
  assert [row['prediction'] for row in rows] == [row['inputs'] for row in rows] == texts
  assert set(shapes) == {(2, 32), (2, 64)}


def test_long_inputs_are_cut_and_said_to_be():
  rows, _ = predict(text_lines('a ' * 100, 'b'), longest=40)
  assert rows[0]['truncated'] and rows[0]['prediction'] == ' '.join('a' * 39)
  assert 'truncated' not in rows[1]


def test_a_bad_line_has_a_row_of_its_own_and_the_others_are_written():
  raw = [b'{"inputs": "one"}', b'{"inputs": 3}', b'oops', b'[1]', b'\xff', b'{"inputs": "two", "id": 7}']
  rows, _ = predict(inference.read_lines(raw, jsonl=True))
  assert [row.get('prediction') for row in rows] == ['one', None, None, None, None, 'two']
  for row, told in zip(rows[1:5], ('string under "inputs"', 'not JSON', 'JSON list', 'not UTF-8'), strict=True):
    assert told in row['error'] and json.loads(json.dumps(row)) == row


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text():
  lines = list(inference.read_lines([b'\xef\xbb\xbffirst\r\n', b'second\n', b'last'], jsonl=False))
  assert [line.text for line in lines] == ['first', 'second', 'last']


@pytest.mark.parametrize(
  ('longest', 'expected'), [(16, [16]), (32, [32]), (33, [32, 33]), (512, [32, 64, 128, 256, 512])]
)
def test_buckets_end_with_the_longest(longest, expected):
  assert inference.buckets(longest) == expected
