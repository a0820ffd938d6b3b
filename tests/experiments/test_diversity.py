"""What `experiments/recipes/diversity.py` says of texts."""

import importlib.util
import json
import pathlib
import sys

import pytest

FILE = pathlib.Path(__file__).parents[2] / 'experiments' / 'recipes' / 'diversity.py'


@pytest.fixture(scope='module')
def diversity():
  spec = importlib.util.spec_from_file_location('diversity', FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_words_and_pairs_are_counted_over_all_texts(diversity):
  row = {'predictions': ['a b a b', 'a b c'], 'token_scores': [[-1.0, -2.0], [-3.0]]}
  found = diversity.measure([row])
  assert found['distinct-1'] == pytest.approx(100 * 3 / 7)
  assert found['distinct-2'] == pytest.approx(100 * 3 / 5)  # ab, ba, bc of ab, ba, ab, ab, bc
  assert found['repeated-2'] == pytest.approx((100 / 3 + 0) / 2)
  assert found['texts'] == 100.0 and found['log p'] == pytest.approx(-2.0)


def test_one_text_a_row_and_no_scores(diversity):
  found = diversity.measure([{'prediction': 'x y', 'token_scores': [-1.0]}, {'prediction': 'x y'}, {'error': 'bad'}])
  assert found['texts'] == 50.0 and found['distinct-2'] == 50.0 and found['log p'] == -1.0
  assert diversity.measure([{'prediction': 'alone'}])['log p'] is None
  with pytest.raises(SystemExit, match='no texts'):
    diversity.measure([{'error': 'bad'}])


def test_a_row_of_the_table_for_each_file(diversity, tmp_path, monkeypatch, capsys):
  for name, text in (('greedy', 'a a a'), ('sample', 'a b c')):
    (tmp_path / f'{name}.jsonl').write_text(json.dumps({'prediction': text}) + '\n')
  monkeypatch.setattr(sys, 'argv', ['diversity.py', str(tmp_path / 'greedy.jsonl'), str(tmp_path / 'sample.jsonl')])
  diversity.main()
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == '| | distinct-1 | distinct-2 | repeated-2 | texts | log p |'
  assert lines[2].startswith('| greedy | 33.3 | 50.0 | 50.0 |') and lines[3].startswith('| sample | 100.0 |')
