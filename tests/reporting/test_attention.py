"""Attention maps on the page: those of the folders of runs and those given beside them, within the page's size."""

from __future__ import annotations

import base64
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from t5x_lite.cli.record import may_change
from t5x_lite.core.errors import UsageError
from t5x_lite.reporting import attention, folders, payload

_PATH = pathlib.Path(__file__).with_name('folder_fakes.py')
_SPEC = importlib.util.spec_from_file_location('folder_fakes', _PATH)
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)


def lines(path, texts=1, length=5, seed=0):
  path.write_text(''.join(json.dumps(fakes.attention_row(f'text {n}', length, seed + n)) + '\n' for n in range(texts)))
  return path


def read(*words):
  return payload.FolderReader(folders.find([str(word) for word in words]), may_change).read()['attention']['files']


def values(maps):
  own = np.frombuffer(base64.b64decode(maps['values']), np.uint8)
  return (own.reshape(*maps['shape'][:2], *maps['size']) / 255.0) ** 2


def test_maps_in_the_folder_of_a_run_and_beside_it_are_shown(tmp_path):
  run = fakes.write_run(tmp_path / 'run', [1.0])
  lines(run / 'attention_at_10.jsonl', texts=2)
  (run / 'other.jsonl').write_text('{}\n')
  beside = lines(tmp_path / 'maps.jsonl', seed=7)
  found = read(run, beside)
  assert [(file['run'], file['name'], len(file['texts'])) for file in found] == [
    (0, 'attention_at_10', 2),
    (None, 'maps', 1),
  ]
  (encoder, cross) = found[0]['texts'][0]['maps']
  wanted = fakes.attention_row('text 0', 5, 0)
  np.testing.assert_allclose(values(encoder), wanted['attention']['encoder'], atol=4e-3)
  np.testing.assert_allclose(values(cross), wanted['attention']['cross'], atol=4e-3)
  assert (cross['queries'], cross['keys'], cross['layers']) == ('decoder', 'encoder', (0, 3))
  assert len(read(run, run / 'attention_at_10.jsonl')) == 1  # named twice


def test_a_patch_is_its_largest_probability_and_texts_go_before_maps_become_too_small(tmp_path, monkeypatch):
  monkeypatch.setattr(attention, '_MOST_TEXTS', 3)
  file = attention.read(lines(tmp_path / 'attention.jsonl', texts=4, length=140))
  assert (len(file.texts), file.more) == (3, 1)
  whole = np.asarray(fakes.attention_row('text 0', 140, 0)['attention']['encoder'])
  stacks = 2 * 2 * 2  # with their layers and heads
  for budget, side, texts in ((10**9, 128, 3), (3 * stacks * 32**2, 32, 3), (2 * stacks * 8**2, 8, 2)):
    monkeypatch.setattr(attention, '_BUDGET', budget)
    (shown,) = attention.collect([(0, file)])['files']
    maps = shown['texts'][0]['maps'][0]
    assert (list(maps['size']), len(shown['texts']), shown['more']) == ([side, side], texts, 4 - texts)
    starts = [-(-place * 140 // side) for place in range(side)]
    largest = np.maximum.reduceat(np.maximum.reduceat(whole, starts, axis=2), starts, axis=3)
    np.testing.assert_allclose(values(maps), largest, atol=4e-3)


@pytest.mark.parametrize(
  'line',
  ['', '{"a"', '[]', '{}', '{"tokens": {}, "attention": {"nothing": [1]}, "layers": {"nothing": [0]}}']
  + [
    json.dumps(fakes.attention_row('a', 3, 0) | changed)
    for changed in ({'tokens': {'encoder': ['a'], 'decoder': ['b']}}, {'layers': {}}, {'attention': {}})
  ],
)
def test_a_line_that_is_something_else_is_left_out(tmp_path, line):
  path = tmp_path / 'attention.jsonl'
  path.write_text(f'{line}\n{json.dumps(fakes.attention_row("good", 3, 0))}\n')
  assert [text.shown for text in attention.read(path).texts] == ['good / written']
  path.write_text(line)
  with pytest.raises(UsageError, match='no attention maps'):
    attention.check(path, 'attention.jsonl')


def test_maps_alone_make_no_page(tmp_path):
  with pytest.raises(UsageError, match='expected the folder of a run'):
    folders.find([str(lines(tmp_path / 'maps.jsonl'))])


def test_a_served_page_learns_of_new_maps(tmp_path):
  run = fakes.write_run(tmp_path / 'run', [1.0])
  reader = payload.FolderReader(folders.find([str(run)]), may_change)
  before = reader.read()
  lines(run / 'attention.jsonl')
  assert reader.stamp() != before['stamp'] and not before['attention']['files']
  assert len(reader.read()['attention']['files']) == 1
