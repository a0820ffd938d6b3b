"""ArrayRecord files as bytes: a list of shards with batched random access, and how ours are written."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors

COMPRESSED = 'group_size:1'  # as TFDS writes them: every record is found by itself
UNCOMPRESSED = 'group_size:1,uncompressed'

_OPEN_FILES = 256
# Without threads of its own and reading ahead: records are read in random order, and the pipeline has a thread.
_READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_SHORT_READ = 2**14  # bytes


class ShardedRecords:
  """The records of several files, one after the other.

  Args:
    shards: `(path, number of records)` of each; a file is opened when a record of it is read.
  """

  def __init__(self, shards: Sequence[tuple[str, int]]):
    self._paths = [path for path, _ in shards]
    self._starts = np.cumsum([0, *(count for _, count in shards)], dtype=np.int64)
    self._counts = [count for _, count in shards]

  def __len__(self) -> int:
    return int(self._starts[-1])

  def read(self, indices: Sequence[int]) -> list[bytes]:
    """These records. Raises `UsageError` with file and record for one that is damaged.

    One by one: to read several, the reader hands each to a thread, which takes four times as long as reading it.
    """
    wanted = np.asarray(indices, np.int64)
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
      raise IndexError(f'records {wanted.min()} to {wanted.max()} of {len(self)}')
    shards = np.searchsorted(self._starts, wanted, side='right') - 1
    numbers = wanted - self._starts[shards]
    return [self._read(shard, number) for shard, number in zip(shards.tolist(), numbers.tolist(), strict=True)]

  def _read(self, shard: int, number: int) -> bytes:
    path = self._paths[shard]
    reader = _reader(path, self._counts[shard])
    try:
      return reader.read([number])[0]
    except Exception as error:
      lines = str(error).splitlines() or [type(error).__name__]
      raise errors.UsageError(f'{path}: record {number}: {lines[0][:200]}') from error


@functools.lru_cache(_OPEN_FILES)
def _reader(path: str, count: int) -> Any:
  from array_record.python import array_record_module

  there = count_records(path)
  if there != count:
    raise errors.UsageError(f'{path} holds {there} records, expected {count}: truncated, or of another set')
  return array_record_module.ArrayRecordReader(path, _READER_OPTIONS, file_reader_buffer_size=_SHORT_READ)


def count_records(path: str | os.PathLike[str]) -> int:
  """The number of records of a file. Raises `UsageError` if it is not there or is no whole ArrayRecord file."""
  from array_record.python import array_record_module

  try:
    reader = array_record_module.ArrayRecordReader(os.fspath(path), _READER_OPTIONS)
    try:
      return reader.num_records()
    finally:
      reader.close()
  except Exception as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise errors.UsageError(f'cannot read {os.fspath(path)}: {reason}') from error


def write_records(path: pathlib.Path, records: Iterable[bytes], options: str = COMPRESSED) -> int:
  """Writes a new ArrayRecord file; returns the number of its records."""
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(os.fspath(path), options)
  count = 0
  try:
    for record in records:
      writer.write(record)
      count += 1
  finally:
    writer.close()
  return count
