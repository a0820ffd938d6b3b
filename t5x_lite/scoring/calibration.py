"""Whether a model is right as often as it is sure: reliability bins, expected calibration error; confusion matrices.

Sources: Guo et al. 2017 (On Calibration of Modern Neural Networks), section 2, and Naeini et al. 2015, for the bins and
the error. Counts and figures of labels are those of scikit-learn's `confusion_matrix` and
`precision_recall_fscore_support`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Bin:
  """Predictions of like confidence.

  Attributes:
    low: the confidence that all are above, except those at 0.
    high: and at most at.
    count: how many there are.
    confidence: their mean confidence; NaN of none.
    accuracy: the share of them that is right; NaN of none.
  """

  low: float
  high: float
  count: int
  confidence: float
  accuracy: float


def reliability(confidences: Sequence[float], right: Sequence[bool], num_bins: int = 10) -> list[Bin]:
  """Bins of equal width, `(low, high]` each.

  Args:
    confidences: the probability of each prediction, from 0 to 1.
    right: whether it is right.
    num_bins: at least 1.
  """
  sure, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
  edges = np.linspace(0.0, 1.0, num_bins + 1)
  places = np.clip(np.searchsorted(edges, sure, side='left') - 1, 0, num_bins - 1)
  found = []
  for number in range(num_bins):
    own = places == number
    means = (float(sure[own].mean()), float(hits[own].mean())) if own.any() else (float('nan'), float('nan'))
    found.append(Bin(float(edges[number]), float(edges[number + 1]), int(own.sum()), *means))
  return found


def expected_error(bins: Sequence[Bin]) -> float:
  """The mean distance of confidence and accuracy over all predictions, from 0 to 1; NaN of none."""
  total = sum(own.count for own in bins)
  if not total:
    return float('nan')
  return sum(own.count * abs(own.confidence - own.accuracy) for own in bins if own.count) / total


def confusion(references: Sequence[int], predictions: Sequence[int], num_labels: int) -> np.ndarray:
  """Counts, int64 `[num_labels, num_labels + 1]`: reference by prediction, of which the last column is no label."""
  counts = np.zeros((num_labels, num_labels + 1), np.int64)
  predicted = np.asarray(predictions, np.int64)
  predicted = np.where((predicted >= 0) & (predicted < num_labels), predicted, num_labels)
  np.add.at(counts, (np.asarray(references, np.int64), predicted), 1)
  return counts


@dataclasses.dataclass(frozen=True)
class LabelFigures:
  """Of one label, in percent; 0 where one divides by nothing.

  Attributes:
    precision: of the predictions of it, those that are right.
    recall: of its examples, those that are found.
    f1: the harmonic mean of both.
    count: of its examples.
  """

  precision: float
  recall: float
  f1: float
  count: int


def label_figures(counts: np.ndarray) -> list[LabelFigures]:
  """For each label, of the counts of `confusion`."""
  found = []
  for label in range(len(counts)):
    hits, predicted, actual = int(counts[label, label]), int(counts[:, label].sum()), int(counts[label].sum())
    precision, recall = 100.0 * hits / predicted if predicted else 0.0, 100.0 * hits / actual if actual else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    found.append(LabelFigures(precision, recall, f1, actual))
  return found
