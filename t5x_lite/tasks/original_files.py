"""Reads the formats in which the original files of the sets come: lines, tables with tabs, JSON and JSON lines."""

from __future__ import annotations

import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t5x_lite.core import errors

GZIP = '.gz'


def locate(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path:
  """The first of the files `names` that is in `folder`, plain or gzipped.

  Raises:
    UsageError: none is there; the line names them.
  """
  for name in names:
    for path in (folder / name, folder / (name + GZIP)):
      if path.is_file():
        return path
  raise errors.UsageError(f'{folder} has no {" or ".join(names)} (nor {GZIP}): expected the original files of the set')


def lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """The lines of a UTF-8 text file with their numbers, from 1 on, without line ends and byte order mark."""
  number = 0
  try:
    with gzip.open(path, 'rb') if path.suffix == GZIP else path.open('rb') as file:
      for number, line in enumerate(file, 1):
        text = line.decode('utf-8').rstrip('\r\n')
        yield number, text.removeprefix('\ufeff') if number == 1 else text
  except UnicodeDecodeError as error:
    raise malformed(path, number, f'is not UTF-8: {error.reason}') from error
  except (OSError, EOFError, zlib.error) as error:
    raise unreadable(path, error) from error


def rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
  """The rows of a table with tabs, without quoting, with the numbers of their lines. Empty lines are none."""
  for number, line in lines(path):
    if line.strip():
      yield number, line.split('\t')


def json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """The objects of a file of JSON lines, with the numbers of their lines."""
  for number, line in lines(path):
    if not line.strip():
      continue
    try:
      value = json.loads(line)
    except json.JSONDecodeError as error:
      raise malformed(path, number, f'is not JSON: {error.msg}') from error
    if not isinstance(value, dict):
      raise malformed(path, number, f'holds a JSON {type(value).__name__}, expected an object')
    yield number, value


def json_file(path: pathlib.Path) -> Any:
  """What a file of JSON holds."""
  text = '\n'.join(line for _, line in lines(path))
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise malformed(path, error.lineno, f'is not JSON: {error.msg}') from error


def unreadable(path: pathlib.Path, error: Exception) -> errors.UsageError:
  """The error for a file that cannot be read at all, with the first line of what was said."""
  said = str(error).partition('\n')[0].rstrip(':')
  return errors.UsageError(f'cannot read {path}: {said}')


def malformed(path: pathlib.Path, number: int | str, what: str) -> errors.UsageError:
  """The error for a line, or another place, of a file."""
  where = f'line {number}' if isinstance(number, int) else number
  return errors.UsageError(f'{path}, {where} {what}')


def field(row: Mapping[str, Any], name: str, path: pathlib.Path, number: int | str) -> Any:
  """`row[name]`. Raises `UsageError` where there is none."""
  try:
    return row[name]
  except KeyError:
    raise malformed(path, number, f'has no {name!r}: found {", ".join(row)}') from None
