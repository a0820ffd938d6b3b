"""Checks of a data set's values: what no data could go with is refused before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import features, packing, task
from t5x_lite.data.dataset_config import DatasetConfig, cuts, members_of
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.features import FeatureConverter
from t5x_lite.data.task import Task


def check_values(config: DatasetConfig) -> None:
  """Raises UsageError for a value that no data could go with. Opens nothing."""
  what = f'data set {config.name!r}'
  members = members_of(config)
  task.only_evaluated(config.mixture_or_task_name)  # names that are not known
  _check_objective(config, members)
  _check_lengths(what, config.task_feature_lengths, config.features)
  _check_int(f'{what}: batch_size', config.batch_size, 1)
  _check_int(f'{what}: seed', config.seed, 0)
  _check_int(f'{what}: prefetch', config.prefetch, 0)
  if config.text_length is not None:
    least = 2 if hasattr(config.objective, 'pair') else 1  # a token of each text
    _check_int(f'{what}: text_length', config.text_length, least)
  if config.num_virtual_shards is not None:
    _check_int(f'{what}: num_virtual_shards', config.num_virtual_shards, 1)
    if config.batch_size % config.num_virtual_shards:
      raise errors.UsageError(
        f'{what}: got batch_size {config.batch_size} and num_virtual_shards {config.num_virtual_shards}, '
        'expected a batch size that the number of virtual shards divides'
      )
  _check_packing(what, config)
  if isinstance(config.features, EncoderTaskFeatures):
    _check_heads(config.features, members)
    return
  _check_supervised(config, members)
  raw_length(config, members)


def _check_lengths(what: str, lengths: Mapping[str, int], converter: FeatureConverter) -> None:
  """Raises UsageError where these are not the lengths that the feature converter wants."""
  if not isinstance(lengths, Mapping) or all(set(lengths) != set(names) for names in converter.lengths):
    got = sorted(lengths) if isinstance(lengths, Mapping) else lengths
    expected = ' or '.join(str(sorted(names)) for names in converter.lengths)
    raise errors.UsageError(
      f'{what}: got task_feature_lengths for {got!r}, expected exactly {expected} ({type(converter).__name__})'
    )
  for name, length in lengths.items():
    _check_int(f'{what}: task_feature_lengths[{name!r}]', length, 1)


def _check_packing(what: str, config: DatasetConfig) -> None:
  """Raises UsageError for a way of packing that is not known, or that the features rule out."""
  if config.pack and isinstance(config.features, EncoderTaskFeatures) and config.features.head == 'embedding':
    raise errors.UsageError(
      f'{what}: got pack={config.pack!r}, and every row has one text that the others of the batch are told from: '
      'expected PACK = False'
    )
  if isinstance(config.pack, bool):
    return
  if config.pack not in packing.MODES:
    raise errors.unknown(f'way of packing of {what}', config.pack, packing.MODES)
  sides = config.features.side_lengths(config.task_feature_lengths)
  uncut = len(sides) > 1 or isinstance(config.features, EncoderTaskFeatures)
  if config.pack == packing.SPLIT and (uncut or getattr(config.features, 'sentence_pairs', False)):
    raise errors.UsageError(
      f'{what}: got pack={config.pack!r} with {type(config.features).__name__}, whose examples cannot be cut anywhere: '
      f'expected {packing.FIRST_FIT!r}'
    )


def _check_heads(converter: EncoderTaskFeatures, members: tuple[Task, ...]) -> None:
  """Raises UsageError where a task has nothing for the head of the features, or other labels than the rest."""
  for member in members:
    head = member.encoder.head if member.encoder is not None else None
    if head != converter.head:
      raise errors.UsageError(
        f'task {member.name!r} has {f"examples for the head {head!r}" if head else "no examples for a head"}: '
        f'expected {converter.head!r} (EncoderTaskFeatures.head)'
      )
  labels = {member.name: member.encoder.labels for member in members if member.encoder is not None}
  first, *rest = labels
  for name in rest:
    if labels[name] != labels[first]:
      raise errors.UsageError(f'tasks {first!r} and {name!r} have other labels: expected the same, for one head')


def _check_supervised(config: DatasetConfig, members: tuple[Task, ...]) -> None:
  """Raises UsageError where the features cannot have the pairs of a supervised task."""
  supervised = [member.name for member in members if member.supervised]
  if not supervised:
    return
  if not features.accepts(config.features, features.SUPERVISED):
    raise errors.UsageError(
      f'task {supervised[0]!r} is supervised: got {type(config.features).__name__}, expected '
      f'{" or ".join(features.fitting(features.SUPERVISED))}'
    )
  missing = [name for name in features.SUPERVISED if name not in config.task_feature_lengths]
  if missing:
    got = dict(config.task_feature_lengths)
    raise errors.UsageError(
      f'task {supervised[0]!r} is supervised: got task_feature_lengths {got}, expected a length of {missing[0]} too'
    )
  for member in members:
    if member.supervised and member.long_examples == task.SPLIT:
      _check_stride(member, config.task_feature_lengths['inputs'] - 1)


def _check_stride(member: Task, size: int) -> None:
  """Raises UsageError where parts of `size` tokens would not get on."""
  if member.stride >= size:
    raise errors.UsageError(
      f'task {member.name!r}: got stride {member.stride}, expected less than the {size} tokens of a part'
    )


def raw_length(config: DatasetConfig, members: tuple[Task, ...]) -> int:
  """Tokens of an unsupervised example before the objective; 0 where there are none."""
  if isinstance(config.features, EncoderTaskFeatures):
    return 0
  unsupervised = [member for member in members if not member.supervised]
  if not unsupervised:
    return 0
  assert config.objective is not None  # `_check_objective` has seen to it
  raw_length = _text_length(config, unsupervised)
  for member in unsupervised:
    if member.documents == task.SPLIT_DOCUMENTS:
      _check_stride(member, raw_length)
  return raw_length


def _text_length(config: DatasetConfig, unsupervised: list[Task]) -> int:
  """Tokens of text that an example has, at most. Raises UsageError where they may not fit and cannot be cut."""
  assert config.objective is not None
  length = config.text_length
  whole = next((member.name for member in unsupervised if member.documents != task.JOINED), None)
  if length is not None and cuts(config) and whole is None and not hasattr(config.objective, 'pair'):
    return length
  if length is not None and _fits(config.objective, length, config.task_feature_lengths):
    return length
  longest = config.objective.raw_length(config.task_feature_lengths)
  if length is None or length <= longest:
    return longest if length is None else length
  joined = 'joined documents' if whole is None else f'joined documents, which those of {whole!r} are not'
  raise errors.UsageError(
    f'data set {config.name!r}: got text_length {length} and task_feature_lengths {dict(config.task_feature_lengths)}, '
    f'expected at most {longest}; more goes with pack={packing.FILL!r} and {joined}'
  )


def _fits(objective: Any, length: int, feature_lengths: Mapping[str, int]) -> bool:
  """Whether examples of so much text fit, by an objective that tells their lengths; False where it does not tell."""
  in_one_row = set(feature_lengths) == {'targets'}
  lengths = getattr(objective, 'lengths_in_one_row', None) if in_one_row else None
  lengths = lengths or getattr(objective, 'example_lengths', None)
  if lengths is None:
    return False
  inputs, targets = lengths(length)
  if in_one_row:
    return inputs + targets <= feature_lengths['targets']
  return inputs <= feature_lengths.get('inputs', 0) and targets <= feature_lengths.get('targets', 0)


def _check_objective(config: DatasetConfig, members: tuple[Task, ...]) -> None:
  """Raises UsageError, with the pairs that are possible, where the features cannot have what the objective makes."""
  unsupervised = [member.name for member in members if not member.supervised]
  if not unsupervised or isinstance(config.features, EncoderTaskFeatures):
    return
  objective, converter = config.objective, config.features
  legal = features.legal_objectives(converter)
  if objective is None:
    raise errors.UsageError(f'task {unsupervised[0]!r} is unsupervised: got no objective, expected {legal}')
  if features.accepts(converter, objective.features):
    _check_pairs(objective, members)
    return
  name, model = type(objective).__name__, type(converter).__name__
  fitting = features.fitting(objective.features)
  hint = f'; {name} goes with {" or ".join(fitting)}' if fitting else ''
  raise errors.UsageError(f'objective {name} makes examples that {model} cannot read: expected {legal}{hint}')


def _check_pairs(objective: Any, members: tuple[Task, ...]) -> None:
  """Raises UsageError where documents are to be cut in a way that an objective for pairs of sentences ignores."""
  cut = [member for member in members if not member.supervised and member.documents != task.JOINED]
  if cut and hasattr(objective, 'pair'):
    raise errors.UsageError(
      f'task {cut[0].name!r}: got documents={cut[0].documents!r} with {type(objective).__name__}, but pairs of '
      f'sentences are made document by document: expected documents={task.JOINED!r}'
    )


def _check_int(what: str, value: Any, least: int) -> None:
  if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
    raise errors.UsageError(f'{what}: got {value!r}, expected an int of at least {least}')
