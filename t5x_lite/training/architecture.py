"""Whether the arrays of a checkpoint are those that a model and its optimizer expect."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors

_MAX_NAMED = 4


def differences(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, str]:
  """What differs between two sets of arrays, in words, by name.

  Args:
    stored: the checkpoint's arrays by name (anything with a shape and a dtype).
    expected: those of the model at hand.
  """
  found = {}
  for name, want in expected.items():
    have = stored.get(name)
    if have is None:
      found[name] = f'{list(want.shape)} is missing there'
    elif tuple(have.shape) != tuple(want.shape):
      found[name] = f'is {list(have.shape)} there and {list(want.shape)} here'
    elif have.dtype != want.dtype:
      found[name] = f'is {have.dtype} there and {want.dtype} here'
  unexpected = {name: f'{list(leaf.shape)} is only there' for name, leaf in stored.items() if name not in expected}
  return found | unexpected


def check(folder: pathlib.Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
  """Raises if the arrays of the checkpoint `folder` are not the expected ones.

  Parameters come first: the optimizer's state differs wherever they do, and would only repeat them.

  Raises:
    UsageError: one line that names the first few differing arrays and counts the others.
  """
  differing = differences(stored, expected)
  if not differing:
    return
  in_params = {name: what for name, what in differing.items() if name.startswith('params/')}
  kind, shown = ('another model', in_params) if in_params else ('the state of another optimizer', differing)
  named = '; '.join(f'{name} {what}' for name, what in list(shown.items())[:_MAX_NAMED])
  more = f'; and {len(shown) - _MAX_NAMED} more' if len(shown) > _MAX_NAMED else ''
  raise errors.UsageError(f'{folder} holds {kind}: {named}{more}')
