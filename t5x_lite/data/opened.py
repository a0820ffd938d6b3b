"""Opened data: a configuration that has passed all checks, its tasks, and what tells its stream from others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import dataset_checks, dataset_config, documents, mixtures, packing, sources, token_ids
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.features import FeatureConverter
from t5x_lite.data.task import Task
from t5x_lite.data.vocabularies import tokenizers

_TELLS_ALL = 'python -m t5x_lite.prepare check, with the same gin files, tells all of them'


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
  dataset_checks.check_values(config)
  if config.tokenizer is None:
    raise errors.UsageError(f'data set {config.name!r}: got no tokenizer')
  tokenizer = config.tokenizer
  members = dataset_config.members_of(config)
  num_virtual_shards = config.num_virtual_shards or dataset_config.default_virtual_shards(config)
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
    raw_length=dataset_checks.raw_length(config, members),
    side_lengths=config.features.side_lengths(config.task_feature_lengths),
    num_virtual_shards=num_virtual_shards,
    fingerprint=_fingerprint(config, config.tokenizer, members, blend, num_virtual_shards),
  )


def check_fingerprint(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
  """Raises `UsageError` naming every value in which a saved data state and this data set differ."""
  names = [name for name in sorted({*saved, *current}) if saved.get(name) != current.get(name)]
  if names:
    differing = '; '.join(f'{name} was {saved.get(name)!r}, is {current.get(name)!r}' for name in names)
    raise errors.UsageError(f'the data position is of another data stream: {differing}')


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
