"""Whether a literal from a gin file suits the annotation of the parameter that it is bound to."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import pathlib
import types
import typing
from typing import Any

_LITERALS = (str, int, float, bool, type(None), list, tuple, dict)
# Where classes come from that literals may stand for: types of literals, paths, dtypes.
_LITERAL_MODULES = ('builtins', 'collections', 'typing', 'os', 'pathlib', 'numpy', 'jax', 'ml_dtypes')


class Mismatch(Exception):
  """A value of another type than the annotation's; the text says what was expected and what came."""


def conform(value: Any, annotation: Any) -> Any:
  """`value` as the annotation wants it: an int becomes a float where a float is meant, a list a tuple.

  What is not literal (an object that a reference makes) is taken as it is.

  Raises:
    Mismatch: the value is of another type.
  """
  if not isinstance(value, _LITERALS) or annotation is Any:
    return value
  options = _options(annotation)
  # An exact type first: of `int | float`, 1 is the int.
  for option in sorted(options, key=lambda option: option is not type(value)):
    try:
      return _conform_one(value, option)
    except Mismatch as error:
      inner = error
  if len(options) == 1 and typing.get_origin(options[0]) is not None:
    raise inner
  raise Mismatch(_expected(annotation, value))


def check_made(target: Any, called: bool, annotation: Any) -> None:
  """Checks what a reference to `target` makes, as far as that is known: what a class makes, and that it is called.

  Raises:
    Mismatch: it is not of the annotation's type.
  """
  options = _options(annotation)
  if not all(inspect.isclass(option) and _made_by_reference(option) for option in options if option is not type(None)):
    return
  if not called:
    raise Mismatch(f'expected {_names(annotation)}, got @{target.__name__} itself: did you mean @{target.__name__}()?')
  protocol = any(getattr(option, '_is_protocol', False) for option in options)  # Met by whatever has its methods.
  if inspect.isclass(target) and not protocol and not issubclass(target, options):
    raise Mismatch(f'expected {_names(annotation)}, got @{target.__name__}()')


def takes_text(annotation: Any) -> bool:
  """Whether any string suits the annotation."""
  return any(option in (str, pathlib.Path) for option in _options(annotation))


def wants_reference(annotation: Any) -> bool:
  """Whether the annotation is of an object that only a reference can make."""
  return any(_made_by_reference(typing.get_origin(option) or option) for option in _options(annotation))


def _options(annotation: Any) -> tuple[Any, ...]:
  """The members of a union; anything else is its own only member."""
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    return tuple(option for member in typing.get_args(annotation) for option in _options(member))
  return (annotation,)


def _conform_one(value: Any, option: Any) -> Any:
  """`conform` for an annotation that is no union."""
  origin, arguments = typing.get_origin(option), typing.get_args(option)
  if origin is typing.Literal:
    return _require(value in arguments, value, option)
  if option in (None, type(None)):
    return _require(value is None, value, option)
  if option is bool:
    return _require(isinstance(value, bool), value, option)
  if option is int:
    return _require(isinstance(value, int) and not isinstance(value, bool), value, option)
  if option is float:
    return float(_require(isinstance(value, int | float) and not isinstance(value, bool), value, option))
  if option is pathlib.Path or option is str:
    return _require(isinstance(value, str), value, option)
  container = origin or option
  if container is tuple:
    return _conform_tuple(_require(isinstance(value, list | tuple), value, option), option, arguments)
  if container in (list, collections.abc.Sequence):
    _require(isinstance(value, list | tuple), value, option)
    return type(value)(conform(item, arguments[0] if arguments else Any) for item in value)
  if container in (dict, collections.abc.Mapping):
    key, item = arguments or (Any, Any)
    pairs = _require(isinstance(value, dict), value, option).items()
    return {conform(name, key): conform(part, item) for name, part in pairs}
  return _require(not _made_by_reference(container), value, option)


def _made_by_reference(annotation: Any) -> bool:
  """Whether no literal can be meant: a callable, or a class of this library or of another that is no dtype."""
  if annotation is collections.abc.Callable:
    return True
  if not inspect.isclass(annotation) or issubclass(annotation, enum.Enum):
    return False
  return annotation.__module__.partition('.')[0] not in _LITERAL_MODULES


def _conform_tuple(value: Any, annotation: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
  if not arguments:
    return tuple(value)
  if arguments[-1] is Ellipsis:
    return tuple(conform(item, arguments[0]) for item in value)
  _require(len(value) == len(arguments), value, annotation)
  return tuple(conform(item, argument) for item, argument in zip(value, arguments, strict=True))


def _require(holds: bool, value: Any, annotation: Any) -> Any:
  if not holds:
    raise Mismatch(_expected(annotation, value))
  return value


def _expected(annotation: Any, value: Any) -> str:
  """`expected int, got 'abc' (str)`."""
  hint = f'; did you mean {value.capitalize()}?' if value in ('true', 'false') and bool in _options(annotation) else ''
  return f'expected {_names(annotation)}, got {value!r} ({type(value).__name__}){hint}'


def _names(annotation: Any) -> str:
  """An annotation as a user reads it."""
  names = []
  for option in _options(annotation):
    if typing.get_origin(option) is typing.Literal:
      names += [repr(choice) for choice in typing.get_args(option)]
    elif option in (None, type(None)):
      names.append('None')
    else:
      name = 'str' if option is pathlib.Path else inspect.formatannotation(option)
      names.append(f'{name} (by a reference, @NAME())' if _made_by_reference(option) else name)
  return ' or '.join(names)
