"""Metrics as columns: what is broken is left out, by either reader."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from t5x_lite.reporting import rows


def write(folder, text):
  (folder / 'metrics.jsonl').write_text(text)
  return rows.read_metrics(folder).series


def line(**row):
  return json.dumps({'split': 'train', **row}) + '\n'


@pytest.fixture(params=['json', 'arrow'])
def reader(request, monkeypatch):
  monkeypatch.setattr(rows, '_LARGE', 1 << 40 if request.param == 'json' else 0)
  return request.param


def test_series_are_those_of_splits_and_tasks(tmp_path, reader):
  text = line(step=1, loss=2.5, starved=0) + line(step=2, loss=2) + line(split='validation', task='a', step=2, loss=3.5)
  series = write(tmp_path, text + line(split='validation', task='b', step=2, score=1, what='words'))
  assert set(series) == {
    *(('train', '', name) for name in ('loss', 'starved')),
    *(('validation', 'a', 'loss'), ('validation', 'b', 'score')),
    *((('validation', 'b', 'loss'),)),
  }
  np.testing.assert_array_equal(series['train', '', 'loss'].values, [2.5, 2.0])
  np.testing.assert_array_equal(series['validation', 'a', 'loss'].steps, [2])


def test_a_half_written_last_line_is_left_out(tmp_path, reader):
  whole = line(step=1, loss=2.5) + line(step=2, loss=2.25)
  for cut in range(len(whole) - len(line(step=2, loss=2.25)), len(whole)):
    np.testing.assert_array_equal(write(tmp_path, whole[:cut])['train', '', 'loss'].steps, [1])


@pytest.mark.parametrize('broken', ['{"split": "train", "st\n', '\n', '[1]\n', '\0\0\n', '{"split": "train"}\n', '7\n'])
def test_a_broken_line_costs_no_other(tmp_path, broken, reader):
  series = write(tmp_path, line(step=1, loss=2.5) + broken + line(step=2, loss=2.25))
  np.testing.assert_array_equal(series['train', '', 'loss'].values, [2.5, 2.25])


def test_a_loss_that_is_not_finite_leaves_a_gap_and_other_nulls_leave_none(tmp_path, reader):
  text = ''.join(line(step=n, loss=None if n == 2 else 1.0, mfu=None if n == 1 else 0.5) for n in (1, 2, 3))
  series = write(tmp_path, text)
  np.testing.assert_array_equal(series['train', '', 'loss'].values, [1.0, np.nan, 1.0])
  np.testing.assert_array_equal(series['train', '', 'mfu'].steps, [2, 3])


def test_of_a_step_told_twice_the_last_row_counts(tmp_path, reader):
  series = write(tmp_path, ''.join(line(step=step, loss=loss) for step, loss in ((1, 9), (2, 8), (1, 7), (3, 6))))
  np.testing.assert_array_equal(series['train', '', 'loss'].steps, [1, 2, 3])
  np.testing.assert_array_equal(series['train', '', 'loss'].values, [7, 8, 6])


def test_both_readers_read_the_same(tmp_path, monkeypatch):
  rng = random.Random(0)
  names = ('loss', 'b', 'c')
  text = ''.join(
    line(step=n, **{name: rng.choice((None, n, rng.random())) for name in rng.sample(names, rng.randint(0, 3))})
    for n in range(200)
  )
  found = []
  for large in (0, 1 << 40):
    monkeypatch.setattr(rows, '_LARGE', large)
    found.append(write(tmp_path, text))
  assert found[0].keys() == found[1].keys()
  for key in found[0]:
    np.testing.assert_array_equal(found[0][key].steps, found[1][key].steps)
    np.testing.assert_array_equal(found[0][key].values, found[1][key].values)


def test_no_file_is_no_metrics(tmp_path):
  assert rows.read_metrics(tmp_path).series == {} and rows.read_samples(tmp_path) == []
