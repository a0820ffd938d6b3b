"""What to read: one configuration for all data, and what follows from it without opening anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5x_lite.data import (
  packing,
  sentence_pairs,
  streams,
  task,
  task_choices,
)
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.features import EncoderDecoderFeatures, FeatureConverter
from t5x_lite.data.mixtures import Mixture
from t5x_lite.data.task import Task
from t5x_lite.data.vocabularies import tokenizers

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


def cuts(config: DatasetConfig) -> bool:
  """Whether examples of joined documents are made of as much text as there is room for, see `filling`."""
  return config.pack == packing.FILL or (config.pack is False and config.text_length is not None)
