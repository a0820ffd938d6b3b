"""Spans of a text: random partitions, their sentinels, and examples of inputs and targets that end with EOS."""

from __future__ import annotations

import functools

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives.protocols import Ended, Hiding, Sentinels


def partitions(items: int, segments: int, draws: np.ndarray) -> np.ndarray:
  """Positive ints that add up to `items`, every such partition equally likely; int64 `[N, segments]`.

  The segments end after the places whose draws are the smallest: a random subset, which the order of the draws decides
  alone, so that it costs no more than finding one of them.

  Args:
    items: what a partition adds up to.
    segments: how many ints that are.
    draws: uniform in [0, 1), `[N, items - 1]`.
  """
  cuts = segments - 1
  edges = np.zeros((len(draws), segments + 1), np.int64)
  edges[:, -1] = items
  if cuts:
    edges[:, 1:-1] = smallest(draws, cuts) + 1
  return edges[:, 1:] - edges[:, :-1]


def smallest(draws: np.ndarray, count: int) -> np.ndarray:
  """The places of the `count` smallest draws of each row, ascending: a random subset of the places.

  Args:
    draws: `[N, places]`; of equal ones the first counts as smaller.
    count: from 1 to the number of places.

  Returns:
    int64 `[N, count]`.
  """
  num, places = draws.shape
  if count == places:
    return np.broadcast_to(np.arange(places), draws.shape)
  is_small = draws <= np.partition(draws, count - 1, axis=1)[:, count - 1 : count]
  if np.count_nonzero(is_small) != count * num:
    is_small = np.argsort(np.argsort(draws, axis=1, kind='stable'), axis=1) < count
  return is_small.nonzero()[1].reshape(num, count)


def first_sentinels(tokenizer: Sentinels, count: int, needs: str, advice: str) -> np.ndarray:
  """Ids of `<extra_id_0>` to `<extra_id_{count - 1}>`, int32 `[count]`, not to be written to.

  Raises:
    UsageError: there are fewer; the line says what `needs` them, and gives the `advice`.
  """
  if count > tokenizer.num_sentinels:
    what = f'{needs} needs {count} sentinels, but the tokenizer has'
    if not tokenizer.num_sentinels:
      raise errors.UsageError(f'{what} none: expected one with sentinels, such as embedded_vocabulary.extra_ids = 100')
    raise errors.UsageError(f'{what} {tokenizer.num_sentinels}: {advice}')
  return _all_sentinels(tokenizer)[:count]


@functools.lru_cache(maxsize=16)
def _all_sentinels(tokenizer: Sentinels) -> np.ndarray:
  """Ids of all sentinels, int32."""
  ids = np.array([tokenizer.sentinel_id(i) for i in range(tokenizer.num_sentinels)], np.int32)
  ids.flags.writeable = False
  return ids


def hidden_id(tokenizer: Hiding) -> int:
  """What stands for hidden text: the first sentinel, as in T5, or the mask token where there are no sentinels.

  Raises:
    UsageError: there is neither.
  """
  if tokenizer.num_sentinels:
    return tokenizer.sentinel_id(0)
  try:
    return tokenizer.mask_id
  except errors.UsageError as error:
    raise errors.UsageError(
      f'{error}, and no sentinels: expected one of them, such as embedded_vocabulary.extra_ids = 100'
    ) from error


def first_of_runs(flags: np.ndarray) -> np.ndarray:
  """bool like `flags`: the first element of every run of True."""
  first = flags.copy()
  first[1:] &= ~flags[:-1]
  return first


def ended_example(inputs: np.ndarray, targets: np.ndarray, tokenizer: Ended) -> dict[str, np.ndarray]:
  """`inputs` and `targets`, int32, each with EOS after it."""
  example = {}
  for name, tokens in (('inputs', inputs), ('targets', targets)):
    ended = np.empty(len(tokens) + 1, np.int32)
    ended[:-1] = tokens
    ended[-1] = tokenizer.eos_id
    example[name] = ended
  return example
