"""Shortened series keep their extremes; bands are what NumPy says of the runs."""

from __future__ import annotations

import numpy as np
import pytest

from t5x_lite.reporting.reduction import band, shorten
from t5x_lite.reporting.rows import Series


def series(values, steps=None):
  values = np.asarray(values, np.float64)
  return Series(np.arange(len(values)) * 10 if steps is None else np.asarray(steps), values)


@pytest.mark.parametrize('most', [4, 5, 37, 100, 999])
def test_every_extreme_of_a_bucket_stays(most):
  long = series(np.random.default_rng(most).normal(size=1000))
  short = shorten(long, most)
  assert len(short.steps) <= most
  assert (np.diff(short.steps) > 0).all()
  assert short.steps[0] == 0 and short.steps[-1] == long.steps[-1]
  assert short.values.min() == long.values.min() and short.values.max() == long.values.max()
  np.testing.assert_array_equal(short.values, long.values[short.steps // 10])  # no point that was not there


def test_single_spikes_stay_wherever_they_are():
  for place in (0, 1, 499, 998, 999):
    values = np.zeros(1000)
    values[place] = 100.0
    assert shorten(series(values), 40).values.max() == 100.0


def test_what_is_short_is_left_alone():
  short = series([1.0, 2.0, np.nan])
  assert shorten(short, 4) is short


def test_gaps_stay_and_hide_no_extreme():
  values = np.random.default_rng(0).normal(size=1000)
  values[300:500] = np.nan
  values[::7] = np.nan
  short = shorten(series(values), 50)
  assert np.isnan(short.values[(short.steps > 3200) & (short.steps < 4800)]).all()
  assert np.nanmin(short.values) == np.nanmin(values) and np.nanmax(short.values) == np.nanmax(values)


def test_a_band_is_mean_and_spread_over_runs_at_each_step():
  table = np.random.default_rng(0).normal(size=(3, 50))
  found = band([series(values) for values in table], 100)
  np.testing.assert_array_equal(found.steps, np.arange(50) * 10)
  np.testing.assert_allclose(found.mean, table.mean(axis=0))
  np.testing.assert_allclose(found.deviation, table.std(axis=0, ddof=1))
  np.testing.assert_allclose(found.low, table.min(axis=0))
  np.testing.assert_allclose(found.high, table.max(axis=0))


def test_a_long_band_is_of_the_means_of_its_buckets():
  table = np.random.default_rng(0).normal(size=(3, 1000))
  found = band([series(values) for values in table], 100)
  means = table.reshape(3, 100, 10).mean(axis=2)
  np.testing.assert_allclose(found.mean, means.mean(axis=0))
  np.testing.assert_allclose(found.high, means.max(axis=0))


def test_a_run_that_ended_early_is_left_out_after_its_end():
  found = band([series([1, 1, 1, 1]), series([3, 3])], 100)
  np.testing.assert_array_equal(found.counts, [2, 2, 1, 1])
  np.testing.assert_array_equal(found.mean, [2, 2, 1, 1])
  np.testing.assert_array_equal(found.deviation[2:], 0)


def test_runs_that_log_at_other_steps_are_interpolated_and_never_beyond_their_own():
  found = band([series([0, 20], [0, 20]), series([10, 10], [10, 30])], 100)
  np.testing.assert_array_equal(found.steps, [0, 10, 20, 30])
  np.testing.assert_array_equal(found.mean, [0, 10, 15, 10])
  np.testing.assert_array_equal(found.counts, [1, 2, 2, 1])


def test_a_band_of_nothing_finite_is_empty():
  found = band([series([np.nan, np.nan]), series([np.nan])], 100)
  assert len(found.steps) == 0
