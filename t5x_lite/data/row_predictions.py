"""How many positions of a row are predicted at most, where the objective tells: a model need compute no more logits."""

from __future__ import annotations

import numpy as np

from t5x_lite.data import packing, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder.features import EncoderTaskFeatures


def most_predictions(config: DatasetConfig) -> int | None:
  """Predicted positions of any row of the stream at most, or None where nothing is known.

  Known where every task is unsupervised and the objective has a method `most_predicted(length)`: the most predictions
  of an example of exactly `length` tokens. Examples that share a row are counted at their worst.
  """
  most_predicted = getattr(config.objective, 'most_predicted', None)
  if most_predicted is None or isinstance(config.features, EncoderTaskFeatures):
    return None
  if any(member.supervised for member in task.tasks(config.mixture_or_task_name)):
    return None
  if config.pack == packing.SPLIT:
    return None  # A piece of an example may have all of its predictions.
  (length,) = config.features.side_lengths(config.task_feature_lengths).values()
  single = np.array([most_predicted(size) for size in range(length + 1)])
  return int(_shared(single)[-1] if config.pack else single.max())


def _shared(single: np.ndarray) -> np.ndarray:
  """Of rows of 0, 1, ... positions: the most that examples make that fit together, each of `single[its length]`."""
  best = np.zeros_like(single)
  for size in range(1, len(single)):
    # The best row without its last example, and that example; or one position that stays empty.
    best[size] = max(best[size - 1], np.max(best[size - 1 :: -1] + single[1 : size + 1]))
  return best
