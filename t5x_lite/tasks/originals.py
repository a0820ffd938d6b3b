"""The tasks of the catalogue over the files that the authors of the sets publish, instead of what TFDS made of them.

    import t5x_lite.tasks.glue
    MIXTURE_OR_TASK_NAME = @original()
    original.name = 'glue_sst2'
    original.directory = '/data/glue_data/SST-2'

A reader gives the same records as TFDS has of the set, so that nothing else of a task changes. They are kept in memory,
and read when they are first asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import tarfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import task

Reader = Callable[[pathlib.Path, str], Iterable[task.Record]]


@dataclasses.dataclass(frozen=True)
class _Files:
  reader: Reader
  splits: tuple[str, ...]


_readers: dict[str, _Files] = {}


def register(task_name: str, reader: Reader, splits: Iterable[str] | None = None) -> None:
  """Makes the original files of a registered task readable.

  Args:
    task_name: of the task.
    reader: `(folder, split) -> records` in TFDS's schema of the set; raises `UsageError` where files are missing, and
      names those that it looked for.
    splits: what the task's source calls its splits; None: what the task calls its source's.
  """
  assert task_name not in _readers, task_name
  if splits is None:
    known = task.get(task_name)
    assert isinstance(known, task.Task) and known.splits is not None, task_name
    splits = dict.fromkeys(known.splits.values())
  _readers[task_name] = _Files(reader, tuple(splits))


def names() -> tuple[str, ...]:
  """The names of all tasks whose original files can be read, sorted."""
  return tuple(sorted(_readers))


def original(name: str, directory: str) -> task.Task:
  """The task `name` over the original files in `directory`.

  Args:
    name: of a task of the catalogue whose module is imported.
    directory: the folder with the files, as it comes out of the authors' archive; a file may be gzipped. RACE may stay
      in its `tar.gz`.

  Raises:
    UsageError: there is no such task, or nothing is known of its original files.
  """
  known = task.get(name)
  if name not in _readers or not isinstance(known, task.Task):
    raise errors.unknown('task with original files', name, _readers)
  files = _readers[name]
  return dataclasses.replace(known, source=OriginalSource(files.reader, directory, files.splits))


class Records(Sequence[task.Record]):
  """The records of one split, in memory: what Grain calls a random-access data source."""

  def __init__(self, records: Iterable[task.Record]):
    self._records = tuple(records)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: Any) -> Any:
    return dict(self._records[int(index)])

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several records."""
    return [self[index] for index in indices]


@dataclasses.dataclass(frozen=True)
class OriginalSource:
  """A `data.sources.Source` over a reader's records.

  Attributes:
    reader: reads a split.
    directory: what it reads.
    splits: names of the splits. That one is named does not say that its files are there.
  """

  reader: Reader
  directory: str
  splits: tuple[str, ...]

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return len(self.random_access(split))

  def random_access(self, split: str) -> Records:
    """The records of `split`. Raises `UsageError` where its files are missing or malformed."""
    if split not in self.splits:
      raise errors.unknown(f'split of {self.directory}', split, self.splits)
    return _read(self.reader, self.directory, split)

  def fingerprint(self, split: str | None = None) -> str:
    """Hex SHA-256 of the records of `split`, or of all splits that are there."""
    if split is not None:
      return _digest(self.reader, self.directory, split)
    digest = hashlib.sha256()
    for name in self.splits:
      try:
        digest.update(f'{name} {_digest(self.reader, self.directory, name)}\n'.encode())
      except errors.UsageError:
        continue
    return digest.hexdigest()


@functools.cache
def _read(reader: Reader, directory: str, split: str) -> Records:
  folder = pathlib.Path(directory).expanduser()
  if not folder.exists():
    raise errors.UsageError(f'{directory} does not exist: expected the folder with the original files of the set')
  try:
    return Records(reader(folder, split))
  except errors.UsageError:
    raise
  except (KeyError, TypeError, AttributeError, ValueError, tarfile.TarError) as error:
    # What a reader has not looked for: another layout than that of the authors' files.
    what = f'{type(error).__name__} {error}'
    raise errors.UsageError(f'{directory}, split {split!r}: the files are malformed ({what})') from error


@functools.cache
def _digest(reader: Reader, directory: str, split: str) -> str:
  digest = hashlib.sha256()
  for record in _read(reader, directory, split):
    digest.update(json.dumps(record, sort_keys=True).encode() + b'\n')
  return digest.hexdigest()
