"""The records of a split that TFDS has prepared, in ArrayRecord or TFRecord files: read by us, decoded by TFDS."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import prepared
from t5x_lite.data.formats import array_records, tfrecord

_OPEN_INDICES = 4096  # of shards; those of large shards are on disk


class DataSource(Protocol):
  """What TFDS calls a data source: decoded examples."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]: ...


class TfdsSplit:
  """A `RandomAccess` over a data source of TFDS, with bytes made `str`.

  Args:
    data_source: what is read.
    shards: the parts of files that it is made of: TFDS's `FileInstruction`s.
  """

  def __init__(self, data_source: DataSource, shards: Sequence[Any] = ()):
    self._data_source = data_source
    self._places = _Places(shards)

  def __len__(self) -> int:
    return len(self._data_source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Record `index`. Raises `UsageError` with file and record if it cannot be read or is not UTF-8."""
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)}')
    try:
      return as_text(self._data_source[index])
    except errors.UsageError:
      raise
    except UnicodeDecodeError as error:
      raise errors.UsageError(f'{self._places.name(index)}: invalid UTF-8 at byte {error.start}') from error
    except Exception as error:
      raise errors.UsageError(f'{self._places.name(index)}: {prepared.first_line(error)}') from error

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several records with one read."""
    try:
      return [as_text(record) for record in self._data_source.__getitems__(indices)]
    except Exception:
      return [self[index] for index in indices]  # says which of them it is


class ArrayRecordExamples:
  """A `DataSource` over ArrayRecord shards: what TFDS's own gives, without its threads for every few records.

  Args:
    shards: TFDS's `FileInstruction`s.
    features: TFDS's features of the data set.
  """

  def __init__(self, shards: Sequence[Any], features: Any):
    self._features = features
    whole = [(os.fspath(shard.filename), int(shard.examples_in_shard)) for shard in shards]
    self._records = array_records.ShardedRecords(whole)
    self._starts = np.cumsum([0, *(count for _, count in whole)], dtype=np.int64)
    self._places = _Places(shards)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Example `index`."""
    return self.__getitems__([index])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several examples. Raises `UsageError` if a shard is damaged or has another length than TFDS has noted."""
    places = [self._places[index] for index in indices]
    read = self._records.read([int(self._starts[shard]) + record for shard, record in places])
    return [self._features.deserialize_example_np(data) for data in read]


class TFRecordExamples:
  """A `DataSource` over TFRecord shards.

  Args:
    shards: TFDS's `FileInstruction`s.
    features: TFDS's features of the data set.
  """

  def __init__(self, shards: Sequence[Any], features: Any):
    self._features = features
    self._shards = [(os.fspath(shard.filename), shard.examples_in_shard) for shard in shards]
    self._places = _Places(shards)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Example `index`. Raises `UsageError` if its shard is damaged or has another length than TFDS has noted."""
    shard, record = self._places[index]
    return self._features.deserialize_example_np(_shard(*self._shards[shard])[record])

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several examples."""
    return [self[index] for index in indices]


class _Places:
  """From the number of a record in a split to its shard, and its number in that."""

  def __init__(self, shards: Sequence[Any]):
    self._shards = [(os.fspath(shard.filename), int(shard.skip)) for shard in shards]
    self._ends = np.cumsum([shard.take for shard in shards], dtype=np.int64)

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int) -> tuple[int, int]:
    shard = int(np.searchsorted(self._ends, index, side='right'))
    return shard, self._shards[shard][1] + index - (int(self._ends[shard - 1]) if shard else 0)

  def name(self, index: int) -> str:
    """File and record, for errors."""
    if index >= len(self):
      return f'record {index}'
    shard, record = self[index]
    return f'{self._shards[shard][0]}: record {record}'


@functools.lru_cache(_OPEN_INDICES)
def _shard(path: str, length: int) -> tfrecord.TFRecordFile:
  """A shard of `length` records."""
  file = tfrecord.TFRecordFile(path)
  if len(file) != length:
    name = pathlib.PurePath(path).with_name('dataset_info.json')
    raise errors.UsageError(f'{path} holds {len(file)} records, but {name} says {length}: truncated, or of another set')
  return file


def as_text(value: Any) -> Any:
  """`value` with bytes as `str`, sequences of text as lists of `str`, and NumPy's scalars as Python's."""
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if isinstance(value, Mapping):
    return {key: as_text(item) for key, item in value.items()}
  if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype.kind in 'OSU' and value.ndim):
    return [as_text(item) for item in value]
  if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
    return as_text(value.item())
  return value
