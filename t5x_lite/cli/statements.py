"""What a gin file says, as data: bindings of literals, `%MACRO`s and `@references`, and where each was written."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any

REQUIRED = 'gin.REQUIRED'  # `%gin.REQUIRED` stands for a value that a later file or flag has to give.


@dataclasses.dataclass(frozen=True)
class Macro:
  """`%NAME`: the value bound to a name."""

  name: str

  def __repr__(self) -> str:
    return f'%{self.name}'


@dataclasses.dataclass(frozen=True)
class Reference:
  """`@scope/selector()`: what calling a function or class gives; without `()`, the callable itself.

  Attributes:
    selector: the dotted name, or an ending of it.
    scope: names of the scopes it is called in, outermost first.
    call: whether it is called.
  """

  selector: str
  scope: tuple[str, ...] = ()
  call: bool = True

  def __repr__(self) -> str:
    return f'@{"/".join((*self.scope, self.selector))}{"()" if self.call else ""}'


@dataclasses.dataclass(frozen=True, eq=False)
class Binding:
  """`scope/selector.parameter = value`, or `MACRO = value`, where selector is empty and parameter is the macro's name.

  Attributes:
    origin: where it was written, such as `models/t5_small.gin:7` or `--gin.TRAIN_STEPS`.
    spelling: of a number on the command line, for it may be meant as a string, such as the name of a folder.
  """

  scope: str
  selector: str
  parameter: str
  value: Any
  origin: str
  spelling: str | None = None

  @property
  def name(self) -> str:
    """The left-hand side, as one writes it."""
    scope = f'{self.scope}/' if self.scope else ''
    return f'{scope}{self.selector}.{self.parameter}' if self.selector else f'{scope}{self.parameter}'


@dataclasses.dataclass(frozen=True)
class Import:
  """`import module`, or `from package import module as alias`: its public functions and classes become names."""

  module: str
  alias: str | None
  origin: str

  def __str__(self) -> str:
    return f'import {self.module} as {self.alias}' if self.alias else f'import {self.module}'


def parts(value: Any) -> Iterator[Macro | Reference]:
  """The macros and references in a value, inside lists, tuples and dicts too."""
  found: list[Macro | Reference] = []
  replace(value, Macro | Reference, found.append)
  yield from found


def replace(value: Any, kind: type | types.UnionType, function: Callable[[Any], Any]) -> Any:
  """`value` with each part of a kind replaced by `function` of it, inside lists, tuples and dicts too."""
  if isinstance(value, kind):
    return function(value)
  if isinstance(value, dict):
    return {replace(key, kind, function): replace(item, kind, function) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(replace(item, kind, function) for item in value)
  return value
