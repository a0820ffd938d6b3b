"""What a fine-tuning run takes from its task, its data and its checkpoint, by name in gin files.

NUM_LABELS = @num_labels_of_task()       TRAIN_STEPS = @steps_of_epochs()       VOCABULARY = @task_vocabulary()
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import Any

from flax import linen as nn

from t5x_lite import families
from t5x_lite.core import errors
from t5x_lite.data import pipeline, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.mixtures import Mixture
from t5x_lite.data.task import Task
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.interop import sentence_transformers
from t5x_lite.models.heads import EMBEDDING

SPIECE = 'spiece.model'  # T5's vocabulary in the current folder, where nothing says another


def head_of_task(mixture_or_task_name: str | Task | Mixture) -> str:
  """The head that the examples of a task are for, one of `data.task.HEADS`.

  Raises:
    UsageError: it has no examples for a head, or is a mixture of tasks with different ones.
  """
  members = task.tasks(mixture_or_task_name)
  heads = {member.name: None if member.encoder is None else member.encoder.head for member in members}
  (first, head), *rest = heads.items()
  for name, other in heads.items():
    if other is None:
      raise errors.UsageError(f'task {name!r} has no examples for a head: expected a task of classes, spans or tags')
  for name, other in rest:
    if other != head:
      raise errors.UsageError(
        f'tasks {first!r} and {name!r} are for different heads, {head!r} and {other!r}: expected one task, or such as '
        'share their head'
      )
  assert head is not None
  return head


def heads_of_task(mixture_or_task_name: str | Task | Mixture) -> tuple[str, ...]:
  """The heads that a model for a task has: one."""
  return (families.model_head(head_of_task(mixture_or_task_name)),)


def num_labels_of_task(mixture_or_task_name: str | Task | Mixture) -> int:
  """The outputs of a head for a task: its classes or tags, 1 for grades."""
  return families.num_labels(task.tasks(mixture_or_task_name))


def rows_of_an_epoch(dataset: DatasetConfig) -> int:
  """The rows that one pass over the data fills: its examples, unless they are packed.

  All of it is tokenised for that, once: how many examples a record makes only its task knows.
  """
  once = dataclasses.replace(dataset, repeat=False, shuffle=False, num_virtual_shards=None, prefetch=0)
  batches = pipeline.build(once)
  count = sum(1 for _ in batches)
  return count * once.batch_size if once.pack else sum(batches.statistics()['examples_per_task'].values())


def steps_of_epochs(rows: int, batch_size: int, num_epochs: float) -> int:
  """The steps that so many epochs take, rounded up; at least 1.

  Args:
    rows: of an epoch.
    batch_size: rows of a step.
    num_epochs: more than 0; half an epoch will do.
  """
  if not num_epochs > 0:
    raise errors.UsageError(f'NUM_EPOCHS={num_epochs}: expected more than 0')
  return max(1, math.ceil(rows * num_epochs / batch_size))


def warmup_of(total_steps: int, share: float) -> int:
  """The steps of warm-up that are a share, from 0 to 1, of all steps, rounded up as in transformers."""
  if not 0.0 <= share < 1.0:
    raise errors.UsageError(f'WARMUP_SHARE={share}: expected at least 0 and less than 1')
  return min(math.ceil(total_steps * share), total_steps - 1)


def task_vocabulary(path: str | None = None, checkpoint: str | None = None) -> Tokenizer:
  """The vocabulary of a run: the one that is named, else that of the checkpoint it starts from.

  Args:
    path: a SentencePiece model, or a folder with the files of Hugging Face; None: the checkpoint's.
    checkpoint: anything that `load_pretrained` reads; None: `spiece.model` in the current folder.

  Raises:
    UsageError: there is no vocabulary.
  """
  if path is None and checkpoint is not None:
    from t5x_lite import stored_models

    tokenizer = stored_models.open_model(checkpoint).open_tokenizer()
    if tokenizer is None:
      raise errors.UsageError(f'{checkpoint} has no vocabulary: expected VOCABULARY_PATH, of its files')
    return tokenizer
  if path is not None and pathlib.Path(path).expanduser().is_dir():
    from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

    found: Any = load_tokenizer(path)
    return found
  from t5x_lite.data.vocabularies import sentencepiece_tokenizer

  return sentencepiece_tokenizer.SentencePieceTokenizer(path=SPIECE if path is None else path)


def published_model(
  source: str | os.PathLike[str],
  heads: tuple[str, ...] | None = None,
  num_labels: int | None = None,
  dropout_rate: float | None = None,
  adapter_dim: int | None = None,
  prompt_length: int | None = None,
  pooling: str | None = None,
  dtype: str = 'float32',
  attention: str = 'auto',
  scan_layers: bool = True,
  remat_policy: str = 'none',
) -> nn.Module:
  """The model that lies in a checkpoint, whatever its family and sizes, with the heads of a task.

  Args:
    source: anything that `load_pretrained` reads.
    heads: of the model; None: those that are stored.
    num_labels: outputs of a head for classes or tags; None: as stored.
    dropout_rate: None: as stored.
    adapter_dim: None: as stored.
    prompt_length: None: as stored.
    pooling: of the head 'embedding'; None: as stored, of a folder of sentence-transformers as its files say.
    dtype: of activations.
    attention: what computes it.
    scan_layers: whether layers are scanned.
    remat_policy: what the backward pass computes again.

  Raises:
    UsageError: nothing that can be read, or a head that its family has not.
  """
  from t5x_lite import stored_models

  stored = stored_models.open_model(source)
  module = stored.module
  if pooling is None and EMBEDDING in (heads or ()):
    pooling = sentence_transformers.pooling_of(stored.origin)
  given: dict[str, Any] = {'heads': heads, 'num_labels': num_labels, 'dropout_rate': dropout_rate}
  given |= {'adapter_dim': adapter_dim, 'prompt_length': prompt_length, 'pooling': pooling}
  changes = {name: value for name, value in given.items() if value is not None}
  changes |= {'dtype': dtype, 'attention': attention, 'scan_layers': scan_layers, 'remat_policy': remat_policy}
  own = {field.name for field in dataclasses.fields(module.config)}
  return type(module)(
    dataclasses.replace(module.config, **{name: value for name, value in changes.items() if name in own})
  )
