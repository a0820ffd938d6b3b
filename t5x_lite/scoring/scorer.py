"""Scores a model on the held-out split of one task with the task's own metrics."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.metrics import registry
from t5x_lite.scoring import items as items_lib
from t5x_lite.scoring.heads import HeadPredictor
from t5x_lite.scoring.items import Item, Prediction
from t5x_lite.scoring.texts import RankPredictor, TextPredictor
from t5x_lite.training.steps import Trainer

PREFIX = 'score/'  # of the names of metrics in the log


class Scorer:
  """Predicts every example of a split, each once and in order, and scores the predictions.

  The items are read when they are first needed, and kept. Every process has the same and gets all predictions, so that
  a metric is computed over exactly the split, whatever the batches and processes.

  Args:
    trainer: whose model and mesh are used.
    config: of the one task: split, features, lengths, tokenizer and batch size.
    rank: whether a model that writes chooses among the task's labels by their likelihood.
    limit: of records; None: all.
  """

  def __init__(self, trainer: Trainer, config: DatasetConfig, *, rank: bool = False, limit: int | None = None):
    (self.task,) = tasks.tasks(config.mixture_or_task_name)
    if not items_lib.can_predict(self.task, config):
      raise errors.UsageError(
        f'task {self.task.name!r} has nothing that a model with {type(config.features).__name__} could answer'
      )
    self.metrics = items_lib.metrics_of(self.task, config)
    for name in self.metrics:
      if name in registry.names():
        registry.get(name)([], [])  # a package that is missing is told now, not after a thousand steps
    self._config, self._limit = config, limit
    self._predict: HeadPredictor | RankPredictor | TextPredictor
    if isinstance(config.features, EncoderTaskFeatures):
      if rank:
        raise errors.UsageError('rank_classification is for models that write: a head ranks its labels anyway')
      self._predict = HeadPredictor(trainer, config, self.task)
    else:
      self._predict = (RankPredictor if rank else TextPredictor)(trainer, config, self.task)

  @functools.cached_property
  def items(self) -> list[Item]:
    """What is predicted."""
    return items_lib.read(self.task, self._config, self._limit)

  def predict(self, params: Any) -> list[Prediction]:
    """A prediction for each of `items`."""
    return self._predict(params, self.items)

  def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
    """The task's metrics, `score/` before each name; and `score`, their mean. Nothing where no reference is known."""
    found = items_lib.score(self.metrics, self.items, predictions)
    return {name if name == 'score' else PREFIX + name: value for name, value in found.items()}
