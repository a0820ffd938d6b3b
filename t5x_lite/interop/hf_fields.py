"""Reads the fields of a `config.json`: what each may hold, for all families, and what stands in for a missing one."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from t5x_lite.core import errors


@dataclasses.dataclass(frozen=True)
class _Kind:
  """What errors call the values of a field, and whether something is one."""

  expected: str
  holds: Callable[[Any], bool]


def _is_whole(value: Any, least: float = -math.inf) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _are_classes(value: Any) -> bool:
  return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value))


_SIZE = _Kind('a whole number of at least 1', lambda value: _is_whole(value, 1))
_COUNT = _Kind('a whole number of at least 0', lambda value: _is_whole(value, 0))
_WHOLE = _Kind('a whole number', _is_whole)
_NUMBER = _Kind('a number of at least 0', _is_number)
_FLAG = _Kind('true or false', lambda value: isinstance(value, bool))
_TEXT = _Kind('a string', lambda value: isinstance(value, str))
_OBJECT = _Kind('an object', lambda value: isinstance(value, Mapping))
_CLASSES = _Kind('a list of the names of classes', _are_classes)

_NAMES = {
  _SIZE: (
    *('vocab_size', 'n_token', 'hidden_size', 'd_model', 'n_embd', 'intermediate_size', 'd_inner', 'd_ff', 'n_inner'),
    *('num_hidden_layers', 'num_layers', 'n_layer', 'num_attention_heads', 'num_heads', 'n_head', 'd_head', 'd_kv'),
    *('max_position_embeddings', 'n_positions', 'type_vocab_size', 'num_labels'),
    *('relative_attention_num_buckets', 'relative_attention_max_distance'),
  ),
  _COUNT: ('num_decoder_layers', 'mem_len', 'reuse_len'),
  _WHOLE: ('clamp_len', 'pad_token_id', 'bos_token_id', 'decoder_start_token_id'),
  _NUMBER: (
    *('layer_norm_eps', 'layer_norm_epsilon', 'initializer_range'),
    *('hidden_dropout_prob', 'resid_pdrop', 'dropout', 'dropout_rate'),
  ),
  _FLAG: ('same_length', 'bi_data', 'tie_word_embeddings', 'scale_decoder_outputs'),
  _TEXT: ('hidden_act', 'activation_function', 'ff_activation', 'feed_forward_proj', 'attn_type', 'problem_type'),
  _OBJECT: ('id2label', 'label2id'),
  _CLASSES: ('architectures',),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
# Null is a value of these, whatever stands in for them where they are not there.
_NULLABLE = ('mem_len',)


def known_fields(
  config: Mapping[str, Any], defaults: Mapping[str, Any], aliases: Mapping[str, str] | None = None
) -> dict[str, Any]:
  """The fields of a config.json by their own names, with the defaults of those that are not there.

  Args:
    config: as read from the file.
    defaults: of the family. A field whose default is a value cannot be null.
    aliases: other names of some fields.

  Raises:
    UsageError: a field holds what it cannot hold.
  """
  aliases = aliases or {}
  for name, value in config.items():
    kind = _KINDS.get(name)
    optional = defaults.get(aliases.get(name, name)) is None or name in _NULLABLE
    if kind is not None and not kind.holds(value) and not (value is None and optional):
      raise errors.UsageError(f'{name} is {reprlib.repr(value)}: expected {kind.expected}')
  return {**defaults, **{aliases.get(name, name): value for name, value in config.items()}}
