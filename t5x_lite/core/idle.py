"""Parameters of a configuration that have no effect while another one, of the same object, has some value."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class _Rule:
  """Parameters that do nothing while another one, of the same object, has some value."""

  idle: frozenset[str]
  switch: str
  off: Callable[[object], bool]
  reason: str


def _rule(idle: str, switch: str, off: Callable[[object], bool], reason: str) -> _Rule:
  return _Rule(frozenset(idle.split()), switch, off, reason)


def _is_off(value: object) -> bool:
  return value is None or value == 0


_RULES = (
  _rule('experts_per_token capacity_factor load_balancing_loss', 'num_experts', _is_off, 'there are no experts'),
  _rule(
    'relative_attention_num_buckets relative_attention_max_distance',
    'positions',
    lambda value: value != 'relative',
    'positions are not relative',
  ),
  _rule('rotary_base', 'positions', lambda value: value != 'rotary', 'positions are not rotary'),
  _rule('num_global_tokens max_global_tokens', 'attention_window', _is_off, 'attention has no window'),
  _rule('min_delta', 'patience', _is_off, 'nothing stops early'),
  _rule('seed', 'shuffle', lambda value: value is False, 'nothing is shuffled'),
  _rule('resize_vocabulary restart_steps', 'initial_checkpoint_path', _is_off, 'the run starts from nothing'),
  _rule('num_labels', 'heads', lambda value: isinstance(value, tuple) and set(value) == {'lm'}, 'no head has labels'),
)


def reason(key: str, values: Mapping[str, str]) -> str:
  """Why a parameter has no effect in a run; empty if it has one, or nothing is known."""
  owner, _, parameter = key.rpartition('.')
  for rule in _RULES:
    switch = f'{owner}.{rule.switch}'
    if parameter in rule.idle and switch in values and rule.off(_literal(values[switch])):
      return rule.reason
  return ''


def _literal(text: str) -> object:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text  # a reference
