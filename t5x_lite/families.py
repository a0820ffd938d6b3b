"""Which features the models of the library read, so that a run that could learn nothing is refused before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.features import FeatureConverter

_FEATURES = {
  'T5': 'EncoderDecoderFeatures',
  'Gpt': 'DecoderOnlyFeatures',
  'Bert': 'EncoderOnlyFeatures',
  'Xlnet': 'PermutationFeatures',
}
# The models that have heads for labels at positions, the side that reads for them, and the config's name for gin files.
_LABELLED = {'Bert': 'encoder', 'Xlnet': 'decoder'}
# The head of a model that a head of the data wants.
_HEADS = {'regression': 'classification'}
_LIBRARY = __name__.rpartition('.')[0]


def check(module: Any, converter: FeatureConverter) -> None:
  """Raises UsageError where a model cannot be trained on these features.

  Models and features that are not of the library may go together as they please.

  Args:
    module: the model.
    converter: makes its features.
  """
  if isinstance(converter, EncoderTaskFeatures):
    _check_labelled(module, converter)
    return
  model, features = _ours(module, _FEATURES), _ours(converter, _FEATURES.values())
  if model is None or features is None:
    return
  if features != _FEATURES[model]:
    raise errors.UsageError(f'model {model} cannot read {features}: expected {_FEATURES[model]}')
  start = getattr(converter, 'decoder_start_id', 0)
  if start:
    raise errors.UsageError(f'decoder_start_id={start}: expected 0, which model {model} writes from')
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


def model_head(head: str) -> str:
  """The head of a model that answers for a head of `data.task.HEADS`."""
  return _HEADS.get(head, head)


def num_labels(members: Sequence[task.Task]) -> int:
  """How many outputs the head of tasks with the same head and labels has: of grades 1, of classes and tags as many."""
  for member in members:
    if member.encoder is not None and member.encoder.head in ('classification', 'tagging'):
      return max(len(member.encoder.labels), 1)
  return 1


def check_labels(module: Any, converter: FeatureConverter, members: Sequence[task.Task]) -> None:
  """Raises UsageError where the head of a model has not as many outputs as tasks have labels.

  Args:
    module: the model.
    converter: makes its features.
    members: the tasks.
  """
  if not isinstance(converter, EncoderTaskFeatures) or _ours(module, _LABELLED) is None:
    return
  if converter.head in ('classification', 'tagging', 'regression'):
    wanted, own = num_labels(members), module.config.num_labels
    if own != wanted:
      what = 'grades, for which there is one output' if converter.head == 'regression' else f'{wanted} labels'
      raise errors.UsageError(
        f'model {type(module).__name__} has num_labels {own}, and task {members[0].name!r} has {what}: '
        f'expected NUM_LABELS = {wanted}'
      )


def _check_labelled(module: Any, converter: EncoderTaskFeatures) -> None:
  """Raises UsageError unless a model reads labelled examples and has the head that they are for."""
  model = _ours(module, _FEATURES)
  if model is None:
    return
  if model not in _LABELLED:
    raise errors.UsageError(
      f'model {model} cannot read EncoderTaskFeatures: expected {" or ".join(_LABELLED)}, or the text-to-text task'
    )
  if converter.side != _LABELLED[model]:
    raise errors.UsageError(
      f'EncoderTaskFeatures.side is {converter.side!r}: expected {_LABELLED[model]!r}, which {model} reads'
    )
  wanted = model_head(converter.head)
  own = tuple(name for name in module.config.heads if name != 'pooler')
  if own != (wanted,):
    raise errors.UsageError(
      f'model {model} has the heads {", ".join(own) or "(none)"}, and its task is for {converter.head!r}: '
      f'expected HEADS = ({wanted!r},)'
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
  most = config.max_length - getattr(config, 'first_position', 0) - config.prompt_length
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
