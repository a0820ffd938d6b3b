"""Flags that stand for gin bindings: `--num_beams=4` for `--gin.GenerationConfig.num_beams=4`."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence

from absl import flags


@dataclasses.dataclass(frozen=True)
class Shorthand:
  """A flag and what it stands for.

  Attributes:
    name: of the flag.
    binding: of gin, such as `infer.seed`.
    help: for `--help`.
    is_bool: whether the flag alone says yes, and `--noNAME` no.
  """

  name: str
  binding: str
  help: str
  is_bool: bool = False


def define(values: flags.FlagValues, shorthands: Sequence[Shorthand]) -> None:
  """Makes the flags known, for help and for the nearest match of one that is misspelt."""
  for each in shorthands:
    add = flags.DEFINE_bool if each.is_bool else flags.DEFINE_string
    add(each.name, None, each.help, flag_values=values)


def as_bindings(argv: Sequence[str], shorthands: Sequence[Shorthand]) -> list[str]:
  """The arguments, with every shorthand written out as a binding."""
  known = {each.name: each for each in shorthands}
  changed, rest = [], list(argv)
  while rest:
    argument = rest.pop(0)
    is_flag = _is_flag(argument)
    name, equals, value = argument.removeprefix('-').removeprefix('-').partition('=')  # absl takes one dash, too
    if is_flag and name.startswith('no') and name.removeprefix('no') in known:
      name, value = name.removeprefix('no'), 'False'
    elif is_flag and name in known and not equals:
      takes_next = not known[name].is_bool and rest and not _is_flag(rest[0])
      value = rest.pop(0) if takes_next else 'True'
    is_own = is_flag and name in known
    changed.append(f'--gin.{known[name].binding}={_literal(value)}' if is_own else argument)
  return changed


def _is_flag(argument: str) -> bool:
  """Whether it is no value: a negative number is one."""
  return argument.startswith('-') and not argument[1:2].isdigit() and argument != '-'


def _literal(value: str) -> str:
  """A value as gin reads it: what is no literal is a string."""
  try:
    return repr(ast.literal_eval(value))
  except (SyntaxError, ValueError):
    return repr(value)
