"""Held-out evaluation of a run: the loss on every task, and what the model makes of some of its examples."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from t5x_lite import predictions
from t5x_lite.core import errors
from t5x_lite.data import dataset_config, pipeline, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.partitioning import sharding
from t5x_lite.scoring import items
from t5x_lite.scoring.scorer import Scorer
from t5x_lite.training import evaluate as evaluate_lib
from t5x_lite.training import processes
from t5x_lite.training.samples import Sample
from t5x_lite.training.steps import Trainer


def check_values(eval_steps: int | None, num_samples: int) -> None:
  """Raises UsageError for numbers that only the first evaluation would stumble over."""
  if eval_steps is not None and eval_steps < 1:
    raise errors.UsageError(f'eval_steps={eval_steps}: expected at least 1, or None for all batches')
  if num_samples < 0:
    raise errors.UsageError(f'num_samples={num_samples}: expected at least 0')


class HeldOut:
  """The held-out data of a run, each task of a mixture by itself.

  Attributes:
    split: what it is read from, such as 'validation'.

  Args:
    trainer: whose `eval_step` and mesh are used.
    config: the held-out data: one pass, not shuffled.
    eval_steps: batches of a task's evaluation; None: all of them.
    num_samples: predictions per task.
    score: whether the tasks' own metrics are computed, of predictions for the whole split.
    progress: called for every batch, and before and after what a model is made to predict.
  """

  def __init__(
    self,
    trainer: Trainer,
    config: DatasetConfig,
    *,
    eval_steps: int | None,
    num_samples: int,
    score: bool = False,
    progress: Callable[[], None] = lambda: None,
  ):
    self.split = config.split
    self._trainer = trainer
    self._eval_steps = eval_steps
    self._num_samples = num_samples
    self._progress = progress
    self._tasks = dataset_config.of_each_task(config)
    self._scorers = {
      name: Scorer(trainer, own)
      for name, own in self._tasks.items()
      if score and items.is_scored(task.tasks(own.mixture_or_task_name)[0], own)
    }
    self._entropy: dict[str, float] = {}
    self._examples: dict[str, dict[str, np.ndarray]] = {}
    self._predictor = predictions.predictor(trainer.learner.module, config)
    for own in self._tasks.values():  # what is not there is told before training, not after a thousand steps
      pipeline.build(own).close()

  def evaluate(self, params: Any) -> dict[str, dict[str, float]]:
    """Metrics by task, those of its own with `score/` before their names, `score` their mean.

    `unigram_entropy` is what the best model without any context would have as its loss.
    """
    return {name: self._evaluate(name, params) | self._score(name, params) for name in self._tasks}

  def _score(self, name: str, params: Any) -> dict[str, float]:
    """The task's own metrics, where it has some that a model of this kind is scored with."""
    if name not in self._scorers:
      return {}
    scorer = self._scorers[name]
    self._progress()
    scores = scorer.score(scorer.predict(params))
    self._progress()
    return scores

  def _evaluate(self, name: str, params: Any) -> dict[str, float]:
    config, trainer = self._tasks[name], self._trainer
    labelled = isinstance(config.features, EncoderTaskFeatures)
    batches = pipeline.build(config, rows=trainer.process_rows(config.batch_size))
    shard = functools.partial(trainer.shard_batch, global_batch=config.batch_size)
    try:
      rows = self._counted(batches)
      metrics = evaluate_lib.evaluate(trainer.eval_step, params, rows, shard, max_steps=self._eval_steps)
    finally:
      batches.close()
    if labelled:
      return metrics
    if name not in self._entropy:
      self._entropy[name] = processes.made_by_primary(lambda: self._unigram_entropy(config))
    return metrics | {'unigram_entropy': self._entropy[name]}

  def _unigram_entropy(self, config: DatasetConfig) -> float:
    """Of all rows, which none of several processes has otherwise read."""
    with contextlib.closing(pipeline.build(config)) as batches:
      return evaluate_lib.unigram_entropy(self._counted(batches), max_steps=self._eval_steps)

  def _counted(self, batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
      self._progress()
      yield batch

  def predict(self, params: Any) -> dict[str, list[Sample]]:
    """What the model makes of the first held-out examples of each task; see `predictions`."""
    if not self._num_samples or self._predictor is None:
      return {}
    return {name: self._predict(self._predictor, name, params) for name in self._tasks}

  def _predict(self, predictor: predictions.Predictor, name: str, params: Any) -> list[Sample]:
    if name not in self._examples:
      few = dataclasses.replace(self._tasks[name], pack=False, batch_size=self._num_samples, num_virtual_shards=None)
      batches = pipeline.build(few)
      self._examples[name] = next(batches)
      batches.close()
    examples = self._examples[name]
    everywhere = sharding.replicated(self._trainer.mesh)
    arrays = {
      key: jax.make_array_from_process_local_data(everywhere, array)
      for key, array in predictor.arrays(examples).items()
    }
    with sharding.scope(self._trainer.mesh, self._trainer.rules):
      written = np.asarray(self._write(params, arrays))
    return predictor.samples(examples, written)

  @functools.cached_property
  def _write(self) -> Any:
    predictor, learner = self._predictor, self._trainer.learner
    assert predictor is not None

    def write(params: Any, arrays: Any) -> jax.Array:
      return predictor.write(learner.full_params(params), arrays)

    return jax.jit(write, out_shardings=sharding.replicated(self._trainer.mesh))
