import math

import numpy as np
import pytest
from scipy import stats

from t5x_lite.sweeps import statistics
from t5x_lite.sweeps.statistics import PAIRED, UNPAIRED

_RNG = np.random.default_rng(7)
_PAIRS = [(_RNG.normal(3.0, 0.1, size), _RNG.normal(3.05, 0.1, size)) for size in (2, 3, 5, 12)]


@pytest.mark.parametrize('arm, baseline', _PAIRS)
def test_paired_differences_are_those_of_scipy(arm, baseline):
  found = statistics.paired_difference(arm, baseline, alpha=0.1)
  expected = stats.ttest_rel(arm, baseline)
  interval = stats.ttest_1samp(arm - baseline, 0.0).confidence_interval(0.9)
  assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
  assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
  assert found.mean == pytest.approx(arm.mean() - baseline.mean())
  assert (found.kind, found.runs) == (PAIRED, (len(arm),))


@pytest.mark.parametrize('sizes', [(2, 3), (3, 3), (8, 4)])
def test_unpaired_differences_are_those_of_scipy(sizes):
  arm, baseline = _RNG.normal(0.0, 1.0, sizes[0]), _RNG.normal(1.0, 3.0, sizes[1])
  found = statistics.unpaired_difference(arm, baseline)
  expected = stats.ttest_ind(arm, baseline, equal_var=False)
  interval = expected.confidence_interval(0.95)
  assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
  assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
  assert (found.kind, found.runs) == (UNPAIRED, sizes)


def test_the_bootstrap_is_that_of_scipy_and_always_the_same():
  arm, baseline = _PAIRS[3]
  found = statistics.paired_difference(arm, baseline)
  expected = stats.bootstrap((arm - baseline,), np.mean, method='percentile', rng=np.random.default_rng(1))
  width = found.bootstrap[1] - found.bootstrap[0]
  np.testing.assert_allclose(found.bootstrap, expected.confidence_interval, atol=0.03 * width)
  assert statistics.paired_difference(arm, baseline).bootstrap == found.bootstrap


def test_summaries():
  assert statistics.summarise([]) == statistics.Summary(0)
  assert statistics.summarise([2.0]) == statistics.Summary(1, 2.0)
  found = statistics.summarise([1.0, 2.0, 6.0])
  assert (found.runs, found.mean) == (3, 3.0)
  assert found.deviation == pytest.approx(math.sqrt(7.0))


def test_one_seed_has_no_interval():
  found = statistics.paired_difference([1.0], [2.0])
  assert (found.mean, found.interval, found.bootstrap, found.p) == (-1.0, None, None, None)
  assert statistics.seeds_needed(found) is None
  assert statistics.unpaired_difference([1.0], [2.0, 3.0]).p is None


@pytest.mark.parametrize('seeds, p', [(2, 0.5), (3, 0.25), (6, 0.03125)])
def test_equal_differences_are_judged_by_their_signs_alone(seeds, p):
  baseline = np.linspace(0.81, 0.9, seeds).astype(np.float32)
  found = statistics.paired_difference(baseline + np.float32(0.01), baseline)
  assert found.without_spread and found.interval is None
  assert found.p == p
  assert statistics.seeds_needed(found, alpha=0.05) == 6


def test_no_difference_at_all():
  found = statistics.paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
  assert (found.p, found.mean, found.without_spread) == (1.0, 0.0, True)
  assert statistics.seeds_needed(found) is None


def test_unpaired_groups_without_spread_are_regrouped():
  found = statistics.unpaired_difference([1.0] * 4, [2.0] * 4)
  assert found.p == pytest.approx(2 / 70)
  assert statistics.seeds_needed(found, alpha=0.05) == 4
  assert statistics.unpaired_difference([1.0] * 2, [2.0] * 3).p == pytest.approx(1 / 10)


def test_holm():
  # By hand: 4 * 0.01, then 3 * 0.02, 2 * 0.03 and 1 * 0.9.
  assert statistics.holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
  assert statistics.holm([0.5, 0.6]) == [1.0, 1.0]
  assert statistics.holm([]) == []


@pytest.mark.parametrize('effect', [0.1, 0.5, 1.0, 2.5])
@pytest.mark.parametrize('seeds', [2, 3, 6, 15])
def test_power_is_that_of_the_noncentral_t(effect, seeds):
  freedom, shift = seeds - 1, effect * math.sqrt(seeds)
  critical = stats.t.ppf(0.975, freedom)
  expected = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
  assert statistics.power(effect, seeds) == pytest.approx(expected, abs=1e-4)
  assert statistics.power(-effect, seeds) == pytest.approx(statistics.power(effect, seeds))


@pytest.mark.parametrize('kind', [PAIRED, UNPAIRED])
def test_power_is_how_often_a_difference_is_told(kind):
  effect, seeds, sweeps = 1.2, 5, 40_000
  rng = np.random.default_rng(0)
  if kind == PAIRED:
    p = stats.ttest_1samp(rng.normal(effect, 1.0, (sweeps, seeds)), 0.0, axis=1).pvalue
  else:  # The spread of a difference is 1 here, too.
    arm, baseline = rng.normal(0.0, math.sqrt(0.5), (2, sweeps, seeds))
    p = stats.ttest_ind(arm + effect, baseline, axis=1).pvalue
  assert (p <= 0.05).mean() == pytest.approx(statistics.power(effect, seeds, kind=kind), abs=0.01)


@pytest.mark.parametrize('kind', [PAIRED, UNPAIRED])
@pytest.mark.parametrize('mean', [0.03, 0.1, 0.5, 5.0, 80.0])
def test_so_many_seeds_are_the_least_that_tell(kind, mean):
  found = statistics.Difference(kind, (3,), mean, spread=0.2)
  needed = statistics.seeds_needed(found, alpha=0.01)
  assert statistics.power(mean / 0.2, needed, 0.01, kind=kind) >= 0.8
  assert statistics.power(mean / 0.2, needed - 1, 0.01, kind=kind) < 0.8


def test_more_seeds_than_anybody_has_are_not_counted():
  assert statistics.seeds_needed(statistics.Difference(PAIRED, (3,), 1e-3, spread=1.0)) is None


def test_coverage_of_the_intervals():
  rng = np.random.default_rng(3)
  truth, sweeps = 0.3, 600
  held = {'interval': 0, 'bootstrap': 0}
  for arm, baseline in rng.normal(0.0, 1.0, (sweeps, 2, 3)):
    found = statistics.paired_difference(arm + truth, baseline)
    for name in held:
      low, high = getattr(found, name)
      held[name] += low <= truth <= high
  assert held['interval'] / sweeps == pytest.approx(0.95, abs=0.027)  # three standard errors
  assert held['bootstrap'] / sweeps == pytest.approx(0.75, abs=0.053)  # as the module says


@pytest.mark.parametrize('arms', [1, 2, 5, 20])
def test_holm_keeps_the_chance_of_any_false_verdict(arms):
  """Sweeps of which no arm differs; all are compared with one baseline, so that they depend on each other."""
  sweeps, alpha = 8000, 0.05
  rng = np.random.default_rng(arms)
  values = rng.normal(size=(sweeps, arms + 1, 3)) + rng.normal(size=(sweeps, 1, 3))
  found = stats.ttest_1samp(values[:, 1:] - values[:, :1], 0.0, axis=2)
  adjusted = np.array([statistics.holm(p) for p in found.pvalue.tolist()])
  told = adjusted <= alpha
  error = 3 * (alpha * (1 - alpha) / sweeps) ** 0.5
  assert told.any(axis=1).mean() <= alpha + error
  assert (told & (found.statistic < 0)).any(axis=1).mean() <= alpha / 2 + error  # `better`, of a loss
  if arms == 1:
    assert told.mean() >= alpha - error  # nor is the test blind
