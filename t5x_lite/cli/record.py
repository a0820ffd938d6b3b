"""The configuration of a run, kept: as a gin file that repeats it, and as values that a rerun is compared with."""

from __future__ import annotations

import ast
import collections
import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import t5x_lite
from t5x_lite.cli.calls import Call, Scope, walk
from t5x_lite.cli.registry import Registry
from t5x_lite.cli.resolve import Configuration
from t5x_lite.cli.statements import Binding, Macro, Reference, parts, replace
from t5x_lite.core import errors

CONFIG_FILE = 'config.gin'
ALLOW_CHANGE = 'allow_config_change'

# What may differ between two runs in one folder: how far, how often and on what it runs, not what it computes. A
# schedule that depends on the number of steps has a parameter of its own, which is compared.
_MAY_CHANGE = re.compile(
  r'(LoopConfig|DivergenceRule|EarlyStopping|CheckpointConfig|MeshShape)\..*'
  r'|Learner\.(num_microbatches|vocab_chunk)'
  r'|train\.(branch_\w+|model_dir|mesh|eval_steps|num_samples|offload_optimizer)|DatasetConfig\.prefetch|\w+Config\.remat_policy'
)


@dataclasses.dataclass(frozen=True)
class ConfigRecord:
  """What is kept of a run's configuration.

  Attributes:
    text: a gin file with every macro and binding, those of flags included.
    values: every parameter that the run uses, such as `train/DatasetConfig.batch_size`, with its value as a literal.
    allow_change: whether a rerun may differ from what was saved.
  """

  text: str
  values: dict[str, str]
  allow_change: bool = False

  def write(self, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `config.gin` in `folder`, whole or not at all, and returns its path."""
    path = pathlib.Path(folder) / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile('w', encoding='utf-8', dir=path.parent, prefix=path.name, delete=False) as file:
      file.write(self.text)
    pathlib.Path(file.name).chmod(0o644)
    os.replace(file.name, path)
    return path

  def changes(self, saved: Mapping[str, str]) -> list[str]:
    """What makes a run with these values another one than a run with the values `saved`."""
    return compare(saved, self.values)

  def check(self, saved: Mapping[str, str]) -> None:
    """Raises UsageError if a run with the values `saved` would not be continued but changed, unless that is allowed."""
    changes = self.changes(saved)
    if changes and not self.allow_change:
      raise errors.UsageError(
        f'the configuration differs from the one that this run was started with: {"; ".join(changes)} '
        f'(choose another MODEL_DIR, or go on with --{ALLOW_CHANGE})'
      )


def may_change(name: str) -> bool:
  """Whether a value, such as `LoopConfig.log_period`, says how far, how often or on what a run goes, not what it is."""
  return _MAY_CHANGE.fullmatch(name) is not None


def compare(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
  """`name: old -> new` for each value that differs, without those that may change between runs in one folder.

  A value shared by several scopes is named once.
  """
  changes: dict[str, None] = {}
  for key in sorted(old.keys() | new.keys()):
    before, after = old.get(key, 'not set'), new.get(key, 'not set')
    name = key.rpartition('/')[2]
    if before != after and not may_change(name):
      changes[f'{name}: {before} -> {after}'] = None
  return list(changes)


def summary(values: Mapping[str, str]) -> list[str]:
  """`name = value` for each value; without its scopes where all of them have the same one."""
  shared: dict[str, set[str]] = collections.defaultdict(set)
  for key, value in values.items():
    shared[key.rpartition('/')[2]].add(value)
  lines: dict[str, None] = {}
  for key, value in values.items():
    name = key.rpartition('/')[2]
    lines[f'{name if len(shared[name]) == 1 else key} = {value}'] = None
  return list(lines)


def resolved_values(call: Call, names: Registry) -> dict[str, str]:
  """Every parameter below `call`, with its value as a literal, or as the reference that makes it."""
  values = {}
  for inner in walk(call):
    for parameter, value in {**inner.defaults, **inner.arguments}.items():
      literal = _literal(value, names)
      if literal is not None:
        values[f'{_written(inner.scope, inner.target, names)}.{parameter}'] = literal
  return dict(sorted(values.items(), key=lambda item: item[0].rpartition('/')[2]))


def _written(scope: Scope, target: str, names: Registry) -> str:
  return '/'.join((*scope, names.short_name(target)))


class _Verbatim:
  """Something whose `repr` is a given text, inside containers too."""

  def __init__(self, text: str):
    self._text = text

  def __repr__(self) -> str:
    return self._text


def _literal(value: Any, names: Registry) -> str | None:
  """`value` as gin text; None for an object that has none, such as a function that is some parameter's default."""

  def reference(call: Call) -> _Verbatim:
    return _Verbatim(f'@{names.short_name(call.target)}{"()" if call.called else ""}')

  if _has_calls(value):
    return repr(replace(value, Call, reference))
  text = repr(value)
  try:
    ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text if isinstance(value, float) else None
  return text


def _has_calls(value: Any) -> bool:
  found: list[Call] = []
  replace(value, Call, found.append)
  return bool(found)


def gin_text(configuration: Configuration) -> str:
  """One gin file that says all that `configuration` says: imports, macros, then bindings by configurable."""
  lines = [f'# Written by t5x_lite {t5x_lite.__version__}. To repeat this run, give it a new folder:']
  lines += ['#   python -m t5x_lite.train --gin_file=THIS_FILE --gin.MODEL_DIR=NEW_FOLDER', '']
  lines += sorted(configuration.imports)
  macros, bindings = _in_use(configuration)
  lines += [f'{name} = {binding.value!r}' for name, binding in sorted(macros.items())]
  for (scope, target), bound in sorted(bindings.items(), key=lambda item: (item[0][1], item[0][0])):
    written = _written(tuple(filter(None, scope.split('/'))), target, configuration.names)
    lines += ['', *(f'{written}.{name} = {binding.value!r}' for name, binding in sorted(bound.items()))]
  return '\n'.join(lines) + '\n'


def _in_use(configuration: Configuration) -> tuple[dict[str, Binding], dict[tuple[str, str], dict[str, Binding]]]:
  """The macros that something uses and the bindings in scopes that something is called in.

  Later files can leave macros and scopes without a use, which would be refused as misspelt when the text is read again.
  """
  macros, bindings = dict(configuration.macros), dict(configuration.bindings)
  while True:
    values = [binding.value for bound in (macros, *bindings.values()) for binding in bound.values()]
    mentioned = [part for value in values for part in parts(value)]
    used = {part.name for part in mentioned if isinstance(part, Macro)}
    scopes = used.union(*(part.scope for part in mentioned if isinstance(part, Reference)))
    kept_macros = {name: binding for name, binding in macros.items() if name in used}
    kept = {key: bound for key, bound in bindings.items() if scopes.issuperset(filter(None, key[0].split('/')))}
    if len(kept_macros) == len(macros) and len(kept) == len(bindings):
      return macros, bindings
    macros, bindings = kept_macros, kept
