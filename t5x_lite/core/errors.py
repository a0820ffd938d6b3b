"""Errors that are the user's to mend: one line that says what came, what was expected and what comes nearest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

LOST = 4  # The exit code of a run that has lost a process, or hangs; started again, it goes on.

_MOST_NAMES = 60  # in a message
_MOST_BRIEF = 3
_BRIEF = 80


class UsageError(ValueError):
  """Bad input. The entry points print its one line and exit with code 2; anything else is a bug and has a traceback.

  Args:
    message: the line.
    brief: the same in a few words, where it stands beside others like it; None: the beginning of the line.
  """

  def __init__(self, message: str = '', brief: str | None = None):
    super().__init__(message)
    self.brief = brief if brief is not None else message[:_BRIEF]


def together(*steps: Callable[[], Any], more: str = '') -> list[Any]:
  """What each of the steps returns; if some raise UsageError, one error that says what all of them say.

  Of more than three, the first is told in full, a few others briefly, and the rest counted.

  Args:
    *steps: are called one after the other.
    more: where all of them are told.
  """
  results: list[Any] = []
  told: dict[str, UsageError] = {}
  for step in steps:
    try:
      results.append(step())
    except UsageError as error:
      told.setdefault(str(error), error)
  if len(told) > 3:
    first, *others = told.values()
    briefly = ', '.join(error.brief for error in others[:_MOST_BRIEF])
    rest = f' and {len(others) - _MOST_BRIEF} more' if len(others) > _MOST_BRIEF else ''
    raise UsageError(f'{first}; and {len(others)} others: {briefly}{rest}{f" ({more})" if more else ""}')
  if told:
    raise UsageError('; and '.join(told))
  return results


def nearest(name: str, known: Iterable[str]) -> str | None:
  """The member of `known` most like `name`, or None if none is close."""
  found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
  return found[0] if found else None


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
  """`unknown task 'c5_en': did you mean 'c4_en'?`, or a list where nothing is close."""
  names = sorted(known)
  match = nearest(name, names)
  if match is not None:
    return UsageError(f'unknown {kind} {name!r}: did you mean {match!r}?')
  more = f' and {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
  return UsageError(
    f'unknown {kind} {name!r}: expected one of {", ".join(names[:_MOST_NAMES]) or "(none exist)"}{more}'
  )
