"""Errors that are the user's to mend: one line that says what came, what was expected and what comes nearest."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

LOST = 4  # The exit code of a run that has lost a process, or hangs; started again, it goes on.

_MOST_NAMES = 60  # in a message


class UsageError(ValueError):
  """Bad input. The entry points print its one line and exit with code 2; anything else is a bug and has a traceback."""


def together(*steps: Callable[[], Any]) -> list[Any]:
  """What each of the steps returns; if some raise UsageError, one error that says what all of them say."""
  results: list[Any] = []
  told: dict[str, None] = {}
  for step in steps:
    try:
      results.append(step())
    except UsageError as error:
      told[str(error)] = None
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
