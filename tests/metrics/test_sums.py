"""Sums merge in any grouping, and means come of sums."""

import functools
import math

import numpy as np
import pytest

from t5x_lite.metrics import sums


def batch(loss, weight):
  return {'loss_sum': np.float32(loss), 'correct_sum': np.float32(weight / 2), 'weight_sum': np.float32(weight)}


def test_a_mean_of_batches_counts_tokens_not_batches():
  parts = [batch(10.0, 10.0), batch(2.0, 1.0), batch(0.0, 0.0)]
  total = functools.reduce(sums.add, parts, {})
  assert sums.finalise(total) == {'loss': 12 / 11, 'accuracy': 0.5}
  assert sums.add(parts[0], sums.add(parts[1], parts[2])) == total


def test_sums_of_other_names_do_not_mix():
  with pytest.raises(KeyError, match='z_loss_sum'):
    sums.add(batch(1.0, 1.0), {'z_loss_sum': 1.0})


def test_nothing_weighed_has_no_mean():
  assert math.isnan(sums.finalise(batch(0.0, 0.0))['loss'])


def test_what_is_no_sum_is_left_out():
  assert sums.finalise(batch(1.0, 2.0) | {'tokens': 7.0}).keys() == {'loss', 'accuracy'}


def test_tokens_are_the_positions_of_all_sides_that_are_not_padding():
  sides = {'encoder_segment_ids': np.array([[1, 1, 2, 0]]), 'decoder_segment_ids': np.array([[1, 0, 0]])}
  assert sums.count_tokens(sides) == 4.0
  assert sums.count_tokens({'encoder_segment_ids': sides['encoder_segment_ids']}) == 3.0
