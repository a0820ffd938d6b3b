"""TFRecord files with random access, and without TensorFlow.

A record is its length (uint64), the masked CRC-32C of the length (uint32), the data, and the masked CRC-32C of the data
(uint32), little-endian. The files have no index: one pass from length to length makes it, and checks all lengths. The
data is checked whenever it is read.
"""

from __future__ import annotations

import array
import os
import struct
from collections.abc import Iterable

from t5x_lite.core import errors
from t5x_lite.data.bad_records import BadRecord
from t5x_lite.data.formats import crc32c, file_cache, span_index

_HEADER = struct.Struct('<QI')
_LENGTH = struct.Struct('<Q')
_CRC = struct.Struct('<I')


class TFRecordFile:
  """The records of one file, as bytes.

  Args:
    path: of the file.

  Raises:
    UsageError: there is no such file, the length of a record is damaged, or the file breaks off within a record. The
      error names the file and the number of the record, counted from 0.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self._file = file_cache.identify(path)
    self._index = span_index.SpanIndex(self._file, 'tfrecord', find_records)
    if self._index.problem is not None:
      raise errors.UsageError(f'{self._file.path}: {self._index.problem}')

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: int) -> bytes:
    """The data of record `index`. Raises `UsageError` if it is not what was written."""
    begin, end = self._index[index]
    try:
      return checked(file_cache.memory(self._file)[begin:end])
    except BadRecord as error:
      raise errors.UsageError(f'{self._file.path}: record {index}: {error.detail}') from error


def find_records(data: span_index.Data) -> span_index.Found:
  """The spans of the records, each of its data and the checksum after it."""
  places = array.array('q')
  at, size, masked, header = 0, len(data), crc32c.masked, _HEADER.unpack_from
  problem = None
  while at < size:
    if at + _HEADER.size > size:
      problem = f'truncated: {size - at} bytes of a header of {_HEADER.size} are there'
      break
    length, crc = header(data, at)
    if masked(data[at : at + _LENGTH.size]) != crc:
      problem = 'bad CRC of its length'
      break
    begin, at = at + _HEADER.size, at + _HEADER.size + length + _CRC.size
    if at > size:
      problem = f'truncated: {size - begin} bytes of {at - begin} are there'
      break
    places.extend((begin, at))
  where = f'record {len(places) // 2}: '
  return span_index.Found(span_index.as_spans(places), problem and where + problem)


def checked(data: bytes) -> bytes:
  """The data of a record without the checksum after it. Raises `BadRecord` if the two do not agree."""
  payload = data[: -_CRC.size]
  if crc32c.masked(payload) != _CRC.unpack(data[-_CRC.size :])[0]:
    raise BadRecord('bad CRC', f'bad CRC of its {len(payload)} bytes: the file is damaged')
  return payload


def write_records(path: str | os.PathLike[str], records: Iterable[bytes]) -> int:
  """Writes `records` to a new TFRecord file at `path`; returns their number."""
  count = 0
  with open(path, 'wb') as file:
    for record in records:
      length = _LENGTH.pack(len(record))
      file.writelines((length, _CRC.pack(crc32c.masked(length)), record, _CRC.pack(crc32c.masked(record))))
      count += 1
  return count
