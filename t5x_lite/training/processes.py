"""What the processes of one run tell each other: small values and sums over hosts, and which of them writes files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def is_primary() -> bool:
  """Whether this process is the one that writes files and prints: process 0."""
  return jax.process_index() == 0


def prefix() -> str:
  """For warnings: which process warns, where there are several."""
  return '' if jax.process_count() == 1 else f'process {jax.process_index()}: '


def gather(value: Any) -> list[Any]:
  """Every process's `value`, in the order of the processes. All of them must call it.

  Args:
    value: anything that JSON can hold, up to a few megabytes.
  """
  if jax.process_count() == 1:
    return [value]
  from jax.experimental import multihost_utils

  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray(text.size, np.int32)).reshape(-1)
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: text.size] = text
  rows = multihost_utils.process_allgather(padded).reshape(sizes.size, -1)
  return [json.loads(rows[i, : sizes[i]].tobytes()) for i in range(sizes.size)]


def add_up(counts: np.ndarray) -> np.ndarray:
  """The sum of every process's counts. All of them must call it, with arrays of one shape.

  Args:
    counts: int64, not negative; 64 bits also where JAX has only 32.
  """
  counts = np.ascontiguousarray(counts, np.int64)
  if jax.process_count() == 1:
    return counts
  from jax.experimental import multihost_utils

  halves = multihost_utils.process_allgather(counts.reshape(-1).view(np.uint32))
  return np.ascontiguousarray(halves).view(np.int64).reshape(-1, *counts.shape).sum(axis=0)


def from_primary(value: Any) -> Any:
  """Process 0's `value` on every process. All of them must call it; the others' values are ignored."""
  return gather(value)[0]


def made_by_primary(make: Callable[[], Any]) -> Any:
  """What `make` gives, called in process 0 alone, on every process. All of them must call it."""
  return from_primary(make() if is_primary() else None)
