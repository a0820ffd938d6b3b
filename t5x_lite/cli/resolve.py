"""Puts the statements of gin files together into a tree of calls, checked as a whole before anything is built.

The semantics are gin's: a later binding wins; `scope/X.p = v` holds for calls of X in that scope or one inside it; a
reference without a scope is called in the scope of what holds it, a macro in the scope of its own name. Two things
differ. A macro stands for one object, made once, however often it is used. And parameters are bound where the file
references a function or class, never behind the back of a call in Python: the library knows no gin.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from t5x_lite.cli import registry
from t5x_lite.cli.arguments import GIN_PREFIX
from t5x_lite.cli.calls import Call, Scope
from t5x_lite.cli.conform import Mismatch, check_made, conform, takes_text, wants_reference
from t5x_lite.cli.statements import REQUIRED, Binding, Import, Macro, Reference, parts, replace
from t5x_lite.core import errors


class Configuration:
  """What all gin files and flags say, later ones over earlier ones.

  Args:
    statements: in order; flags last.
    names: what the names in them mean.

  Raises:
    UsageError: for an unknown configurable, with the nearest match and the place where it was written.
  """

  def __init__(self, statements: Iterable[Binding | Import], names: registry.Registry):
    self.names = names
    self.macros: dict[str, Binding] = {}
    self.imports: dict[str, Import] = {}
    self.bindings: dict[tuple[str, str], dict[str, Binding]] = collections.defaultdict(dict)
    self._mentioned: list[Macro | Reference] = []
    unresolved: list[Binding] = []
    for statement in statements:
      if isinstance(statement, Import):
        names.add_module(statement.module, statement.alias, statement.origin)
        self.imports[str(statement)] = statement
        continue
      self._mentioned += parts(statement.value)
      if statement.selector:
        unresolved.append(statement)
      else:
        self.macros[statement.name] = statement
    for binding in unresolved:
      target = names.resolve(binding.selector, binding.origin)
      self.bindings[binding.scope, target][binding.parameter] = binding

  def check_names(self, target: str) -> None:
    """Checks all names but those of parameters, without importing what they name.

    A macro or a scope that is defined must be used somewhere, if only by a line that a later one replaced.

    Args:
      target: full name of what is to be called.

    Raises:
      UsageError: nothing says what `target` is made of; a macro that nothing defines or that nothing uses, a scope that
        nothing is called in, an unknown configurable, each with the nearest match and the place where it was written.
    """
    if not any(bound == target for _, bound in self.bindings):
      raise errors.UsageError(
        f'no gin file says what {self.names.short_name(target)} is made of: '
        'add --gin_file=runs/pretrain.gin, or choose a whole run, such as --gin_file=t5_small.gin'
      )
    self._check_macros({part.name for part in self._mentioned if isinstance(part, Macro)})
    self._check_references({name for part in self._mentioned if isinstance(part, Reference) for name in part.scope})

  def all_bindings(self) -> Iterator[Binding]:
    """Every binding that no later one replaced, macros first."""
    yield from self.macros.values()
    for bound in self.bindings.values():
      yield from bound.values()

  def _check_macros(self, used: set[str]) -> None:
    for binding in self.all_bindings():
      for part in parts(binding.value):
        if isinstance(part, Macro) and part.name != REQUIRED and part.name not in self.macros:
          match = errors.nearest(part.name, self.macros)
          hint = f': did you mean %{match}?' if match else ''
          raise errors.UsageError(f'{binding.origin}: macro {part} has no value{hint}')
    for name, binding in self.macros.items():
      if name not in used:
        match = errors.nearest(name, used)
        hint = f': did you mean {match!r}?' if match else ': nothing uses it'
        raise errors.UsageError(f'{binding.origin}: unknown macro {name!r}{hint}')

  def _check_references(self, scopes: set[str]) -> None:
    for binding in self.all_bindings():
      for part in parts(binding.value):
        if isinstance(part, Reference):
          self.names.resolve(part.selector, binding.origin)
      for scope in filter(None, binding.scope.split('/')):
        # The value of a macro is made in a scope of the macro's name.
        if binding.selector and scope not in scopes and scope not in self.macros:
          raise errors.UsageError(f'{binding.origin}: {errors.unknown("scope", scope, scopes)}')

  def check_parameters(self) -> None:
    """Raises UsageError if a function or class that is bound has no such parameter. Imports their modules."""
    for (_, target), bound in self.bindings.items():
      known = registry.parameters(self.names.load(target))
      for name, binding in bound.items():
        if name not in known and not registry.takes_any(known):
          match = errors.nearest(name, known)
          hint = f'did you mean {match!r}?' if match else f'it has {", ".join(known)}'
          raise errors.UsageError(f'{binding.origin}: {binding.selector} has no parameter {name!r}: {hint}')

  def check_effect(self, used: set[Binding]) -> None:
    """Raises UsageError for a binding given by a flag that is not among those `used`: somebody expects it to work."""
    for binding in self.all_bindings():
      if binding.origin.startswith(GIN_PREFIX) and binding not in used:
        what = binding.selector or binding.name
        raise errors.UsageError(f'{binding.origin}: has no effect, for nothing in this run uses {what}')

  def take_as_text(self, binding: Binding) -> Binding:
    """Has a number that a flag gave stand for what was written, so that a record of the bindings says so too."""
    text = dataclasses.replace(binding, value=binding.spelling)
    for bound in (self.macros, *self.bindings.values()):
      bound.update({name: text for name, other in bound.items() if other is binding})
    return text

  def resolve(self, target: str, given: Sequence[str] = ()) -> tuple[Call, set[Binding]]:
    """The call of `target` (a full name), and the bindings that it depends on.

    Args:
      target: full name of a function or class.
      given: parameters that the caller will pass.

    Raises:
      UsageError: a value of the wrong type, a parameter without a value, a macro or call that needs itself.
    """
    resolver = _Resolver(self)
    return resolver.call(Reference(target), target, (), given), resolver.used


class _Resolver:
  """One walk from a call to all that it needs."""

  def __init__(self, configuration: Configuration):
    self._configuration = configuration
    self._macros: dict[str, Any] = {}
    self._open: list[str | tuple[str, Scope]] = []  # The macros and calls around the current one.
    self.used: set[Binding] = set()

  def call(self, reference: Reference, target: str, scope: Scope, given: Sequence[str] = ()) -> Call:
    """The call of `target` in `scope`."""
    names = self._configuration.names
    scope = reference.scope or scope
    self._enter((target, scope))
    known = registry.parameters(names.load(target))
    bound = self._bound(target, scope)
    arguments = {}
    for name, binding in bound.items():
      if name in given:
        continue
      annotation = known[name].annotation if name in known else Any
      arguments[name] = self._argument(binding, scope, annotation, f'{names.short_name(target)}.{name}')
    free = {name: parameter for name, parameter in known.items() if name not in bound and name not in given}
    if reference.call:
      for name, parameter in free.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is inspect.Parameter.empty:
          short = names.short_name(target)
          raise errors.UsageError(f'{short} needs a value for {name!r}: bind {short}.{name} in a gin file or by --gin.')
    self._open.pop()
    defaults = {name: parameter.default for name, parameter in free.items()}
    return Call(target, scope, arguments, defaults, reference.call)

  def _bound(self, target: str, scope: Scope) -> dict[str, Binding]:
    """The bindings that hold for `target` in `scope`: those of a longer scope over those of a shorter one."""
    bound: dict[str, Binding] = {}
    for length in range(len(scope) + 1):
      bound |= self._configuration.bindings.get(('/'.join(scope[:length]), target), {})
    self.used.update(bound.values())
    return bound

  def _argument(self, binding: Binding, scope: Scope, annotation: Any, name: str) -> Any:
    """The value of one parameter, of the type that it has to have."""
    value = self._value(binding, scope)
    try:
      if isinstance(value, Call):
        check_made(self._configuration.names.load(value.target), value.called, annotation)
      return conform(value, annotation)
    except Mismatch as error:
      where = ''
      while isinstance(binding.value, Macro):  # The macro's value is at fault, not the line that uses it.
        binding = self._configuration.macros[binding.value.name]
        where = f' (for {name})'
      if binding.spelling is not None and takes_text(annotation):
        self.used.add(self._configuration.take_as_text(binding))
        return binding.spelling
      raise errors.UsageError(f'{binding.origin}: {error}{self._hint(value, annotation)}{where}') from error

  def _hint(self, value: Any, annotation: Any) -> str:
    """What is meant where a name stands for the object that it should make."""
    names = self._configuration.names
    try:
      target = names.resolve(value, '') if isinstance(value, str) else None
      if target is None or not wants_reference(annotation):
        return ''
      check_made(names.load(target), True, annotation)
    except (errors.UsageError, Mismatch):
      return ''
    return f': did you mean @{value}()?'

  def _value(self, binding: Binding, scope: Scope) -> Any:
    def resolved(part: Macro | Reference) -> Any:
      if isinstance(part, Macro):
        return self._macro(part.name, binding)
      return self.call(part, self._configuration.names.resolve(part.selector, binding.origin), scope)

    return replace(binding.value, Macro | Reference, resolved)

  def _macro(self, name: str, user: Binding) -> Any:
    """The value of a macro; the same object each time."""
    if name == REQUIRED:
      raise errors.UsageError(f'{user.name} is required: set it with --gin.{user.name}=VALUE ({user.origin})')
    if name not in self._macros:
      binding = self._configuration.macros[name]
      self.used.add(binding)
      self._enter(name)
      self._macros[name] = self._value(binding, (name,))
      self._open.pop()
    return self._macros[name]

  def _enter(self, step: str | tuple[str, Scope]) -> None:
    if step in self._open:
      names = [part if isinstance(part, str) else part[0] for part in (*self._open, step)]
      raise errors.UsageError(f'the configuration needs itself: {" -> ".join(names)}')
    self._open.append(step)
