"""Probes: they find what is there, not what is not, and the control tells the two apart."""

import numpy as np

from t5x_lite.research import probe_page, probes


def examples(count=240, features=12, classes=3):
  """States of two layers: the first knows nothing of the label, the second all."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, classes, count).astype(np.int32)
  noise = rng.normal(size=(2, count, features)).astype(np.float32)
  noise[1] += 3 * np.eye(classes, features, dtype=np.float32)[labels]
  return noise, labels


def test_a_layer_that_knows_is_told_from_one_that_does_not():
  states, labels = examples()
  is_test = probes.held_out(range(len(labels)), seed=0)
  control = probes.control_labels([str(place) for place in range(len(labels))], labels, seed=0)
  blind, knowing = probes.probe(states, labels, control, is_test)
  assert [blind.layer, knowing.layer] == [0, 1]
  assert blind.accuracy < 0.55 and knowing.accuracy > 0.9
  assert knowing.selectivity > 0.4 and abs(blind.selectivity) < 0.25
  assert knowing.selectivity == knowing.accuracy - knowing.control_accuracy
  page = probe_page.render('<Probe>', [vars(blind), vars(knowing)], {'examples': 240})
  assert '&lt;Probe&gt;' in page and f'{knowing.accuracy:.4f}' in page and '<script' not in page


def test_words_that_repeat_can_be_known_by_heart():
  rng = np.random.default_rng(1)
  types = rng.integers(0, 6, 200)
  states = np.eye(6, dtype=np.float32)[types][None] + rng.normal(scale=0.05, size=(1, 200, 6)).astype(np.float32)
  labels = (types % 2).astype(np.int32)
  control = probes.control_labels([f'word {number}' for number in types], labels, seed=3)
  assert 0 < control.mean() < 1
  (found,) = probes.probe(states, labels, control, probes.held_out(range(200), seed=0))
  assert found.accuracy == found.control_accuracy == 1 and found.selectivity == 0


def test_a_kind_has_one_control_label_and_groups_are_not_cut():
  labels = np.asarray([0, 1, 1, 0, 1, 2], np.int32)
  control = probes.control_labels(['a', 'b', 'a', 'c', 'b', 'a'], labels, seed=5)
  assert control[0] == control[2] == control[5] and control[1] == control[4]
  np.testing.assert_array_equal(control, probes.control_labels(['a', 'b', 'a', 'c', 'b', 'a'], labels, seed=5))
  groups = np.repeat(np.arange(8), 3)
  is_test = probes.held_out(groups, seed=0)
  assert is_test.sum() == 6 and all(len(set(is_test[groups == group])) == 1 for group in range(8))
