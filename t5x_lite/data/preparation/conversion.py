"""From a data set that TFDS has prepared in TFRecord files to the same in ArrayRecord files, without TensorFlow.

The records stay what they are, byte by byte: TFDS keeps the same serialised examples in both formats. So do the
shards, in number and length. The new version folder has a `dataset_info.json` only when all of it is there.
"""

from __future__ import annotations

import functools
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import prepared
from t5x_lite.data.formats import array_records, tfrecord
from t5x_lite.data.preparation import shard_jobs

_INFO = 'dataset_info.json'
_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'  # TFDS's own


def to_array_record(name: str, target: str, *, data_dir: str | None = None, workers: int | None = None) -> pathlib.Path:
  """Converts a prepared data set; goes on where an earlier call was interrupted.

  Args:
    name: TFDS's name, such as `c4/en:3.1.0`; without a version, the newest there is.
    target: the TFDS data dir to write to.
    data_dir: the one to read from, as `prepared.data_dirs` takes it.
    workers: number of processes; None: one for each CPU.

  Returns:
    The version folder in the target.

  Raises:
    UsageError: the set is not there or not in TFRecord files, a shard is damaged or has another number of records than
      TFDS has noted, or the target holds something else.
  """
  folder = prepared.locate(name, data_dir)
  if prepared.file_format(folder) != prepared.TFRECORD:
    raise errors.UsageError(f'data set in {folder} is in {prepared.file_format(folder)} files already: nothing to do')
  goal = pathlib.Path(target).expanduser().absolute() / _below_data_dir(folder, data_dir)
  if (goal / _INFO).is_file() and prepared.file_format(goal) != prepared.ARRAY_RECORD:
    raise errors.UsageError(f'{goal} holds the set in TFRecord files: expected another data dir to write to')
  info = json.loads((folder / _INFO).read_text(encoding='utf-8'))
  jobs, shards = [], _shards(folder)
  for split, (paths, lengths) in shards.items():
    for number, (path, length) in enumerate(zip(paths, lengths, strict=True)):
      file = f'{info["name"]}-{split}.{prepared.ARRAY_RECORD}-{number:05d}-of-{len(paths):05d}'
      jobs.append(shard_jobs.Job(file, length, path))
  if not (goal / _INFO).is_file():
    plan = {'source': str(folder), 'splits': {split: lengths for split, (_, lengths) in shards.items()}}
    finish = functools.partial(
      _finish, folder, goal, info, jobs, {path for paths, _ in shards.values() for path in paths}
    )
    shard_jobs.run(goal, plan, jobs, _convert, finish, workers=workers)
  _verify(goal, jobs)
  return goal


def _below_data_dir(folder: pathlib.Path, data_dir: str | None) -> pathlib.Path:
  """`name/config/version`."""
  for root in prepared.data_dirs(data_dir):
    if folder.is_relative_to(root):
      return folder.relative_to(root)
  raise AssertionError(folder)


def _shards(folder: pathlib.Path) -> dict[str, tuple[list[str], list[int]]]:
  """Paths and lengths of the TFRecord files, by split."""
  import tensorflow_datasets as tfds

  try:
    splits = tfds.builder_from_directory(folder).info.splits
    return {
      name: ([str(path) for path in split.filepaths], [int(length) for length in split.shard_lengths])
      for name, split in splits.items()
    }
  except Exception as error:
    raise errors.UsageError(f'cannot open the data set in {folder}: {prepared.first_line(error)}') from error


def _convert(job: shard_jobs.Job, path: pathlib.Path) -> dict[str, Any]:
  """Writes one shard."""
  source = tfrecord.TFRecordFile(job.what)
  if len(source) != job.records:
    raise errors.UsageError(
      f'{job.what} holds {len(source)} records, but {_INFO} says {job.records}: truncated, or of another set'
    )

  def records() -> Iterator[bytes]:
    for index in range(len(source)):
      yield source[index]

  return {'records': array_records.write_records(path, records())}


def _finish(
  folder: pathlib.Path,
  goal: pathlib.Path,
  info: dict[str, Any],
  jobs: list[shard_jobs.Job],
  old_shards: set[str],
  facts: list[dict[str, Any]],
) -> None:
  """Verifies the shards, copies what else the set consists of, and writes the file that makes it complete."""
  assert [fact['records'] for fact in facts] == [job.records for job in jobs]
  _verify(goal, jobs)
  for path in sorted(folder.iterdir()):
    if path.is_file() and path.name != _INFO and str(path) not in old_shards and not path.name.startswith('.'):
      shutil.copyfile(path, goal / path.name)
  splits = [{**split, 'filepathTemplate': _TEMPLATE} for split in info.get('splits', ())]
  changed = {key: value for key, value in info.items() if key != 'alternativeFileFormats'}
  shard_jobs.write_json(goal / _INFO, {**changed, 'fileFormat': prepared.ARRAY_RECORD, 'splits': splits})


def _verify(goal: pathlib.Path, jobs: list[shard_jobs.Job]) -> None:
  """Raises UsageError for a shard that is missing, or has another number of records than the original."""
  for job in jobs:
    there = array_records.count_records(goal / job.file)
    if there != job.records:
      raise errors.UsageError(f'{goal / job.file} holds {there} records, expected {job.records} as in {job.what}')
