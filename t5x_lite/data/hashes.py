"""Digests of what a run reads: of the documents and their order, and of the batches that are made of them.

Two arms of an ablation that differ in objective, features, lengths or tokenizer have other batches, and the same
document order. Runs of one configuration have both the same, on any number of hosts and after any restart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import example_streams, mixtures, pipeline, streams
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.opened import OpenedDataset


class BatchHash(NamedTuple):
  """Hex SHA-256 digests at a step of the stream.

  Attributes:
    batch: of the global batch of this step.
    stream: of all batches from the first one asked for to this one.
  """

  batch: str
  stream: str


def order_hash(data: OpenedDataset, num: int = 64) -> str:
  """Hex SHA-256 of which documents are read, and in which order.

  It covers, for every task, the fingerprint of its source and which records the streams of examples read first; and for
  a mixture the shares, with all that decides which task is next. Batch size, lengths, tokenizer, objective and features
  are no part of it: the streams are those of the run, but only what they read is looked at.

  Args:
    data: the data set.
    num: documents of each task; a finite pass may have fewer.
  """
  config, blend = data.config, data.blend
  drawn = len(data.parts) > 1 and config.repeat  # else one task follows another, and there are no shares to keep to
  head = {
    'tasks': [part.task.name for part in data.parts],
    'sources': data.fingerprint['sources'],
    'splits': [part.task.source_split(config.split) for part in data.parts],
    'repeat': config.repeat,
    'stages': [[step, *shares] for step, shares in blend.stages] if drawn else None,
    'unit': blend.unit if drawn else None,
    'seed': config.seed if drawn and blend.unit == mixtures.EXAMPLES else None,
  }
  digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
  for part in range(len(data.parts)):
    digest.update(documents_read(data, part, num).astype('<i8').tobytes())
  return digest.hexdigest()


def documents_read(data: OpenedDataset, part: int, num: int) -> np.ndarray:
  """Which records the streams of a task read: indices in the split, int64 `[num]`, or fewer where a single pass ends.

  The streams of all virtual shards are run until they have read so many. The n-th document of shard s of V is at place
  s + n * V, so that neither V nor how far a stream reads ahead makes a difference. What is left of a document when the
  stream has read it is passed over.
  """
  shards = data.num_virtual_shards
  found: dict[int, int] = {}
  for shard in range(min(shards, num)):

    def observe(number: int, indices: Sequence[int], shard: int = shard) -> None:
      found.update((shard + (number + n) * shards, index) for n, index in enumerate(indices))

    stream = example_streams.example_stream(data, shard, part, observe)
    for place in range(shard, num, shards):
      if place not in found:
        stream.cursor = stream.cursor._replace(document=place // shards, offset=0)
        if isinstance(stream.next(), streams.TheEnd):
          break
  return np.array([found[place] for place in sorted(found) if place < num], np.int64)


def row_hashes(batch: Mapping[str, np.ndarray]) -> list[bytes]:
  """SHA-256 of each row of a batch: of the names, dtypes, shapes and values of its arrays, in whatever order they come.

  Args:
    batch: arrays `[rows, ...]`.
  """
  arrays = {name: np.asarray(batch[name]) for name in sorted(batch)}
  arrays = {name: array.astype(array.dtype.newbyteorder('<'), copy=False) for name, array in arrays.items()}
  head = json.dumps([[name, array.dtype.str, array.shape[1:]] for name, array in arrays.items()]).encode()
  hashes = []
  for row in zip(*arrays.values(), strict=True):
    digest = hashlib.sha256(head)
    for values in row:
      digest.update(values.tobytes())
    hashes.append(digest.digest())
  return hashes


def batch_hash(batch: Mapping[str, np.ndarray]) -> str:
  """Hex SHA-256 of the hashes of a batch's rows, in their order."""
  return _of_rows(row_hashes(batch))


def _of_rows(rows: Sequence[bytes]) -> str:
  return hashlib.sha256(b''.join(rows)).hexdigest()


class FirstBatches:
  """An iterator over this process's rows of batches that hashes the first ones as they pass.

  It is everything else that the iterator is. From a position that is not the beginning on it hashes nothing.

  Args:
    iterator: has `rows`.
    num: how many batches to hash.
    done: called once, by whoever asks for the batch after the last of them.
  """

  def __init__(self, iterator: pipeline.BatchIterator, num: int, done: Callable[[], None]):
    self._iterator, self._num, self._done = iterator, num, done
    self._hashes: list[list[bytes]] = []
    self._counting = True

  def __next__(self) -> pipeline.Batch:
    if self._counting and len(self._hashes) == self._num:
      self.finish()
    batch = next(self._iterator)
    if self._counting:
      self._hashes.append(row_hashes(batch))
    return batch

  def set_state(self, state: pipeline.State) -> None:
    """Goes to another position."""
    self._iterator.set_state(state)
    self._counting = state['batches'] == 0

  def finish(self) -> None:
    """Says that there will be no more of them, unless that has been said."""
    if self._counting and self._hashes:
      self._counting = False
      self._done()

  def own(self) -> dict[str, list[str]]:
    """For the number of each row of this process its hashes in the batches, hex; JSON-able."""
    rows = self._iterator.rows.tolist()
    return {str(row): [batch[at].hex() for batch in self._hashes] for at, row in enumerate(rows)}

  def __getattr__(self, name: str) -> Any:
    return getattr(self._iterator, name)


def stream_hash(processes: Iterable[Mapping[str, Sequence[str]]]) -> tuple[int, str]:
  """How many first batches were hashed, and the hash of all of them, as `batch_hashes` has it.

  Args:
    processes: what `FirstBatches.own` of each process says; they may share rows.
  """
  rows = {int(row): own for process in processes for row, own in process.items()}
  batches = list(zip(*(rows[row] for row in sorted(rows)), strict=True))
  stream = hashlib.sha256()
  for batch in batches:
    stream.update(_of_rows([bytes.fromhex(row) for row in batch]).encode())
  return len(batches), stream.hexdigest()


def batch_hashes(
  config: DatasetConfig, num: int, hosts: int = 1, *, state: Mapping[str, Any] | None = None
) -> Iterator[BatchHash]:
  """The digests of the next `num` global batches; fewer where a finite pass ends before.

  Every host's rows are read by an iterator of its own and put together, as so many processes would read them.

  Args:
    config: the data set.
    num: how many batches.
    hosts: how many processes; each has consecutive rows, as even a part of them as can be.
    state: the position to go on from (see `pipeline.merge_states`); None: the start.

  Raises:
    UsageError: there are more hosts than rows, or the configuration is impossible.
  """
  stream = hashlib.sha256()
  for batch in itertools.islice(global_batches(config, hosts, state=state), num):
    of_batch = batch_hash(batch)
    stream.update(of_batch.encode())
    yield BatchHash(of_batch, stream.hexdigest())


def global_batches(
  config: DatasetConfig, hosts: int = 1, *, state: Mapping[str, Any] | None = None
) -> Iterator[dict[str, np.ndarray]]:
  """Global batches put together from the rows that `hosts` processes read, as `batch_hashes` describes it."""
  if not 1 <= hosts <= config.batch_size:
    raise errors.UsageError(
      f'got {hosts} hosts for a batch size of {config.batch_size}, expected 1 to {config.batch_size}'
    )
  config = dataclasses.replace(config, prefetch=0)  # threads of many hosts would only wait for each other
  rows = np.array_split(np.arange(config.batch_size), hosts)
  iterators = [pipeline.build(config, rows=own) for own in rows]
  if state is not None:
    for iterator in iterators:
      iterator.set_state(dict(state))
  for parts in zip(*iterators, strict=True):  # every host ends after the same batch
    yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
