"""Evaluation: sums over a fresh pass of held-out batches, and the score of a model of token frequencies."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from t5x_lite.core import batch as batch_lib
from t5x_lite.core import errors
from t5x_lite.metrics import sums as sums_lib

HostBatch = Mapping[str, np.ndarray]
EvalStep = Callable[[Any, Mapping[str, jax.Array]], Mapping[str, jax.Array]]

_IN_FLIGHT = 2  # Batches dispatched before the oldest result is fetched: the device never waits for the host.


def evaluate(
  eval_step: EvalStep,
  params: Any,
  batches: Iterable[HostBatch],
  shard_batch: Callable[[HostBatch], Mapping[str, jax.Array]],
  *,
  max_steps: int | None = None,
) -> dict[str, float]:
  """Metrics of `params` over one pass of held-out batches. Nothing of the training state is touched.

  Args:
    eval_step: `(params, global batch)` -> sums over the batch (see `metrics.sums`).
    params: the parameters.
    batches: host rows of one pass, the same number on every process.
    shard_batch: makes global arrays of host rows.
    max_steps: stop after so many batches; None for all of them.

  Returns:
    Means per target token: `loss`, `nll`, `accuracy` and so on; `perplexity` (of nll); `target_tokens`, their number.

  Raises:
    UsageError: there is nothing to predict in these batches.
  """
  pending: collections.deque[Mapping[str, jax.Array]] = collections.deque()
  total: dict[str, float] = {}
  for rows in itertools.islice(batches, max_steps):
    pending.append(eval_step(params, shard_batch(rows)))
    if len(pending) > _IN_FLIGHT:
      total = sums_lib.add(total, _fetch(pending.popleft()))
  for results in pending:
    total = sums_lib.add(total, _fetch(results))
  if not total or not total[sums_lib.WEIGHT]:
    raise errors.UsageError(
      'the evaluation data have no target tokens and no labels: expected at least one example that is not empty'
    )
  metrics = sums_lib.finalise(total)
  if 'nll' in metrics:
    metrics['perplexity'] = _exp(metrics['nll'])
  return metrics | {'target_tokens': total[sums_lib.WEIGHT]}


def _fetch(results: Mapping[str, jax.Array]) -> dict[str, float]:
  """Python floats, i.e. float64: sums over many batches keep their precision."""
  return {name: float(value) for name, value in jax.device_get(dict(results)).items()}


def _exp(value: float) -> float:
  try:
    return math.exp(value)
  except OverflowError:
    return math.inf


def unigram_entropy(batches: Iterable[HostBatch], *, max_steps: int | None = None) -> float:
  """Entropy of the distribution of target tokens, in nats per token: `-sum p(t) log p(t)`.

  It is the lowest loss of any model that ignores its input and all other targets, measured on the very tokens it is
  scored on; a held-out loss below it shows that the model uses context.

  Args:
    batches: whole batches, i.e. all rows of them, even where there are several processes.
    max_steps: stop after so many batches; None for all of them.
  """
  counts: collections.Counter[int] = collections.Counter()
  for rows in itertools.islice(batches, max_steps):
    targets, weights = batch_lib.targets(rows)
    tokens, inverse = np.unique(targets, return_inverse=True)
    weight_of = np.bincount(inverse.reshape(-1), weights=np.asarray(weights, np.float64).reshape(-1))
    counts.update({int(token): float(weight) for token, weight in zip(tokens, weight_of, strict=True)})
  frequencies = np.asarray([count for count in counts.values() if count > 0], np.float64)
  if not frequencies.size:
    raise errors.UsageError(
      'the evaluation data have no target tokens: expected at least one example that is not empty'
    )
  probabilities = frequencies / frequencies.sum()
  return float(-(probabilities * np.log(probabilities)).sum())
