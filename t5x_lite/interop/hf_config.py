"""What the `config.json` of several families has in common: activations, labels, classes, what we have no room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.models.config import ModelConfig

# Their names of activations. Their `gelu` is the exact form, ours the tanh form that T5 1.1 and GPT-2 have.
ACTIVATIONS = {
  'gelu': 'gelu_exact',
  'gelu_python': 'gelu_exact',
  'gelu_new': 'gelu',
  'gelu_pytorch_tanh': 'gelu',
  'relu': 'relu',
  'silu': 'silu',
  'swish': 'silu',
}
_THEIR_ACTIVATIONS = {'gelu_exact': 'gelu', 'gelu': 'gelu_new', 'relu': 'relu', 'silu': 'silu'}


def activation(field: str, name: str) -> str:
  """Our name of the activation that `field` gives. Raises UsageError for one that we do not have."""
  if name not in ACTIVATIONS:
    raise errors.unknown(field, name, ACTIVATIONS)
  return ACTIVATIONS[name]


def their_activation(config: ModelConfig) -> str:
  """Their name of the one activation of a model. Raises UsageError where it is gated, or has none there."""
  if len(config.mlp_activations) != 1 or config.mlp_activations[0] not in _THEIR_ACTIVATIONS:
    known = ', '.join(_THEIR_ACTIVATIONS)
    raise errors.UsageError(f'mlp_activations={config.mlp_activations}: transformers has one of {known} there')
  return _THEIR_ACTIVATIONS[config.mlp_activations[0]]


def check_values(model: str, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
  """Raises UsageError where a field that is there has another value than `model` can have here."""
  for name, value in expected.items():
    if name in config and config[name] != value:
      raise errors.UsageError(f'{name} is {config[name]!r}: {model} has {value!r} here')


def check_exportable(model: str, config: ModelConfig, expected: Mapping[str, Any], *, free_heads: bool = False) -> None:
  """Raises UsageError where a model of ours is more than `model` is in transformers.

  Args:
    model: with its article, 'a BERT'.
    config: of our module.
    expected: values of further fields of this family, or of a common field another one than most have.
    free_heads: whether heads of attention may be of any size.
  """
  own = type(config).__name__
  if not free_heads and config.num_heads * config.head_dim != config.emb_dim:
    raise errors.UsageError(
      f'{own}.head_dim is {config.head_dim}, of {config.num_heads} heads: {model} in transformers has heads of '
      f'emb_dim / num_heads, {config.emb_dim} / {config.num_heads}'
    )
  plain = {'num_kv_heads': config.num_heads, 'num_experts': 0, 'attention_window': None, **expected}
  for name, value in plain.items():
    given = getattr(config, name)
    if given != value and not (name == 'num_kv_heads' and given is None):
      raise errors.UsageError(f'{own}.{name} is {given!r}: {model} in transformers has {value!r}')


def heads(
  model: str, config: Mapping[str, Any], architectures: Mapping[str, tuple[str, ...]], default: tuple[str, ...]
) -> tuple[str, ...]:
  """The heads of the class that `architectures` in a config.json names, `default` where it names none.

  Raises:
    UsageError: a class that `model` does not have here.
  """
  named = class_names(config)
  for name in named:
    if name not in architectures:
      raise errors.unknown(f'architecture of {model}', name, architectures)
  return architectures[named[0]] if named else default


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
  """The classes that a config.json names; a single one may stand without its list."""
  named = config.get('architectures') or ()
  return (named,) if isinstance(named, str) else tuple(named)


def architecture(own: tuple[str, ...], architectures: Mapping[str, tuple[str, ...]]) -> str:
  """The class that has these heads. Raises UsageError where there is none."""
  for name, theirs in architectures.items():
    if set(theirs) == set(own):
      return name
  known = ', '.join(str(theirs) for theirs in architectures.values())
  raise errors.UsageError(f'heads {own} are those of no class of transformers: expected one of {known}')


def num_labels(config: Mapping[str, Any]) -> int:
  """Outputs of a classifier: as many as there are labels, 2 where the file does not say."""
  return len(config.get('id2label') or ()) or config.get('num_labels') or 2


def labels(names: int | Sequence[str]) -> dict[str, Any]:
  """The fields that tell how labels are called, or how many there are."""
  names = [f'LABEL_{i}' for i in range(names)] if isinstance(names, int) else names
  return {
    'id2label': {str(i): name for i, name in enumerate(names)},
    'label2id': {name: i for i, name in enumerate(names)},
  }
