"""How many positions of a row are predicted at most, where the objective tells: a model need compute no more logits.

Where rows are filled first fit, that is what one example as long as the row has: others share a row only as long as
they have no more together (see `packing.FirstFitPacker`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from t5x_lite.data import packing, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.features import FeatureConverter


def most_predictions(config: DatasetConfig) -> int | None:
  """Predicted positions of any row of the stream at most, or None where nothing is known.

  Known where every task is unsupervised and the objective has a method `most_predicted(length)`: the most predictions
  of an example of exactly `length` tokens. Where rows are not filled first fit, examples count at their worst.
  """
  if any(member.supervised for member in task.tasks(config.mixture_or_task_name)):
    return None
  if config.pack == packing.SPLIT:
    return None  # A piece of an example may have all of its predictions.
  worst = config.pack == packing.FILL
  return most_predicted(config.objective, config.features, config.task_feature_lengths, worst=worst)


def most_predicted(
  objective: Any, features: FeatureConverter, task_feature_lengths: Mapping[str, int], *, worst: bool = False
) -> int | None:
  """The same of rows of unsupervised examples, from the objective alone; `worst`: of any examples that fit together."""
  of_example = getattr(objective, 'most_predicted', None)
  if of_example is None or isinstance(features, EncoderTaskFeatures):
    return None
  (length,) = features.side_lengths(task_feature_lengths).values()
  single = np.array([of_example(size) for size in range(length + 1)])
  return int(_shared(single)[-1] if worst else single.max())


def _shared(single: np.ndarray) -> np.ndarray:
  """Of rows of 0, 1, ... positions: the most that examples make that fit together, each of `single[its length]`."""
  best = np.zeros_like(single)
  for size in range(1, len(single)):
    # The best row without its last example, and that example; or one position that stays empty.
    best[size] = max(best[size - 1], np.max(best[size - 1 :: -1] + single[1 : size + 1]))
  return best
