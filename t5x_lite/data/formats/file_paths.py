"""From what a user names (a file, a folder, a pattern, several of them) to files, always in the same order."""

from __future__ import annotations

import glob
import logging
import os
import pathlib
from collections.abc import Callable, Sequence

from t5x_lite.core import errors

_PATTERN_CHARACTERS = '*?['
_NAMED = 8  # files that an error names
_log = logging.getLogger(__name__)


def expand(path: str | Sequence[str], is_data: Callable[[str], bool]) -> list[str]:
  """The files that `path` stands for: names in the order given, what each stands for sorted, no file twice.

  Args:
    path: files, folders and patterns (`*`, `?`, `[...]`, and `**` for folders within folders). Of a folder, all files
      in it and below that are not hidden.
    is_data: whether a file in a folder is to be read; those that are not are logged.

  Raises:
    UsageError: there is no such file, or nothing matches.
  """
  found: dict[str, None] = {}
  for name in [path] if isinstance(path, str) else path:
    for file in _matches(name):
      found.update(dict.fromkeys(_below(file, is_data) if os.path.isdir(file) else [file]))
  if not found:
    raise errors.UsageError(f'got no file to read from {path!r}')
  return list(found)


def _matches(name: str) -> list[str]:
  """What is there of the name `name`, sorted."""
  if '://' in name:
    raise errors.UsageError(f'cannot read {name}: expected a local file (mount the bucket, or copy the files)')
  pattern = os.path.abspath(os.path.expanduser(name))
  if os.path.exists(pattern):  # which may have a [ in its name
    return [pattern]
  is_pattern = any(character in pattern for character in _PATTERN_CHARACTERS)
  found = sorted(glob.glob(pattern, recursive=True)) if is_pattern else []
  files = [file for file in found if not (os.path.isdir(file) and '**' in pattern)]  # ** names folders and their files
  if not files:
    kind = 'file matches' if is_pattern else 'file or folder'
    raise errors.UsageError(f'no {kind} {name!r}{_what_is_there(pattern)}')
  return files


def _below(folder: str, is_data: Callable[[str], bool]) -> list[str]:
  """The files in `folder` that are to be read. Raises `UsageError` if there are none."""
  inside = [path for path in sorted(pathlib.Path(folder).rglob('*')) if path.is_file()]
  shown = [path for path in inside if not _hidden(path.relative_to(folder))]
  taken = [str(path) for path in shown if is_data(str(path))]
  left_out = [path.name for path in shown if str(path) not in set(taken)]
  if not taken:
    there = f' (it holds {_some(left_out)})' if left_out else ''
    raise errors.UsageError(f'no file in {folder} has a format that is known by its name{there}: say which it is')
  if left_out:
    _log.warning('%s: %d files are not read, for their format is unknown: %s', folder, len(left_out), _some(left_out))
  return taken


def _hidden(path: pathlib.Path) -> bool:
  """Whether Unix (`.x`) or Hadoop (`_SUCCESS`) hide a file or a folder that it is in."""
  return any(part.startswith(('.', '_')) for part in path.parts)


def _what_is_there(pattern: str) -> str:
  """The folder that exists above `pattern`, and what is in it."""
  folder = pathlib.Path(pattern).parent
  while not folder.is_dir():
    folder = folder.parent
  names = sorted(path.name for path in folder.iterdir() if not path.name.startswith('.'))
  match = errors.nearest(os.path.basename(pattern), names)
  if match is not None:
    return f': did you mean {match!r} in {folder}?'
  return f': {folder} holds {_some(names) or "nothing"}'


def _some(names: Sequence[str]) -> str:
  more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
  return ', '.join(names[:_NAMED]) + more
