"""One command's configuration in many variants, resolved within this process and run in none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from t5x_lite.cli import ginfiles, record
from t5x_lite.cli.calls import Call, build
from t5x_lite.cli.registry import Registry
from t5x_lite.cli.resolve import Configuration
from t5x_lite.cli.statements import Binding
from t5x_lite.core import errors


@dataclasses.dataclass(frozen=True)
class Variant:
  """What gin files and bindings come to, with nothing built.

  Attributes:
    values: every parameter that the call uses, as `record.ConfigRecord` has them.
    text: one gin file that says the same.
  """

  values: Mapping[str, str]
  text: str
  _call: Call
  _names: Registry

  def values_below(self, parameter: str) -> dict[str, str]:
    """The values that one argument of the call is made of; empty where it is a literal.

    Args:
      parameter: its name, or that of an argument of an argument, as in `dataset.tokenizer`.
    """
    value: Any = self._call
    for name in parameter.split('.'):
      value = value.arguments.get(name) if isinstance(value, Call) else None
    return record.resolved_values(value, self._names) if isinstance(value, Call) else {}

  def call(self, function: Callable[..., Any], **given: Any) -> Any:
    """Builds the arguments of the call and has another function take them, with `given` beside them."""
    target = self._call.target
    return build(self._call, lambda name: function if name == target else self._names.load(name), **given)


class Variants:
  """Resolves configurations of commands. Gin files are read once.

  Args:
    search_paths: the user's folders of gin files.
  """

  def __init__(self, search_paths: Sequence[str] = ()):
    self._reader = ginfiles.GinFiles(search_paths)
    self._names = Registry()
    self._read: dict[str, list[ginfiles.Statement]] = {}

  def resolve(
    self,
    target: str,
    given: Sequence[str],
    files: Sequence[str],
    bindings: Sequence[str],
    *,
    text: str = '',
    strict: bool = True,
  ) -> Variant:
    """What a command with these gin files and `--gin.` flags would be called with.

    Args:
      target: the name, as gin files have it, of the function that the command calls.
      given: the parameters of the function that the command passes itself.
      files: the gin files, first to last.
      bindings: `NAME=VALUE` each, over the files.
      text: what stands before the files, such as the `text` of another variant.
      strict: whether a binding that has no effect is refused, as training does.

    Raises:
      UsageError: whatever the command would refuse before it builds anything.
    """
    statements = list(ginfiles.parse(text, 'config.gin')) if text else []
    statements += [statement for name in files for statement in self._statements(name)]
    statements += [_flag(text) for text in bindings]
    names = self._names.copy()
    configuration = Configuration(statements, names)
    full_name = names.resolve(target, target)
    configuration.check_names(full_name)
    configuration.check_parameters()
    call, used = configuration.resolve(full_name, given)
    if strict:
      configuration.check_effect(used)
    return Variant(record.resolved_values(call, names), record.gin_text(configuration), call, names)

  def _statements(self, name: str) -> list[ginfiles.Statement]:
    if name not in self._read:
      self._read[name] = list(self._reader.read(name))
    return self._read[name]


def _flag(text: str) -> Binding:
  """The binding of `NAME=VALUE`."""
  name, equals, value = (part.strip() for part in text.partition('='))
  if not (name and equals and value):
    raise errors.UsageError(f'{text!r}: expected a binding NAME=VALUE, or the name of a gin file')
  return ginfiles.flag_binding(name, value)
