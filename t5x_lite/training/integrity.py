"""Checkpoint folders: how they are named, which of them is the newest good one, and what is wrong with the others.

Orbax commits a checkpoint by an atomic rename, so that a killed save is never mistaken for a good one. It does not
notice bytes that change afterwards (array data carry no checksum) and finds missing files only while reading. So a
record of every file's size and CRC-32 is written into the folder just before the rename, and compared before a restore.
CRC-32 because it finds every single burst of up to 32 bits and costs a fraction of the time the files take to read.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import pathlib
import re
import zlib

from t5x_lite.core import errors

_LOG = logging.getLogger(__name__)

RECORD = 'integrity.json'
PREFIX = 'checkpoint'  # T5X's: `MODEL_DIR/checkpoint_1000`.

_STEP_FOLDER = re.compile(rf'{PREFIX}_(0|[1-9]\d*)')
_METADATA = '_CHECKPOINT_METADATA'
# Written by Orbax after the record, while it commits: their contents cannot be in it.
_COMMITTED_LATER = (_METADATA, 'commit_success.txt')
_CHUNK_BYTES = 1 << 22
_SMALL_BYTES = 1 << 16


def step_folder(directory: pathlib.Path, step: int) -> pathlib.Path:
  """The folder of one step: `directory/checkpoint_<step>`."""
  return directory / f'{PREFIX}_{step}'


def step_of(folder: pathlib.Path) -> int | None:
  """The step of a checkpoint folder, judged by its name alone; None if it is not the name of one."""
  match = _STEP_FOLDER.fullmatch(folder.name)
  return int(match[1]) if match else None


def steps(directory: pathlib.Path) -> list[int]:
  """The steps that have a committed checkpoint folder in `directory`, ascending. Nothing is opened."""
  if not directory.is_dir():
    return []
  found = (step_of(path) for path in directory.iterdir() if path.is_dir())
  return sorted(step for step in found if step is not None)


def holds_checkpoints(path: pathlib.Path) -> bool:
  """Whether `path` is one of our checkpoints, good or damaged, or the folder of some. Others lack the record."""
  folders = [path] if step_of(path) is not None else [step_folder(path, step) for step in steps(path)]
  return any((folder / RECORD).is_file() for folder in folders)


def write_record(folder: pathlib.Path) -> None:
  """Writes `integrity.json` into `folder`: the size and CRC-32 of every file below it."""
  names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
  names = [name for name in names if name not in (*_COMMITTED_LATER, RECORD)]
  sizes = [(folder / name).stat().st_size for name in names]
  entries = zip(names, sizes, _checksums(folder, names), strict=True)
  record = {'version': 1, 'files': {name: {'bytes': size, 'crc32': crc} for name, size, crc in entries}}
  (folder / RECORD).write_text(json.dumps(record))


def find_damage(folder: pathlib.Path, *, thorough: bool = True) -> str | None:
  """Says what is wrong with a checkpoint, or returns None if nothing is.

  Args:
    folder: of one step.
    thorough: compare the bytes of every file. If False: all sizes, and the bytes of files up to 64 KiB only, which
      takes no noticeable time and covers everything but the arrays.
  """
  record = _read_json(folder / RECORD)
  if isinstance(record, str):
    return record
  commit = _read_json(folder / _METADATA)
  if isinstance(commit, str):
    return commit
  try:
    expected = {name: (entry['bytes'], entry['crc32']) for name, entry in record['files'].items()}
  except (KeyError, TypeError, AttributeError):
    return f'{RECORD} is not a record of files'
  for name, (size, _) in expected.items():
    path = folder / name
    if not path.is_file():
      return f'{name} is missing'
    if path.stat().st_size != size:
      return f'{name} has {path.stat().st_size} bytes instead of {size}'
  to_read = [name for name, (size, _) in expected.items() if thorough or size <= _SMALL_BYTES]
  for name, crc in zip(to_read, _checksums(folder, to_read), strict=True):
    if crc != expected[name][1]:
      return f'{name} has changed bytes (CRC-32 {crc:08x} instead of {expected[name][1]:08x})'
  return None


def set_aside(folder: pathlib.Path) -> pathlib.Path:
  """Renames a damaged checkpoint, so that its step can be saved again; nothing is deleted. Returns the new path."""
  target = folder.with_name(f'{folder.name}.damaged')
  count = 1
  while target.exists():
    count += 1
    target = folder.with_name(f'{folder.name}.damaged{count}')
  return folder.rename(target)


def search(directory: pathlib.Path, *, thorough: bool = True) -> tuple[int | None, list[tuple[int, str]]]:
  """The newest good step, and `(step, what is wrong)` of every damaged one; the older ones get a quick look only."""
  good, damaged = None, []
  for step in reversed(steps(directory)):
    folder = step_folder(directory, step)
    damage = find_damage(folder, thorough=thorough and good is None)
    if damage is not None:
      damaged.append((step, damage))
    elif good is None:
      good = step
  return good, damaged


def report(directory: pathlib.Path, good: int | None, damaged: list[tuple[int, str]]) -> None:
  """Logs one warning line for each damaged checkpoint.

  Args:
    directory: that was searched.
    good: as returned by `search`.
    damaged: as returned by `search`.

  Raises:
    UsageError: all are damaged. A run must not silently start from scratch then.
  """
  if damaged and good is None:
    step, damage = damaged[0]
    raise errors.UsageError(
      f'all {len(damaged)} checkpoints in {directory} are damaged ({PREFIX}_{step}: {damage}); '
      'to start from scratch, remove them or choose another directory'
    )
  for step, damage in damaged:
    used = f'; using {PREFIX}_{good}' if good is not None and step > good else ''
    _LOG.warning('checkpoint %s is damaged: %s%s', step_folder(directory, step), damage, used)


def _read_json(path: pathlib.Path) -> dict | str:
  """The object in a JSON file, or what is wrong with the file."""
  try:
    value = json.loads(path.read_bytes())
  except FileNotFoundError:
    return f'{path.name} is missing'
  except (OSError, ValueError) as error:
    return f'{path.name} cannot be read ({type(error).__name__})'
  return value if isinstance(value, dict) else f'{path.name} does not hold an object'


def _checksum(path: pathlib.Path) -> int:
  value = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      value = zlib.crc32(chunk, value)
  return value


def _checksums(folder: pathlib.Path, names: list[str]) -> list[int]:
  """CRC-32 of each file, on a few threads: zlib and read() both release the GIL."""
  with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
    return list(pool.map(lambda name: _checksum(folder / name), names))
