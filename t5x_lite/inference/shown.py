"""What is made of all lines at once, whole or not at all: pages, pictures, and rows of modes that need every line."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.inference import rows
from t5x_lite.training import processes

KINDS = ('html', 'svg')
_PICTURES = ('.pdf', '.png', '.jpg', '.jpeg', '.gif', '.webp', '.eps', '.htm', '.xhtml')  # which nothing here writes


def kind_of(mode: Any, asked: str, path: str) -> str | None:
  """The member of `KINDS` that is to be made, by name or by the ending of the output; None: rows are.

  Args:
    mode: see `modes.Mode`; its `kinds`, if any, are those that it can make.
    asked: the format of the output.
    path: of the output.

  Raises:
    UsageError: the mode makes no such thing.
  """
  known = getattr(mode, 'kinds', ())
  found = (
    asked if asked in KINDS else next((kind for kind in KINDS if asked == 'auto' and path.endswith(f'.{kind}')), None)
  )
  ending = pathlib.PurePath(path).suffix.lower()
  if asked == 'auto' and ending in _PICTURES:
    raise errors.UsageError(f'--output={path}: nothing here writes {ending}: expected .{", .".join((*known, "jsonl"))}')
  if found is None or found in known:
    return found
  if asked == 'auto' and not known:
    return None  # JSON lines, as behind any ending that says nothing
  raise errors.UsageError(f'this mode makes no {found}: expected {", ".join((*known, "text", "jsonl", "csv"))}')


def whole(made: Iterable[Mapping[str, Any]], mode: Any) -> list[Mapping[str, Any]]:
  """The rows of all lines, or what a mode makes of them in the end. Bad lines are told on stderr, and left out.

  Raises:
    UsageError: there is no line, or none that is good.
  """
  found: list[Mapping[str, Any]] = []
  bad: list[Mapping[str, Any]] = []
  for row in made:
    (bad if 'error' in row else found).append(row)
  told = [f'line {row["line"]}: {row["error"]}' for row in bad]
  if not found:
    raise errors.UsageError(told[0] if told else 'no lines: expected at least one')
  for line in told:
    print(f'{line} (left out)', file=sys.stderr)
  return mode.finish(found) if hasattr(mode, 'finish') else found


def write(found: Sequence[Mapping[str, Any]], mode: Any, kind: str, path: str, title: str) -> None:
  """Writes a page, a picture or rows.

  Args:
    found: from `whole`.
    mode: that made them.
    kind: a member of `KINDS`, or a format of rows.
    path: where to; `-` is standard output.
    title: of a page.

  Raises:
    UsageError: it cannot be written.
  """
  if kind in KINDS:
    text = mode.render(found, kind, title)
  else:
    lines = (rows.write(row, kind, first=place == 0, columns=mode.columns) for place, row in enumerate(found))
    text = ''.join(f'{line}\n' for line in lines)
  if not processes.is_primary():
    return
  if path == '-':
    sys.stdout.write(text)
    sys.stdout.flush()
    return
  target = pathlib.Path(path).expanduser()
  temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, target)
  except OSError as error:
    raise errors.UsageError(f'{path}: {error.strerror}') from error
  finally:
    temporary.unlink(missing_ok=True)
