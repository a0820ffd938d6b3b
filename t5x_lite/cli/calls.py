"""A resolved configuration: a tree of calls, which can be listed and then made."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from t5x_lite.cli.statements import replace

Scope = tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
  """A call with all macros resolved: of a function or class, with values that are literals or calls themselves.

  Attributes:
    target: full name of the function or class.
    scope: the scope it is called in.
    arguments: what the gin files bind.
    defaults: the parameters that they leave alone.
    called: False for the callable itself, with its arguments bound.
  """

  target: str
  scope: Scope
  arguments: dict[str, Any]
  defaults: dict[str, Any]
  called: bool = True


def walk(call: Call) -> Iterator[Call]:
  """`call` and every call in its arguments, each once, outer ones first."""
  seen: dict[int, Call] = {}

  def visit(inner: Call) -> None:
    if id(inner) not in seen:
      seen[id(inner)] = inner
      replace(list(inner.arguments.values()), Call, visit)

  visit(call)
  yield from seen.values()


def build(call: Call, load: Callable[[str], Callable[..., Any]], **given: Any) -> Any:
  """Makes what a call describes, inner calls first; a call that is used twice is made once.

  Args:
    call: the outermost call.
    load: from a full name to the function or class.
    **given: further arguments of the outermost call.
  """
  made: dict[int, Any] = {}

  def make(inner: Call) -> Any:
    if id(inner) not in made:
      target = load(inner.target)
      arguments = replace(inner.arguments, Call, make)
      if inner.called:
        made[id(inner)] = target(**arguments)
      else:
        made[id(inner)] = functools.partial(target, **arguments) if arguments else target
    return made[id(inner)]

  return load(call.target)(**replace(call.arguments, Call, make), **given)
