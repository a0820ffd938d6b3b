"""Arrow and Parquet files, read by pyarrow: rows as dicts, with random access.

Arrow files are memory-mapped and rows are read where they lie. Parquet has no access to a row but through its group of
rows, compressed: each file is copied into the cache once, as an Arrow file.
"""

from __future__ import annotations

import functools
import logging
import pathlib
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import prepared
from t5x_lite.data.bad_records import BadRecord
from t5x_lite.data.formats import file_cache

FILE_MAGIC = b'ARROW1'

_MAX_OPEN = 256
_COPY = 'copy.arrow'
_log = logging.getLogger(__name__)


class _Rows(NamedTuple):
  batches: list[Any]
  ends: np.ndarray  # int64 [batches], number of rows up to the end of each


class ArrowFile:
  """The rows of one Arrow file, in the stream format or the file format.

  Args:
    file: the file.

  Raises:
    UsageError: it is no Arrow file, or a truncated one.
  """

  def __init__(self, file: file_cache.FileId):
    self.problem: str | None = None
    self._file = file
    self._length = sum(batch.num_rows for batch in _rows(file).batches)

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Row `index`. Raises `BadRecord` if its text is not UTF-8."""
    batches, ends = _rows(self._file)
    at = int(np.searchsorted(ends, index, side='right'))
    try:
      row = batches[at].slice(index - (int(ends[at - 1]) if at else 0), 1).to_pylist()[0]
    except UnicodeDecodeError as error:
      raise BadRecord('invalid UTF-8', f'invalid UTF-8: {error.reason}') from error
    return row


@functools.lru_cache(_MAX_OPEN)
def _rows(file: file_cache.FileId) -> _Rows:
  """The batches of a file, mapped."""
  import pyarrow

  try:
    source = pyarrow.memory_map(file.path)
    in_file_format = source.read_at(len(FILE_MAGIC), 0) == FILE_MAGIC
    reader = pyarrow.ipc.open_file(source) if in_file_format else pyarrow.ipc.open_stream(source)
    batches = reader.read_all().to_batches()
  except (OSError, pyarrow.ArrowException) as error:
    raise errors.UsageError(f'cannot read the Arrow file {file.path}: {prepared.first_line(error)}') from error
  return _Rows(batches, np.cumsum([batch.num_rows for batch in batches], dtype=np.int64))


def arrow_copy(file: file_cache.FileId) -> file_cache.FileId:
  """A Parquet file as an Arrow file in the cache. Raises `UsageError` if it is no Parquet file, or a truncated one."""

  def build(folder: pathlib.Path) -> None:
    import pyarrow
    from pyarrow import parquet

    _log.info('copying the Parquet file %s to Arrow', file.path)
    failed = (OSError, pyarrow.ArrowException)
    try:
      source = parquet.ParquetFile(file.path)
    except failed as error:
      raise errors.UsageError(f'cannot read the Parquet file {file.path}: {prepared.first_line(error)}') from error
    # Parquet may have other categories in every row group, and an Arrow file one dictionary for all: values are copied.
    schema = pyarrow.schema(
      field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field
      for field in source.schema_arrow
    )
    with pyarrow.ipc.new_file(str(folder / _COPY), schema) as copy:
      for group in range(source.num_row_groups):
        try:
          table = source.read_row_group(group).cast(schema)
        except failed as error:
          raise errors.UsageError(f'{file.path}: row group {group}: {prepared.first_line(error)}') from error
        copy.write_table(table)

  return file_cache.identify(file_cache.in_cache(file, 'parquet', build) / _COPY)
