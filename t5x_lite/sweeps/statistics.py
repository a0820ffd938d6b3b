"""The statistics of a comparison: summaries, differences with intervals, correction for many arms, seeds needed.

Student 1908; Welch 1947; Holm 1979, "A simple sequentially rejective multiple test procedure"; Efron & Tibshirani 1993,
"An Introduction to the Bootstrap", chapter 13. Only NumPy and the distribution functions of `scipy.special`.

What is concluded rests on t. The bootstrap's interval is the percentile one, and stands beside it: of n = 3 pairs it is
never wider than from the least to the largest difference, which holds the true one in 1 - 2 (1/2)^3 = 75 % of cases
where 95 % are meant.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

PAIRED, UNPAIRED = 'paired', 'unpaired'
MOST_SEEDS = 1000  # that `seeds_needed` considers

_RESAMPLES = 9999
_POINTS = 2000  # of the integral over spreads
_RESOLUTION = 1e-6  # relative, of float32: a spread below it is none


@dataclasses.dataclass(frozen=True)
class Summary:
  """The values of one metric in one arm.

  Attributes:
    runs: how many there are.
    mean: of them; None of none.
    deviation: the standard deviation, with n - 1; None of fewer than two.
  """

  runs: int
  mean: float | None = None
  deviation: float | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
  """How far an arm is from the baseline: arm minus baseline.

  Attributes:
    kind: `PAIRED` by seed (Student), or `UNPAIRED` (Welch).
    runs: pairs, or the runs of the arm and of the baseline.
    mean: of the difference.
    spread: standard deviation of the paired differences, or the root of the sum of both variances; None of one run.
    interval: of t, at level 1 - alpha, for this arm alone; None where there is no spread to estimate it from.
    bootstrap: of the percentiles of resampled means, at the same level; None of one run.
    p: two-sided, for this arm alone; None of one run.
    without_spread: whether all differences are the same one, or all values of each arm. t has no denominator then, and
      p is that of the exact test that flips signs, 2^(1-n), or regroups the runs; 1 where there is no difference.
  """

  kind: str
  runs: tuple[int, ...]
  mean: float
  spread: float | None = None
  interval: tuple[float, float] | None = None
  bootstrap: tuple[float, float] | None = None
  p: float | None = None
  without_spread: bool = False


def summarise(values: Sequence[float]) -> Summary:
  """Number, mean and standard deviation of values, none of which may be needed."""
  if not len(values):
    return Summary(0)
  array = np.asarray(values, np.float64)
  return Summary(len(array), float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)


def paired_difference(arm: Sequence[float], baseline: Sequence[float], alpha: float = 0.05) -> Difference:
  """The difference of runs that are paired, as by their seeds: the test of Student on the differences.

  Args:
    arm: values of its runs.
    baseline: of the baseline's, in the same order, and at least one.
    alpha: 1 - alpha is the level of the intervals.
  """
  ours, theirs = np.asarray(arm, np.float64), np.asarray(baseline, np.float64)
  differences = ours - theirs
  count, mean = len(differences), float(differences.mean())
  if count < 2:
    return Difference(PAIRED, (count,), mean)
  spread = float(differences.std(ddof=1))
  between = _percentiles(_resampled_means(differences), alpha)
  if spread <= _tolerance(ours, theirs):
    same = abs(mean) <= _tolerance(ours, theirs)
    p = 1.0 if same else 2.0 ** (1 - count)
    return Difference(PAIRED, (count,), mean, spread, None, between, p, without_spread=True)
  error, freedom = spread / math.sqrt(count), count - 1
  interval, p = _by_t(mean, error, freedom, alpha)
  return Difference(PAIRED, (count,), mean, spread, interval, between, p)


def unpaired_difference(arm: Sequence[float], baseline: Sequence[float], alpha: float = 0.05) -> Difference:
  """The difference of runs that are not paired: Welch's test.

  Args:
    arm: values of its runs, at least one.
    baseline: of the baseline's, at least one.
    alpha: 1 - alpha is the level of the intervals.
  """
  ours, theirs = np.asarray(arm, np.float64), np.asarray(baseline, np.float64)
  runs, mean = (len(ours), len(theirs)), float(ours.mean() - theirs.mean())
  if min(runs) < 2:
    return Difference(UNPAIRED, runs, mean)
  variances = float(ours.var(ddof=1)), float(theirs.var(ddof=1))
  spread = math.sqrt(sum(variances))
  between = _percentiles(_resampled_means(ours) - _resampled_means(theirs, seed=1), alpha)
  if spread <= _tolerance(ours, theirs):
    same = abs(mean) <= _tolerance(ours, theirs)
    p = 1.0 if same else _exact_unpaired(*runs)
    return Difference(UNPAIRED, runs, mean, spread, None, between, p, without_spread=True)
  shares = [variance / count for variance, count in zip(variances, runs, strict=True)]
  freedom = sum(shares) ** 2 / sum(share**2 / (count - 1) for share, count in zip(shares, runs, strict=True))
  interval, p = _by_t(mean, math.sqrt(sum(shares)), freedom, alpha)
  return Difference(UNPAIRED, runs, mean, spread, interval, between, p)


def holm(p_values: Sequence[float]) -> list[float]:
  """p values adjusted for how many there are (Holm 1979): each may be compared with alpha by itself.

  The chance of any false rejection among them is at most alpha, however they depend on each other.
  """
  count = len(p_values)
  adjusted, largest = [1.0] * count, 0.0
  for rank, index in enumerate(sorted(range(count), key=lambda each: p_values[each])):
    largest = max(largest, min(1.0, (count - rank) * p_values[index]))
    adjusted[index] = largest
  return adjusted


def power(effect: float, seeds: int, alpha: float = 0.05, *, kind: str = PAIRED) -> float:
  """The chance that the two-sided test of t rejects: of the noncentral t (Cohen 1988, chapter 2).

  It is computed as what that is, a shifted normal by the root of a chi-square: `special.nctdtr` and `scipy.stats.nct`
  are not numbers far from the middle.

  Args:
    effect: true difference by `Difference.spread`.
    seeds: of the arm and of the baseline.
    alpha: level of the test.
    kind: `PAIRED`, or `UNPAIRED` with equal variances.
  """
  if seeds < 2:
    return 0.0
  freedom = (seeds - 1) * (1 if kind == PAIRED else 2)
  shift, threshold = effect * math.sqrt(seeds), special.stdtrit(freedom, 1 - alpha / 2) * _chi(freedom)
  return float(np.mean(special.ndtr(shift - threshold) + special.ndtr(-shift - threshold)))


def seeds_needed(difference: Difference, alpha: float = 0.05, wanted_power: float = 0.8) -> int | None:
  """How many seeds an experiment needs that would tell a difference as large as the one observed.

  It is as rough as the spread that it is made of.

  Args:
    difference: the one observed.
    alpha: level of the test, already divided by the number of arms that it is shared with.
    wanted_power: how surely it is to tell.

  Returns:
    The number; None where there is no difference, no spread to judge it by, or more than `MOST_SEEDS` are needed.
  """
  if not difference.spread and not difference.without_spread:
    return None
  if difference.without_spread and difference.p == 1.0:
    return None

  def enough(seeds: int) -> bool:
    if difference.without_spread:  # The exact tests are sure, as soon as there are enough runs for them.
      return (2.0 ** (1 - seeds) if difference.kind == PAIRED else _exact_unpaired(seeds, seeds)) <= alpha
    assert difference.spread
    return power(difference.mean / difference.spread, seeds, alpha, kind=difference.kind) >= wanted_power

  if not enough(MOST_SEEDS):
    return None
  low, high = 1, MOST_SEEDS  # not enough, enough
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if enough(middle) else (middle, high)
  return high


def _by_t(mean: float, error: float, freedom: float, alpha: float) -> tuple[tuple[float, float], float]:
  """The interval, and p, of a mean with a standard error."""
  half = float(special.stdtrit(freedom, 1 - alpha / 2)) * error
  return (mean - half, mean + half), float(2 * special.stdtr(freedom, -abs(mean) / error))


def _exact_unpaired(ours: int, theirs: int) -> float:
  """The share of regroupings of two groups of equal values whose difference is as large as it can be."""
  return min(1.0, (2 if ours == theirs else 1) / math.comb(ours + theirs, ours))


def _tolerance(*values: np.ndarray) -> float:
  return _RESOLUTION * max(float(np.abs(each).max()) for each in values)


def _percentiles(means: np.ndarray, alpha: float) -> tuple[float, float]:
  low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
  return float(low), float(high)


def _resampled_means(values: np.ndarray, seed: int = 0) -> np.ndarray:
  return np.asarray(values[_resamples(len(values), seed)].mean(axis=1))


@functools.lru_cache(maxsize=256)
def _chi(freedom: int) -> np.ndarray:
  """Equally likely values of a sample's standard deviation, where the true one is 1."""
  middles = (np.arange(_POINTS) + 0.5) / _POINTS
  return np.asarray(np.sqrt(special.chdtri(freedom, middles) / freedom))


@functools.lru_cache(maxsize=8)
def _resamples(count: int, seed: int) -> np.ndarray:
  """Indices `[resamples, count]`: always the same, so that a table is the same whenever it is made."""
  return np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
