"""From the names in gin files to functions and classes.

A name is the dotted path of a public function or class of the library, or any ending of it that only one has:
`t5x_lite.training.optimizers.adafactor`, `optimizers.adafactor`, `adafactor`. The table is read off the source, so that
what is new needs no entry, and a module is imported only when a run names something in it.
"""

from __future__ import annotations

import collections
import functools
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import t5x_lite
from t5x_lite.core import errors

_DEFINITION = re.compile(r'^(?:class|def) ([A-Za-z]\w*)', re.MULTILINE)
_LIBRARY = t5x_lite.__name__
_NO_CONFIGURABLES = ('cli', 'core')


class Registry:
  """All names that gin files may use."""

  def __init__(self) -> None:
    self._by_last_name: dict[str, list[str]] = collections.defaultdict(list)
    self._aliases: dict[str, str] = {}  # The full name of what an `import ... as ...` renamed.
    for full_name in _library_names():
      self._add(full_name)

  def copy(self) -> Registry:
    """Another one, which what is imported for this one does not reach."""
    made = Registry.__new__(Registry)
    made._by_last_name = collections.defaultdict(list, {name: list(full) for name, full in self._by_last_name.items()})
    made._aliases = dict(self._aliases)
    return made

  def _add(self, full_name: str) -> None:
    names = self._by_last_name[full_name.rpartition('.')[2]]
    if full_name not in names:
      names.append(full_name)

  def add_module(self, name: str, alias: str | None, origin: str) -> None:
    """Imports a module of the user; its public functions and classes become names.

    Raises:
      UsageError: there is no such module.
    """
    try:
      module = importlib.import_module(name)
    except ModuleNotFoundError as error:
      if error.name is None or not f'{name}.'.startswith(f'{error.name}.'):
        raise  # The module is there; something that it imports is not.
      raise errors.UsageError(f'{origin}: no module {name!r} (looked along sys.path)') from error
    for attribute, value in vars(module).items():
      if callable(value) and not attribute.startswith('_'):
        full_name = f'{alias or name}.{attribute}'
        self._add(full_name)
        self._aliases[full_name] = f'{name}.{attribute}'

  def resolve(self, selector: str, origin: str) -> str:
    """The full name that `selector` is an ending of.

    Raises:
      UsageError: none has this ending (with the nearest match), or several have.
    """
    last = selector.rpartition('.')[2]
    found = [name for name in self._by_last_name.get(last, ()) if f'.{name}'.endswith(f'.{selector}')]
    if selector in found:
      return selector
    if len(found) > 1:
      raise errors.UsageError(f'{origin}: {selector!r} may be any of {", ".join(sorted(found))}')
    if not found:
      depth = selector.count('.') + 1
      known = ('.'.join(name.split('.')[-depth:]) for names in self._by_last_name.values() for name in names)
      match = errors.nearest(selector, known)
      hint = f': did you mean {match!r}?' if match else ''
      raise errors.UsageError(f'{origin}: unknown configurable {selector!r}{hint}')
    return found[0]

  def short_name(self, full_name: str) -> str:
    """The shortest ending of `full_name` that no other name has."""
    names = self._by_last_name[full_name.rpartition('.')[2]]
    components = full_name.split('.')
    for length in range(1, len(components)):
      ending = '.'.join(components[-length:])
      if sum(f'.{name}'.endswith(f'.{ending}') for name in names) == 1:
        return ending
    return full_name

  def load(self, full_name: str) -> Callable[..., Any]:
    """The function or class called `full_name`; imports its module."""
    module, _, attribute = self._aliases.get(full_name, full_name).rpartition('.')
    return getattr(importlib.import_module(module), attribute)


def _library_names() -> Iterator[str]:
  """Full names of the public functions and classes in the library's packages; the modules at the top have none."""
  root = pathlib.Path(t5x_lite.__file__).parent
  for path in sorted(root.rglob('*.py')):
    *packages, module = path.relative_to(root).with_suffix('').parts
    if module == '__init__' or not packages or packages[0] in _NO_CONFIGURABLES:
      continue
    for name in _DEFINITION.findall(path.read_text(encoding='utf-8')):
      yield '.'.join([_LIBRARY, *packages, module, name])


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """The parameters of a function or class by name, their annotations evaluated where that is possible.

  A name of `**kwargs` stands for any: see `takes_any`.
  """
  return _parameters(target) if isinstance(target, Hashable) else _parameters.__wrapped__(target)


@functools.cache  # a sweep asks for those of the same targets for every arm
def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  unwrapped = inspect.unwrap(target)
  owners = inspect.getmro(unwrapped) if inspect.isclass(unwrapped) else (unwrapped,)
  modules = [sys.modules.get(getattr(owner, '__module__', '') or '') for owner in owners]
  namespaces = [vars(module) for module in modules if module is not None]
  return {
    name: parameter.replace(annotation=_evaluated(parameter.annotation, namespaces))
    for name, parameter in inspect.signature(target).parameters.items()
  }


def takes_any(known: dict[str, inspect.Parameter]) -> bool:
  """Whether these parameters include a `**kwargs`."""
  return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())


def _evaluated(annotation: Any, namespaces: list[dict[str, Any]]) -> Any:
  """An annotation kept as text, evaluated; `Any` where there is none, or its names exist for type checkers alone."""
  if not isinstance(annotation, str):
    return Any if annotation is inspect.Parameter.empty else annotation
  for namespace in namespaces:
    try:
      return eval(annotation, namespace)
    except (NameError, AttributeError, TypeError):
      continue
  return Any
