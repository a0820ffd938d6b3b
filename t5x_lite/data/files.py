"""Local files as a source, and as a task that a gin file can name with no code to write:

    MIXTURE_OR_TASK_NAME = @files()
    files.path = '/data/*.jsonl.gz'

`file_formats` lists the formats. Records are read at random from where they lie; compressed files are decompressed into
the cache once, and Parquet and JSON files copied to a format that has random access.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import held_out, task
from t5x_lite.data.formats import file_cache, file_formats, file_paths
from t5x_lite.data.formats.file_records import FileRecords
from t5x_lite.data.sources import Source

TRAIN, VALIDATION = 'train', 'validation'

_HASHED_WHOLE = 2**30  # bytes of all files of a split; more than that are sampled
_SAMPLE = 2**16
_BLOCK = 2**20


@dataclasses.dataclass(frozen=True)
class FilesSource:
  """Records of local files.

  Attributes:
    path: a file, a folder, a pattern such as `/data/**/*.jsonl.gz`, or a list of them; `{split: path}` for several
      splits, else all is `train`.
    format: one of `file_formats.FORMATS`; 'auto': by the ending of each file.
    documents: of text files: a document a 'line', a 'paragraph' (blank lines between them) or a 'file'.
    columns: names of the columns of CSV and TSV files without a header.
    fields: names of fields that every record must have, with text or a number.
    validation_share: of the records that make a `validation` split of their own, in [0, 1), by a hash of their numbers.
    skip_bad: leave bad records out and count them (`skipped` of what `random_access` returns, by reason); else they are
      errors that name file and record. This reads all files once when they are opened the first time.
  """

  path: str | Sequence[str] | Mapping[str, str | Sequence[str]]
  format: str = file_formats.AUTO
  documents: str = file_formats.LINE
  columns: Sequence[str] | None = None
  fields: Sequence[str] = ()
  validation_share: float = 0.0
  skip_bad: bool = False

  def __post_init__(self):
    if self.format not in (file_formats.AUTO, *file_formats.FORMATS):
      raise errors.unknown('format of files', self.format, (file_formats.AUTO, *file_formats.FORMATS))
    if self.documents not in file_formats.DOCUMENTS:
      raise errors.unknown('documents of files', self.documents, file_formats.DOCUMENTS)
    if not 0 <= self.validation_share < 1:
      raise errors.UsageError(f'got validation_share {self.validation_share!r}, expected at least 0 and less than 1')
    if self.validation_share and (TRAIN not in self._paths or VALIDATION in self._paths):
      raise errors.UsageError(
        f'got validation_share {self.validation_share} and files for {", ".join(self._paths)}: the share is one of '
        f'{TRAIN}, and makes {VALIDATION}'
      )

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits; known without opening anything."""
    return (*self._paths, VALIDATION) if self.validation_share else tuple(self._paths)

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return len(self.random_access(split))

  def random_access(self, split: str) -> FileRecords | held_out.HeldOut:
    """The records of `split`. Raises `UsageError` if there are none."""
    records: FileRecords | held_out.HeldOut = _opened(
      self._files(split), self._reading, tuple(self.fields), self.skip_bad
    )
    if self.validation_share and split in (TRAIN, VALIDATION):
      records = held_out.HeldOut(records, self.validation_share, held=split == VALIDATION)
    if not len(records):
      skipped = f' (skipped as bad: {records.skipped})' if records.skipped else ''
      raise errors.UsageError(f'split {split!r} of {self.path!r} holds no records{skipped}')
    return records

  def fingerprint(self, split: str | None = None) -> str:
    """Hex SHA-256 of how the files are read, their names below the folder that holds them all, sizes and contents.

    Of more than 1 GiB, three samples of 64 KiB of each file stand for the contents. Times of change do not count: a
    copy on another machine is the same data.
    """
    splits = self.splits if split is None else (split,)
    options = [*self._reading, tuple(self.fields), self.validation_share, self.skip_bad]
    made_of = [options, [[name, _contents(self._files(name))] for name in splits]]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

  @property
  def _paths(self) -> dict[str, str | Sequence[str]]:
    return dict(self.path) if isinstance(self.path, Mapping) else {TRAIN: self.path}

  @property
  def _reading(self) -> file_formats.Reading:
    return file_formats.Reading(self.format, self.documents, None if self.columns is None else tuple(self.columns))

  def _files(self, split: str) -> tuple[file_cache.FileId, ...]:
    """The files of `split`. Raises `UsageError` if there is no such split or no file."""
    if split not in self.splits:
      raise errors.unknown(f'split of the files {self.path!r}', split, self.splits)
    path = self._paths[TRAIN if self.validation_share and split == VALIDATION else split]

    def is_data(file: str) -> bool:
      return self.format != file_formats.AUTO or file_formats.format_of(file) is not None

    return tuple(map(file_cache.identify, file_paths.expand(path, is_data)))


def files(
  path: str | Sequence[str] | Mapping[str, str | Sequence[str]],
  *,
  text_field: str = 'text',
  inputs_field: str | None = None,
  targets_field: str | None = None,
  format: str = file_formats.AUTO,
  documents: str = file_formats.LINE,
  columns: Sequence[str] | None = None,
  validation_path: str | Sequence[str] | None = None,
  validation_share: float = 0.0,
  skip_bad: bool = False,
  metrics: tuple[str, ...] = (),
  name: str = 'files',
) -> task.Task:
  """A task over local files: unsupervised, or with `inputs_field` and `targets_field` a supervised one.

  Documents without text are left out and counted, as the pipeline does it.

  Args:
    path: of the files, see `FilesSource`.
    text_field: the field with the document.
    inputs_field: the field with the inputs of a supervised task.
    targets_field: the field with its targets.
    format: see `FilesSource`, as are `documents`, `columns`, `validation_share` and `skip_bad`.
    documents: what a document is in text files.
    columns: of CSV and TSV files without a header.
    validation_path: files of the `validation` split.
    validation_share: of the records that are held out for validation instead.
    skip_bad: leave bad records out and count them.
    metrics: names of the metrics that predictions are scored with.
    name: of the task, in logs and results.

  Raises:
    UsageError: an argument is not what it should be, or two do not go together. Files are opened later.
  """
  paths = dict(path) if isinstance(path, Mapping) else {TRAIN: path}
  if validation_path is not None:
    if VALIDATION in paths:
      raise errors.UsageError(f'task {name!r}: got a validation_path and files for {", ".join(paths)}')
    paths[VALIDATION] = validation_path
  fields = example_fields(name, text_field, inputs_field, targets_field)
  source = FilesSource(paths, format, documents, columns, tuple(fields.values()), validation_share, skip_bad)
  return task_of_fields(name, source, fields, metrics=metrics)


def example_fields(name: str, text_field: str, inputs_field: str | None, targets_field: str | None) -> dict[str, str]:
  """The field of a record for each key of the examples of task `name`: a text, or inputs and targets where given.

  Raises:
    UsageError: one of inputs and targets is given without the other.
  """
  if inputs_field is None and targets_field is None:
    return {'text': text_field}
  if inputs_field is None or targets_field is None:
    got = f'inputs_field={inputs_field!r} and targets_field={targets_field!r}'
    raise errors.UsageError(f'task {name!r}: got {got}, expected both or neither')
  return {'inputs': inputs_field, 'targets': targets_field}


def task_of_fields(name: str, source: Source, fields: Mapping[str, str], **options: Any) -> task.Task:
  """A task whose examples are fields of the records, see `example_fields`; `options` are fields of the `Task`."""
  preprocess = functools.partial(fields_as_text, names=fields)
  return task.Task(name, source, preprocess, supervised='targets' in fields, **options)


def fields_as_text(record: task.Record, names: Mapping[str, str]) -> task.Example | None:
  """The fields of a record that make an example, as text; None if one of them is white space alone.

  Args:
    record: with text or numbers in these fields.
    names: the name of the field for each key of the example.
  """
  example = {key: str(record[field]) for key, field in names.items()}
  return example if all(text.strip() for text in example.values()) else None


@functools.lru_cache(32)
def _opened(
  files: tuple[file_cache.FileId, ...], reading: file_formats.Reading, fields: tuple[str, ...], skip_bad: bool
) -> FileRecords:
  """The records of files as they are now: files that change are opened anew."""
  return FileRecords([file.path for file in files], reading, fields, skip_bad)


@functools.lru_cache(32)
def _contents(files: tuple[file_cache.FileId, ...]) -> list[list[Any]]:
  """Name, size and digest of the contents of each file."""
  folder = os.path.commonpath([os.path.dirname(file.path) for file in files])
  sampled = sum(file.size for file in files) > _HASHED_WHOLE
  return [[os.path.relpath(file.path, folder), file.size, _digest(file, sampled)] for file in files]


def _digest(file: file_cache.FileId, sampled: bool) -> str:
  digest = hashlib.sha256()
  with open(file.path, 'rb') as opened:
    if sampled:
      for at in (0, file.size // 2, max(file.size - _SAMPLE, 0)):
        opened.seek(at)
        digest.update(opened.read(_SAMPLE))
    else:
      while block := opened.read(_BLOCK):
        digest.update(block)
  return digest.hexdigest()
