"""What the arguments of a call must be like, as one line each: shape, dtype and range, looked at before the cast.

An index beyond its table is no error in JAX, which gives NaN or another row, and an array of another shape may be
broadcast into another loss. transformers raises where we do, or returns what nobody could mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from t5x_lite.core.errors import UsageError, unknown

IGNORED = -100  # the label that no loss counts
TARGETS = ('labels', 'next_sentence_label', 'start_positions', 'end_positions')
# What a config.json may say of a classifier.
PROBLEMS = ('regression', 'single_label_classification', 'multi_label_classification')
_LABELLED = ('lm', 'mlm', 'nsp', 'classification', 'multiple_choice', 'tagging')
_INT32 = np.iinfo(np.int32)
Shape = tuple[int | None, ...]


def as_array(name: str, value: Any) -> np.ndarray:
  """An argument in NumPy, in its own dtype.

  Raises:
    UsageError: it is ragged, empty, or no numbers.
  """
  try:
    array = np.asarray(value)
  except ValueError as error:
    raise UsageError(f'{name} is ragged: expected rows of one length, padded, and an attention_mask') from error
  if array.dtype.kind in 'US':
    raise UsageError(f'{name} is text: expected numbers, such as the ids that a tokenizer makes of it')
  if array.dtype.kind not in 'biuf':
    raise UsageError(f'{name} holds {array.dtype}: expected numbers')
  if not array.ndim:
    raise UsageError(f'{name} is a single number: expected an array')
  if not array.size and name != 'mems':  # a memory may be that of nothing yet
    raise UsageError(f'{name} is {list(array.shape)}, which is empty: expected at least one row of one token')
  return array


def is_pretraining(heads: Iterable[str]) -> bool:
  """Whether the heads are those of BERT's pretraining, whose outputs and targets have names of their own."""
  return {'mlm', 'nsp'} <= set(heads)


def labelled_head(heads: Iterable[str]) -> str | None:
  """The head whose output transformers calls `logits`, and whose targets `labels`: the first of those with one."""
  return next((head for head in heads if head in _LABELLED), None)


def problem_type(config: Mapping[str, Any], num_labels: int, *, whole: bool) -> str:
  """The member of `PROBLEMS` that a classifier solves.

  Args:
    config: theirs.
    num_labels: outputs of the head.
    whole: whether the labels are integers.

  Raises:
    UsageError: config.json names another.
  """
  problem = config.get('problem_type')
  if problem is None:
    return PROBLEMS[0 if num_labels == 1 else 1 if whole else 2]
  if problem not in PROBLEMS:
    raise unknown('problem_type', str(problem), PROBLEMS)
  return problem


def check_inputs(module: Any, arrays: Mapping[str, np.ndarray]) -> None:
  """Raises UsageError for inputs that do not fit each other, or the tables of the model."""
  config, tokens = module.config, arrays['input_ids']
  shape = tokens.shape
  if len(shape) != 2 and not (len(shape) == 3 and 'multiple_choice' in config.heads):
    choices = ', or [batch, choices, length]' if 'multiple_choice' in config.heads else ''
    raise UsageError(f'input_ids is {list(shape)}: expected [batch, length]{choices}')
  rows, length = math.prod(shape[:-1]), shape[-1]
  expected: dict[str, tuple[Shape, ...]] = {
    'attention_mask': (shape,),
    'token_type_ids': (shape,),
    'position_ids': (shape, (1, length)),
    'decoder_input_ids': ((rows, None),),
    'perm_mask': ((rows, length, length),),
    'target_mapping': ((rows, None, length),),
  }
  if 'decoder_attention_mask' in arrays:
    expected['decoder_attention_mask'] = (_predicted_shape(module, arrays),)
  if 'mems' in arrays:
    expected['mems'] = ((config.num_layers, None, rows, config.emb_dim),)
  for name, array in arrays.items():
    if name in expected:
      _check_shape(name, array, expected[name], shape)
    if name.endswith('input_ids'):
      _check_integers(name, array, 0, config.vocab_size, 'the vocabulary')
    elif name in ('attention_mask', 'decoder_attention_mask', 'perm_mask'):
      if not np.isin(array, (0, 1)).all():
        raise UsageError(f'{name} has {array[~np.isin(array, (0, 1))][0]}: expected 0 and 1')
    elif name == 'token_type_ids':
      _check_integers(name, array, 0, getattr(config, 'num_token_types', _INT32.max), 'the table of token types')
  _check_positions(config, arrays.get('position_ids'), length)


def _check_positions(config: Any, positions: np.ndarray | None, length: int) -> None:
  first, limit = getattr(config, 'first_position', 0), _INT32.max
  if getattr(config, 'positions', None) == 'learned':
    limit = config.max_length
    if length > limit - first:
      raise UsageError(
        f'input_ids has rows of {length} tokens: expected at most {limit - first}, as there are positions'
      )
  if positions is not None:
    _check_integers('position_ids', positions, 0, limit, 'the table of positions')


def check_targets(module: Any, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
  """Raises UsageError for targets of no head, or of a shape or range that is not the one of their head.

  Args:
    module: ours.
    config: theirs, for the kind of classification.
    arrays: inputs and targets.
  """
  given = [name for name in TARGETS if name in arrays]
  if not given:
    return
  shape = arrays['input_ids'].shape
  _check_names(given, module.config.heads)
  one_each: tuple[Shape, ...] = ((shape[0],), (shape[0], 1))
  for name in given:
    array = arrays[name]
    if name == 'labels':
      _check_labels(module, config, arrays)
    elif name == 'next_sentence_label':
      _check_shape(name, array, one_each, shape)
      _check_integers(name, array, 0, 2, 'the two outputs', ignored=True)
    else:  # a position beyond the input is clipped to it, and not counted
      _check_shape(name, array, one_each, shape)
      _check_integers(name, array, _INT32.min, _INT32.max, 'int32')


def _check_names(given: list[str], heads: tuple[str, ...]) -> None:
  groups: list[tuple[str, ...]] = []
  if is_pretraining(heads):
    groups.append(('labels', 'next_sentence_label'))
  elif labelled_head(heads):
    groups.append(('labels',))
  if 'span' in heads:
    groups.append(('start_positions', 'end_positions'))
  taken = ' or '.join(' with '.join(group) for group in groups) or 'no targets'
  own = ', '.join(heads) or 'none'
  for name in given:
    if not any(name in group for group in groups):
      raise UsageError(f'{name} is the target of none of the heads of this model ({own}): expected {taken}')
  if not any(set(given) == set(group) for group in groups):
    raise UsageError(f'targets are {", ".join(given)}: expected {taken}')


def _check_labels(module: Any, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
  labels, shape, heads = arrays['labels'], arrays['input_ids'].shape, module.config.heads
  head = 'mlm' if is_pretraining(heads) else labelled_head(heads)
  if head == 'classification':
    _check_classes(labels, shape, problem_type(config, module.config.num_labels, whole=_is_whole(labels)), module)
  elif head == 'multiple_choice':
    if len(shape) != 3:
      raise UsageError(f'input_ids is {list(shape)}: expected [batch, choices, length], for labels')
    _check_shape('labels', labels, ((shape[0],),), shape)
    _check_integers('labels', labels, 0, shape[1], 'the choices', ignored=True)
  elif head == 'nsp':
    _check_shape('labels', labels, ((shape[0],), (shape[0], 1)), shape)
    _check_integers('labels', labels, 0, 2, 'the two outputs', ignored=True)
  else:
    classes, of_what = module.config.vocab_size, 'the vocabulary'
    if head == 'tagging':
      classes, of_what = module.config.num_labels, 'num_labels'
    _check_shape('labels', labels, (_predicted_shape(module, arrays),), shape)
    _check_integers('labels', labels, 0, classes, of_what, ignored=True)


def _check_classes(labels: np.ndarray, shape: Shape, problem: str, module: Any) -> None:
  num_labels = module.config.num_labels
  one_each: tuple[Shape, ...] = ((shape[0],), (shape[0], 1))
  several: tuple[Shape, ...] = ((shape[0], num_labels),)
  if labels.dtype.kind == 'b':
    raise UsageError('labels is bool: expected integers, or floats for a regression or several labels a row')
  if problem == 'single_label_classification':
    _check_shape('labels', labels, one_each, shape, f', of {problem}')
    _check_integers('labels', labels, 0, num_labels, 'num_labels', ignored=True)
  else:
    alone = problem == 'regression' and num_labels == 1
    _check_shape('labels', labels, one_each if alone else several, shape, f', of {problem}')


def _predicted_shape(module: Any, arrays: Mapping[str, np.ndarray]) -> Shape:
  """Rows and positions of what is predicted: those of the decoder, or of the target mapping, where there is one."""
  config, tokens = module.config, arrays['input_ids']
  rows = math.prod(tokens.shape[:-1])
  if getattr(config, 'num_decoder_layers', 0):
    if 'decoder_input_ids' in arrays:
      return (rows, arrays['decoder_input_ids'].shape[-1])
    if 'lm' in config.heads:  # the decoder reads the labels, whose length is their own
      labels = arrays.get('labels')
      return (rows, None if labels is None or labels.ndim != 2 else labels.shape[1])
  if 'target_mapping' in arrays:
    return (rows, arrays['target_mapping'].shape[1])
  return (rows, tokens.shape[-1])


def _check_shape(name: str, array: np.ndarray, expected: tuple[Shape, ...], of_ids: Shape, why: str = '') -> None:
  for shape in expected:
    if len(shape) == array.ndim and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True)):
      return
  wanted = ' or '.join(
    '[' + ', '.join('any' if size is None else str(size) for size in shape) + ']' for shape in expected
  )
  raise UsageError(f'{name} is {list(array.shape)}, and input_ids {list(of_ids)}: expected {wanted}{why}')


def _is_whole(array: np.ndarray) -> bool:
  return array.dtype.kind in 'iu'


def _check_integers(
  name: str, array: np.ndarray, least: int, limit: int, of_what: str, *, ignored: bool = False
) -> None:
  """That an array holds integers from `least` to `limit` - 1, or `IGNORED` where that is allowed."""
  also = f' or {IGNORED}' if ignored else ''
  if not _is_whole(array):
    raise UsageError(f'{name} is {array.dtype}: expected integers, from {least} to {limit - 1}{also}')
  beyond = (array < least) | (array >= limit)
  if ignored:
    beyond &= array != IGNORED
  if beyond.any():
    raise UsageError(f'{name} has {array[beyond][0]}: expected {least} to {limit - 1}{also}, of {of_what}')
