"""Finds data sets that TFDS has prepared, and says in one line what is missing where it does not.

TFDS itself answers a wrong version, an absent config and an absent data set alike with a "not found" and a list of
hundreds of names, and may ask the network first. A prepared data set is a folder,
`<data dir>/<name>[/<config>]/<version>`.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

from t5x_lite.core import errors

DATA_DIR_VARIABLE = 'TFDS_DATA_DIR'
DEFAULT_DATA_DIR = '~/tensorflow_datasets'
ARRAY_RECORD, TFRECORD = FILE_FORMATS = ('array_record', 'tfrecord')  # those that are read, the better one first

_NAME = re.compile(r'(?P<name>\w+)(/(?P<config>[\w.+=-]+))?(:(?P<version>\d+\.\d+\.\d+))?')
_VERSION = re.compile(r'\d+\.\d+\.\d+')
_INFO = 'dataset_info.json'


def data_dirs(data_dir: str | None = None) -> list[pathlib.Path]:
  """Where to look: `data_dir` alone if given, else `$TFDS_DATA_DIR` if set, and TFDS's default."""
  chosen = [data_dir] if data_dir else [os.environ.get(DATA_DIR_VARIABLE), DEFAULT_DATA_DIR]
  for name in filter(None, chosen):
    if '://' in name:
      raise errors.UsageError(
        f'cannot read the TFDS data dir {name}: expected a local folder (mount the bucket, or copy the set)'
      )
  return [pathlib.Path(name).expanduser().absolute() for name in chosen if name]


def locate(name: str, data_dir: str | None = None) -> pathlib.Path:
  """The version folder of the data set `name` (`c4/en:3.1.0`; without a version, the newest there is).

  Raises:
    UsageError: no such data set, config or version in any data dir, or it is in files of another format than those of
      `FILE_FORMATS`.
  """
  parsed = _NAME.fullmatch(name)
  if parsed is None:
    raise errors.UsageError(f'bad data set name {name!r}: expected such as name, name/config or name/config:1.0.0')
  looked_in = data_dirs(data_dir)
  below = pathlib.PurePath(parsed['name'], parsed['config'] or '')
  for folder in looked_in:
    versions = _versions(folder / below)
    version = parsed['version'] or next(iter(versions), None)
    if version in versions:
      file_format(folder / below / version)
      return folder / below / version
  raise errors.UsageError(
    f'data set {name!r} is not prepared: looked for {below}/{parsed["version"] or "<version>"} '
    f'in {", ".join(map(str, looked_in))}{_what_is_there(looked_in, parsed)}; needed: the set as TFDS prepares it, '
    f'best with file_format={ARRAY_RECORD!r}, in one of these folders or in a data dir that ${DATA_DIR_VARIABLE} names',
    brief=f'data set {name!r}',
  )


def file_format(folder: pathlib.Path) -> str:
  """The format of the files in a version folder: the first of `FILE_FORMATS` that it has.

  Raises:
    UsageError: it has none of them.
  """
  info = _read_info(folder / _INFO)
  kept_in = info.get('fileFormat') or TFRECORD  # sets older than the field are TFRecord
  there = (kept_in, *info.get('alternativeFileFormats', ()))
  for known in FILE_FORMATS:
    if known in there:
      return known
  raise errors.UsageError(
    f'data set in {folder} is kept in {kept_in} files: expected {" or ".join(FILE_FORMATS)}; prepare it with TFDS and '
    f'file_format={ARRAY_RECORD!r}'
  )


def _read_info(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UsageError(f'cannot read {path}: {error}') from error


def first_line(error: BaseException) -> str:
  """The first line of an error's text, at most 200 characters: TFDS appends pages."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def _versions(folder: pathlib.Path) -> list[str]:
  """The prepared versions in `folder`, newest first."""
  found = [path.name for path in _subfolders(folder) if _VERSION.fullmatch(path.name) and (path / _INFO).is_file()]
  return sorted(found, key=lambda version: [int(part) for part in version.split('.')], reverse=True)


def _configs(folder: pathlib.Path) -> list[str]:
  """The configs in `folder` of which there is a prepared version."""
  return sorted(path.name for path in _subfolders(folder) if _versions(path))


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return [path for path in folder.iterdir() if path.is_dir()]
  except OSError:
    return []


def _what_is_there(looked_in: list[pathlib.Path], parsed: re.Match[str]) -> str:
  """What comes nearest to the data set asked for: its versions, its configs, or one of a similar name."""
  for root in looked_in:
    folder = root / parsed['name'] / (parsed['config'] or '')
    if versions := _versions(folder):
      return f' (found versions {", ".join(versions)} in {folder})'
    if parsed['version'] and (folder / parsed['version']).is_dir():
      return f' (found {folder / parsed["version"]}, but without {_INFO}: not prepared to the end)'
  for root in looked_in:
    if configs := _configs(root / parsed['name']):
      return f' (found configs {", ".join(configs)} in {root / parsed["name"]})'
    if versions := _versions(root / parsed['name']):
      return f' (found versions {", ".join(versions)} in {root / parsed["name"]}, without a config)'
    if match := errors.nearest(parsed['name'], [path.name for path in _subfolders(root)]):
      return f' (found {match} in {root})'
  return ''
