"""Data sets of the Hugging Face library `datasets` on disk, read without it: their Arrow files are mapped.

Two layouts are known: what `save_to_disk` writes (`state.json`, and `dataset_dict.json` above several splits), and the
cache of the library (`<name>-<split>.arrow` or `<name>-<split>-00000-of-00002.arrow` beside `dataset_info.json`). A gin
file names one with no code to write:

    MIXTURE_OR_TASK_NAME = @huggingface()
    huggingface.directory = '/data/wikitext'
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import files, held_out, task
from t5x_lite.data.formats.file_records import FileRecords

_STATE, _DICT = 'state.json', 'dataset_dict.json'
_CACHED = re.compile(r'(?P<name>.+?)-(?P<split>[\w.]+?)(-\d{5}-of-(?P<count>\d{5}))?\.arrow')
_DERIVED = ('cache-', 'tmp')  # what `map` and `filter` have left behind


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
  """A data set that `datasets` has written. Class labels are ints, translations dicts, as TFDS has them.

  Attributes:
    directory: the folder that `save_to_disk` was given, or a folder of the library's cache with Arrow files in it.
    skip_bad: leave bad records out, and count them.
    fields: names of fields that every record must have, with text or a number.
    validation_share: of the records of `train` that make a `validation` split of their own, see `files.FilesSource`.
  """

  directory: str
  skip_bad: bool = False
  fields: tuple[str, ...] = ()
  validation_share: float = 0.0

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits."""
    return self._source().splits

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return len(self.random_access(split))

  def random_access(self, split: str) -> FileRecords | held_out.HeldOut:
    """The records of `split`."""
    return self._source().random_access(split)

  def fingerprint(self, split: str | None = None) -> str:
    """Hex SHA-256 of the Arrow files, see `files.FilesSource`."""
    return self._source().fingerprint(split)

  def _source(self) -> files.FilesSource:
    return files.FilesSource(
      self._files(),
      format='arrow',
      fields=self.fields,
      validation_share=self.validation_share,
      skip_bad=self.skip_bad,
    )

  def _files(self) -> dict[str, list[str]]:
    """The Arrow files by split. Raises `UsageError` if the folder holds no data set, or not all of it."""
    folder = pathlib.Path(self.directory).expanduser().absolute()
    if (folder / _DICT).is_file():
      splits = _json(folder / _DICT).get('splits', [])
      return {split: _saved(folder / split) for split in splits}
    if (folder / _STATE).is_file():
      return {_json(folder / _STATE).get('_split') or files.TRAIN: _saved(folder)}
    if found := _cached(folder):
      return found
    raise errors.UsageError(
      f'no data set of Hugging Face in {folder}: expected {_DICT} or {_STATE} as save_to_disk writes them, or the '
      f'Arrow files of the cache'
    )


def huggingface(
  directory: str,
  *,
  text_field: str = 'text',
  inputs_field: str | None = None,
  targets_field: str | None = None,
  splits: Mapping[str, str] | None = None,
  validation_share: float = 0.0,
  skip_bad: bool = False,
  metrics: tuple[str, ...] = (),
  name: str = 'huggingface',
) -> task.Task:
  """A task over a data set that `datasets` has written: unsupervised, or with inputs and targets a supervised one.

  Args:
    directory: of the data set, see `HuggingFaceSource`, as are `validation_share` and `skip_bad`.
    text_field: the field with the document.
    inputs_field: the field with the inputs of a supervised task.
    targets_field: the field with its targets. A class label is a number there.
    splits: `{'train': ..., 'validation': ...}`, what the data set calls them; None: the same.
    validation_share: of the records of `train` that are held out for validation.
    skip_bad: leave bad records out and count them.
    metrics: names of the metrics that predictions are scored with.
    name: of the task, in logs and results.

  Raises:
    UsageError: an argument is not what it should be. The folder is opened later.
  """
  fields = files.example_fields(name, text_field, inputs_field, targets_field)
  source = HuggingFaceSource(directory, skip_bad, tuple(fields.values()), validation_share)
  return files.task_of_fields(name, source, fields, splits=splits, metrics=tuple(metrics))


def _saved(folder: pathlib.Path) -> list[str]:
  """The files of one split that `save_to_disk` has written."""
  state = _json(folder / _STATE)
  if state.get('_indices_data_files') or state.get('_indices_files'):
    raise errors.UsageError(f'{folder} is a selection of rows by an index: flatten_indices() it before it is saved')
  names = [entry['filename'] for entry in state.get('_data_files', ())]
  missing = [name for name in names if not (folder / name).is_file()]
  if missing or not names:
    raise errors.UsageError(
      f'cannot read the data set in {folder}: {", ".join(missing) or "its Arrow file"} is missing'
    )
  return [str(folder / name) for name in names]


def _cached(folder: pathlib.Path) -> dict[str, list[str]]:
  """The files in a folder of the cache, by split."""
  found: dict[str, list[str]] = {}
  counts: dict[str, int] = {}
  for path in sorted(folder.glob('*.arrow')):
    match = _CACHED.fullmatch(path.name)
    if match is not None and not path.name.startswith(_DERIVED):
      found.setdefault(match['split'], []).append(str(path))
      counts[match['split']] = int(match['count'] or 1)
  for split, paths in found.items():
    if len(paths) != counts[split]:
      raise errors.UsageError(
        f'split {split!r} of {folder}: got {len(paths)} Arrow files, expected {counts[split]}: some are missing'
      )
  return found


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UsageError(f'cannot read {path}: {error}') from error
