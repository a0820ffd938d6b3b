"""Which features the models of the library read, so that a run that could learn nothing is refused before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from t5x_lite.core import errors
from t5x_lite.data.features import FeatureConverter

_FEATURES = {
  'T5': 'EncoderDecoderFeatures',
  'Gpt': 'DecoderOnlyFeatures',
  'Bert': 'EncoderOnlyFeatures',
  'Xlnet': 'PermutationFeatures',
}
_LIBRARY = __name__.rpartition('.')[0]


def check(module: Any, converter: FeatureConverter) -> None:
  """Raises UsageError where a model cannot be trained on these features.

  Models and features that are not of the library may go together as they please.

  Args:
    module: the model.
    converter: makes its features.
  """
  model, features = _ours(module, _FEATURES), _ours(converter, _FEATURES.values())
  if model is None or features is None:
    return
  if features != _FEATURES[model]:
    raise errors.UsageError(f'model {model} cannot read {features}: expected {_FEATURES[model]}')
  heads = tuple(getattr(module.config, 'heads', ()))
  if getattr(converter, 'sentence_pairs', False) and 'nsp' not in heads:
    raise errors.UsageError(
      f'model {model} has the heads {", ".join(heads) or "(none)"}, and its features the label of a pair of texts: '
      "expected nsp among them, as in BertConfig.heads = ('mlm', 'nsp')"
    )
  if heads and not {'lm', 'mlm'} & set(heads):
    raise errors.UsageError(
      f'model {model} has the heads {", ".join(heads)}: the objective of its features is learned by '
      f'{"mlm" if model == "Bert" else "lm"}, expected it among them'
    )


def check_length(module: Any, spec: Mapping[str, jax.ShapeDtypeStruct]) -> None:
  """Raises UsageError where an example as long as a row has positions that a model of the library has no vectors for.

  Args:
    module: the model.
    spec: shapes of its batches.
  """
  if _ours(module, _FEATURES) is None or getattr(module.config, 'positions', None) != 'learned':
    return
  config = module.config
  most = config.max_length - getattr(config, 'first_position', 0)
  longest = max(leaf.shape[1] for leaf in spec.values())
  if longest > most:
    raise errors.UsageError(
      f'rows of {longest} tokens, but {type(module).__name__} has positions for {most}: expected at most {most} in '
      'TASK_FEATURE_LENGTHS, or a larger max_length'
    )


def features_of(module: Any) -> str | None:
  """The name of the features that a model of the library reads, None for any other model."""
  model = _ours(module, _FEATURES)
  return None if model is None else _FEATURES[model]


def _ours(value: Any, names: Any) -> str | None:
  """Which class of the library, among those called `names`, a value is an instance of."""
  own = (kind.__name__ for kind in type(value).__mro__ if kind.__module__.startswith(_LIBRARY))
  return next((name for name in own if name in names), None)
