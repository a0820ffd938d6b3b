"""Lines in, rows out: text, JSON lines or CSV on either side; a bad line is a row that says so."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.training.writers import to_json

FORMATS = ('auto', 'text', 'jsonl', 'csv')
_ENDINGS = {'.jsonl': 'jsonl', '.json': 'jsonl', '.csv': 'csv'}


class Line(NamedTuple):
  """A line of the input.

  Attributes:
    number: counted from 1; of a CSV, from the line behind the header.
    fields: what it holds, by name; None where it is bad.
    error: what is wrong with it.
  """

  number: int
  fields: Mapping[str, str] | None
  error: str | None = None


def format_of(asked: str, path: str, default: str = 'text') -> str:
  """The format that was asked for, or that the ending of a file's name tells."""
  if asked != 'auto':
    return asked
  return next((name for ending, name in _ENDINGS.items() if path.endswith(ending)), default)


def read(lines: Iterable[bytes], kind: str, field: str = 'inputs') -> Iterator[Line]:
  """The lines of a file in UTF-8.

  Args:
    lines: raw; of a CSV, whose fields may have line ends in them, too.
    kind: 'text', a line of which is all one field; 'jsonl', an object in each line; or 'csv', whose first line names
      the fields.
    field: the name of that field, T5X's "inputs", or "targets".
  """
  if kind == 'csv':
    yield from _read_csv(lines)
    return
  for number, raw in enumerate(lines, start=1):
    try:
      text = raw.decode('utf-8-sig' if number == 1 else 'utf-8').rstrip('\r\n')
      yield Line(number, _object(text) if kind == 'jsonl' else {field: text})
    except UnicodeDecodeError as error:
      yield Line(number, None, f'not UTF-8: byte {error.start + 1} is 0x{raw[error.start]:02x}')
    except ValueError as error:
      yield Line(number, None, str(error))


def _read_csv(lines: Iterable[bytes]) -> Iterator[Line]:
  text = (raw.decode('utf-8-sig' if place == 0 else 'utf-8', errors='replace') for place, raw in enumerate(lines))
  csv.field_size_limit(sys.maxsize)  # a context may be a book
  reader = csv.reader(text)
  names = next(reader, [])
  number = 0
  for values in reader:
    if not values:  # a blank line
      continue
    number += 1
    if len(values) != len(names):
      yield Line(number, None, f'got {len(values)} fields, expected {len(names)}: {", ".join(names)}')
    elif any('\ufffd' in value for value in values):
      yield Line(number, None, 'not UTF-8')
    else:
      yield Line(number, dict(zip(names, values, strict=True)))


def _object(text: str) -> dict[str, Any]:
  try:
    row = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'not JSON: {error}') from error
  if not isinstance(row, dict):
    raise ValueError(f'got a JSON {type(row).__name__}, expected an object')
  return row


def text_field(fields: Mapping[str, Any], *names: str) -> str:
  """The text under the first of these names that there is. Raises ValueError where there is none."""
  name = next((name for name in names if name in fields), None)
  wanted = ' or '.join(f'"{name}"' for name in names)
  if name is None:
    raise ValueError(f'expected a string under {wanted}, got the keys {sorted(fields)}')
  if not isinstance(fields[name], str):
    raise ValueError(f'expected a string under "{name}", got {fields[name]!r}')
  return fields[name]


def plain(value: Any) -> Any:
  """A value of a row with its arrays as lists, of numbers of six digits behind the point."""
  if isinstance(value, np.ndarray):
    return np.round(value.astype(np.float64), 6).tolist()
  if isinstance(value, Mapping):
    return {name: plain(each) for name, each in value.items()}
  return [plain(each) for each in value] if isinstance(value, list) else value


def write(row: Mapping[str, Any], kind: str, first: bool, columns: Sequence[str] = ()) -> str:
  """A row as text, without the end of its last line.

  Args:
    row: by name.
    kind: 'jsonl'; 'text', the prediction alone; or 'csv'.
    first: whether it is the first row, before which a CSV has its header.
    columns: of a CSV; those that a row does not have are empty; without any, those of the row.
  """
  row = plain(row)
  if kind == 'jsonl':
    return to_json(row)
  if kind == 'text':
    return str(row.get('prediction', row.get('error', ''))).replace('\n', ' ')
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  names = columns or tuple(row)
  if first:
    writer.writerow(names)
  values = [row.get(name, '') for name in names]
  writer.writerow([value if isinstance(value, str | int | float) else json.dumps(value) for value in values])
  return buffer.getvalue().rstrip('\n')
