"""What to read, and the checks that turn it into opened data before anything runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import (
  documents,
  features,
  mixtures,
  packing,
  sentence_pairs,
  sources,
  streams,
  task,
  task_choices,
  token_ids,
)
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.features import EncoderDecoderFeatures, FeatureConverter
from t5x_lite.data.mixtures import Mixture
from t5x_lite.data.task import Task
from t5x_lite.data.vocabularies import tokenizers

_TELLS_ALL = 'python -m t5x_lite.prepare check, with the same gin files, tells all of them'
_MAX_DEFAULT_SHARDS = 64
_LEAST_DEFAULT_ROWS = 8  # of a shard in a batch: what waits in a shard's open rows should be little beside them


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
  """A data set as batches. The stream of global batches follows from these values and the data alone.

  Attributes:
    mixture_or_task_name: a name of the registry in `data/task.py`, or a task or a mixture itself.
    task_feature_lengths: `{'inputs': ..., 'targets': ...}`, tokens, EOS included; which of them, `features` says.
    tokenizer: makes ids of text.
    split: of every task.
    batch_size: rows of a global batch.
    objective: makes examples of the text of unsupervised tasks; None will do if there are none.
    features: makes model features of examples; which objectives go with which, see `data/features.py`.
    shuffle: whether every epoch is read in a new random order.
    seed: of the order, the mixing and the objective; at least 0.
    pack: whether short examples share rows: True or 'first_fit' never splits an example, 'split' cuts examples where a
      row is full, see `packing`; 'fill' makes the last example of a row of as much text as fits, see `filling`.
    text_length: tokens of text that an example of an unsupervised task has, at most. None: as many as the objective is
      sure to fit into the feature lengths; more is possible only where `pack` is 'fill' and documents are joined.
    pack_across_tasks: whether examples of different tasks may share a row. If not, what a task has in open rows when a
      schedule ends it is delivered in the stage that follows, in at most every second row.
    repeat: True never ends. False is one pass over every task of the mixture, one task after the other.
    num_virtual_shards: V, a divisor of the batch size. None: the largest up to 64 that gives a shard 8 rows of a batch,
      or 1 for a finite pass. With more than V processes some shards are read by several of them.
    prefetch: how many batches a background thread makes ahead; 0: no thread.
    long_examples: what becomes of examples that are too long, in every task; None: what each task says.
    stride: how many tokens of a part are repeated in the next where examples or documents are split; None: as above.
    documents: how the documents of unsupervised tasks are cut; None: as above.
  """

  mixture_or_task_name: str | Task | Mixture
  task_feature_lengths: Mapping[str, int]
  tokenizer: tokenizers.Tokenizer | None = None
  split: str = 'train'
  batch_size: int = 128
  objective: streams.Objective | sentence_pairs.PairObjective | None = None
  features: FeatureConverter = dataclasses.field(default_factory=EncoderDecoderFeatures)
  shuffle: bool = True
  seed: int = 0
  pack: bool | str = True
  text_length: int | None = None
  pack_across_tasks: bool = True
  repeat: bool = True
  num_virtual_shards: int | None = None
  prefetch: int = 2
  long_examples: str | None = None
  stride: int | None = None
  documents: str | None = None

  @property
  def name(self) -> str:
    """The name of the mixture or task."""
    return task.name_of(self.mixture_or_task_name)


@dataclasses.dataclass(frozen=True)
class Part:
  """An opened task of the mixture.

  Attributes:
    task: the task.
    share: of the examples, or of what else the mixture counts, at the first step.
    records: all records of the split.
    order: in which they are read.
  """

  task: Task
  share: float
  records: sources.RandomAccess
  order: documents.Order


@dataclasses.dataclass(frozen=True)
class OpenedDataset:
  """A configuration that has passed all checks, and its data.

  Attributes:
    config: the configuration.
    tokenizer: its tokenizer.
    converter: its feature converter, with what it left open taken from the tokenizer.
    parts: its tasks.
    blend: their shares, step by step.
    raw_length: tokens of an unsupervised example before the objective; 0 if there are none.
    side_lengths: length of a row, by side.
    num_virtual_shards: V.
    fingerprint: everything that the stream depends on, JSON-able, by name.
  """

  config: DatasetConfig
  tokenizer: tokenizers.Tokenizer
  converter: FeatureConverter
  parts: tuple[Part, ...]
  blend: mixtures.Blend
  raw_length: int
  side_lengths: Mapping[str, int]
  num_virtual_shards: int
  fingerprint: Mapping[str, Any]


def open_dataset(config: DatasetConfig) -> OpenedDataset:
  """Checks `config` and opens its sources. Raises `UsageError` for everything that is impossible or not there."""
  check_values(config)
  if config.tokenizer is None:
    raise errors.UsageError(f'data set {config.name!r}: got no tokenizer')
  tokenizer = config.tokenizer
  members = members_of(config)
  num_virtual_shards = config.num_virtual_shards or default_virtual_shards(config)
  opening = [functools.partial(_open_part, config, member, index) for index, member in enumerate(members)]
  _, *opened = errors.together(lambda: tokenizer.fingerprint, *opening, more=_TELLS_ALL)
  blend = mixtures.blend(config.mixture_or_task_name)
  parts = [Part(member, share, *own) for member, share, own in zip(members, blend.stages[0][1], opened, strict=True)]
  return OpenedDataset(
    config=config,
    tokenizer=config.tokenizer,
    converter=config.features.for_tokenizer(config.tokenizer),
    parts=tuple(parts),
    blend=blend,
    raw_length=_raw_length(config, members),
    side_lengths=config.features.side_lengths(config.task_feature_lengths),
    num_virtual_shards=num_virtual_shards,
    fingerprint=_fingerprint(config, config.tokenizer, members, blend, num_virtual_shards),
  )


def members_of(config: DatasetConfig) -> tuple[Task, ...]:
  """The tasks of the mixture, with what the configuration says of all of them.

  Raises:
    UsageError: a choice is not known, or there is no task that it could be for.
  """
  return _with_choices(config, task.tasks(config.mixture_or_task_name))


def _with_choices(config: DatasetConfig, members: tuple[Task, ...]) -> tuple[Task, ...]:
  heads = isinstance(config.features, EncoderTaskFeatures)
  given = {name: getattr(config, name) for name in task_choices.NAMES}
  return task_choices.applied(f'data set {config.name!r}', members, given, heads=heads)


def of_each_task(config: DatasetConfig) -> dict[str, DatasetConfig]:
  """The data set of each task by itself that a run on the mixture is evaluated on, by name.

  Those that are evaluated only are among them where they have the split.
  """
  besides = tuple(each for each in task.only_evaluated(config.mixture_or_task_name) if each.has_split(config.split))
  members = _with_choices(config, (*task.tasks(config.mixture_or_task_name), *besides))
  settled: dict[str, Any] = dict.fromkeys(task_choices.NAMES)  # they are the tasks' own now
  return {each.name: dataclasses.replace(config, mixture_or_task_name=each, **settled) for each in members}


def default_virtual_shards(config: DatasetConfig) -> int:
  """The largest divisor of the batch size that gives a shard 8 rows of a batch, at most 64; 1 for a finite pass."""
  most = min(config.batch_size // _LEAST_DEFAULT_ROWS, _MAX_DEFAULT_SHARDS) if config.repeat else 1
  return max(v for v in range(1, max(most, 1) + 1) if config.batch_size % v == 0)


def check_fingerprint(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
  """Raises `UsageError` naming every value in which a saved data state and this data set differ."""
  names = [name for name in sorted({*saved, *current}) if saved.get(name) != current.get(name)]
  if names:
    differing = '; '.join(f'{name} was {saved.get(name)!r}, is {current.get(name)!r}' for name in names)
    raise errors.UsageError(f'the data position is of another data stream: {differing}')


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
  _raw_length(config, members)


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


def _raw_length(config: DatasetConfig, members: tuple[Task, ...]) -> int:
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


def cuts(config: DatasetConfig) -> bool:
  """Whether examples of joined documents are made of as much text as there is room for, see `filling`."""
  return config.pack == packing.FILL or (config.pack is False and config.text_length is not None)


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


def _open_part(config: DatasetConfig, member: Task, index: int) -> tuple[sources.RandomAccess, documents.Order]:
  token_ids.check(member, config.tokenizer, config.objective)
  split = member.source_split(config.split)
  records = member.source.random_access(split)
  if len(records) == 0:
    raise errors.UsageError(f'split {config.split!r} of task {member.name!r} is empty')
  seed = (config.seed, index) if config.shuffle else None
  return records, documents.Order(len(records), seed, config.repeat)


def _fingerprint(
  config: DatasetConfig,
  tokenizer: tokenizers.Tokenizer,
  members: Sequence[Task],
  blend: mixtures.Blend,
  num_virtual_shards: int,
) -> dict[str, Any]:
  """Prefetch is no part of it, for it changes nothing; nor are the hosts."""
  names = [member.name for member in members]
  return {
    'mixture_or_task_name': config.name,
    'split': config.split,
    'shares': dict(zip(names, blend.stages[0][1], strict=True)),
    'schedule': [[step, *shares] for step, shares in blend.stages[1:]],
    'unit': blend.unit,
    'sources': {member.name: member.source.fingerprint(member.source_split(config.split)) for member in members},
    'long_examples': {member.name: [member.long_examples, member.documents, member.stride] for member in members},
    'tokenizer': tokenizer.fingerprint,
    'objective': repr(config.objective),
    'features': repr(config.features),
    'task_feature_lengths': dict(config.task_feature_lengths),
    'batch_size': config.batch_size,
    'num_virtual_shards': num_virtual_shards,
    'seed': config.seed,
    'shuffle': config.shuffle,
    'pack': packing.FIRST_FIT if config.pack is True else config.pack,
    'text_length': config.text_length,
    'pack_across_tasks': config.pack_across_tasks,
    'repeat': config.repeat,
  }
