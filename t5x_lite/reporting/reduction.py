"""Makes long series short without losing their spikes, and means over seeds with their spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from t5x_lite.reporting.rows import Series


def shorten(series: Series, most: int) -> Series:
  """At most `most` (4 or more) of the points: of each bucket the least and the greatest, and the first and the last.

  Unlike a mean, or every n-th point, it keeps each extreme; Steinarsson 2013, chapter 4, has min-max beside LTTB, which
  may drop one. Where a whole bucket is not finite one such point stays, so that the gap can be seen.
  """
  length = len(series.steps)
  if length <= most:
    return series
  starts = np.linspace(0, length, (most - 2) // 2, endpoint=False).astype(np.int64)
  finite = np.isfinite(series.values)
  low = _argmin(np.where(finite, series.values, np.inf), starts)
  high = _argmin(np.where(finite, -series.values, np.inf), starts)
  places = np.unique(np.concatenate([[0], low, high, [length - 1]]))
  return Series(series.steps[places], series.values[places])


def _argmin(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """Where the least value of each bucket is, the first of several; `starts` are the buckets' beginnings."""
  least = np.minimum.reduceat(values, starts)
  lengths = np.diff(np.append(starts, len(values)))
  hits = np.flatnonzero(values == np.repeat(least, lengths))
  _, first = np.unique(np.searchsorted(starts, hits, side='right'), return_index=True)
  return hits[first]


@dataclasses.dataclass(frozen=True)
class Band:
  """A metric over the runs of an arm.

  Attributes:
    steps: int64 `[N]`.
    mean, low, high, deviation: float64 `[N]`, over the runs; the deviation is that of a sample, 0 for a single run.
    counts: int64 `[N]`, how many runs there were.
  """

  steps: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray
  deviation: np.ndarray
  counts: np.ndarray


def band(runs: Sequence[Series], most: int) -> Band:
  """Mean and spread over runs.

  Steps are taken together in at most `most` buckets, and the values of a run in a bucket as their mean. A run without a
  value in a bucket is interpolated between its own steps, and left out before and after them.
  """
  every = _every_step(runs)
  size = -(-len(every) // most)
  starts = np.arange(0, len(every), size)
  steps = np.round(np.add.reduceat(every, starts) / np.diff(np.append(starts, len(every)))).astype(np.int64)
  table = np.stack([_means(run, every[starts], steps) for run in runs])
  counts = np.isfinite(table).sum(axis=0)
  kept = counts > 0
  steps, table, counts = steps[kept], table[:, kept], counts[kept]
  mean = np.nansum(table, axis=0) / counts
  squares = np.nansum((table - mean) ** 2, axis=0)
  deviation = np.sqrt(squares / np.maximum(counts - 1, 1))
  low, high = (function.reduce(table, axis=0) for function in (np.fmin, np.fmax))
  return Band(steps, mean, low, high, deviation, counts)


def _every_step(runs: Sequence[Series]) -> np.ndarray:
  """The steps of all runs, increasing. Most often all have the same; and NumPy's `unique` is slower than to sort."""
  first = runs[0].steps
  if all(np.array_equal(first, run.steps) for run in runs[1:]):
    return first
  every = np.sort(np.concatenate([run.steps for run in runs]))
  return every[np.append(True, np.diff(every) > 0)]


def _means(run: Series, starts: np.ndarray, steps: np.ndarray) -> np.ndarray:
  """The mean of a run's finite values in each bucket; NaN outside of its steps.

  Args:
    run: its series.
    starts: the first step of each bucket.
    steps: the step that stands for each bucket.
  """
  finite = np.isfinite(run.values)
  own, values = run.steps[finite], run.values[finite]
  if not len(own):
    return np.full(len(starts), np.nan)
  buckets = np.searchsorted(starts, own, side='right') - 1
  counts = np.bincount(buckets, minlength=len(starts))
  sums = np.bincount(buckets, weights=values, minlength=len(starts))
  means = np.interp(steps, own, values, left=np.nan, right=np.nan)
  means[counts > 0] = sums[counts > 0] / counts[counts > 0]
  return means
