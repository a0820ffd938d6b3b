"""Data sets of the Hugging Face library `datasets` on disk, read without it: their Arrow files are mapped.

Two layouts are known: what `save_to_disk` writes (`state.json`, and `dataset_dict.json` above several splits), and the
cache of the library (`<name>-<split>.arrow` or `<name>-<split>-00000-of-00002.arrow` beside `dataset_info.json`).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import files
from t5x_lite.data.formats.file_records import FileRecords

_STATE, _DICT = 'state.json', 'dataset_dict.json'
_CACHED = re.compile(r'(?P<name>.+?)-(?P<split>[\w.]+?)(-\d{5}-of-(?P<count>\d{5}))?\.arrow')
_DERIVED = ('cache-', 'tmp')  # what `map` and `filter` have left behind


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
  """A data set that `datasets` has written. Class labels are ints, translations dicts, as TFDS has them.

  Attributes:
    directory: the folder that `save_to_disk` was given, or a folder of the library's cache with Arrow files in it.
    skip_bad: leave records out that are not UTF-8, and count them.
  """

  directory: str
  skip_bad: bool = False

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits."""
    return tuple(self._files())

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return len(self.random_access(split))

  def random_access(self, split: str) -> FileRecords:
    """The records of `split`."""
    records = self._source().random_access(split)
    assert isinstance(records, FileRecords)
    return records

  def fingerprint(self, split: str | None = None) -> str:
    """Hex SHA-256 of the Arrow files, see `files.FilesSource`."""
    return self._source().fingerprint(split)

  def _source(self) -> files.FilesSource:
    return files.FilesSource(self._files(), format='arrow', skip_bad=self.skip_bad)

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
