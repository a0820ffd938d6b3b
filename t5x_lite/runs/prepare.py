"""Preparation of data: what the commands of `python -m t5x_lite.prepare` do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import embedded, sources, streams, task, tokenised
from t5x_lite.data.mixtures import Mixture
from t5x_lite.data.preparation import beam as beam_preparation
from t5x_lite.data.preparation import conversion, tokenisation, vocabulary
from t5x_lite.data.vocabularies import tokenizers
from t5x_lite.data.vocabularies.embedded_vocabulary import DEFAULT_SIZE, embedded_vocabulary
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import SentencePieceTokenizer


def prepare_embedded(*, vocabulary_size: int = DEFAULT_SIZE) -> int:
  """Builds the embedded corpus and its vocabulary where they are not there yet; prints where they lie.

  Args:
    vocabulary_size: number of pieces.
  """
  for config in embedded.CONFIGS:
    source = sources.EmbeddedSource(config)
    counts = ', '.join(f'{source.num_examples(split)} {split}' for split in source.splits)
    print(f'{embedded.NAME}/{config}: {source.folder()} ({counts})')
  print(f'fingerprint of the corpus: {embedded.fingerprint()}')
  built = embedded_vocabulary(vocabulary_size)
  print(f'vocabulary: {os.fspath(built.path)} ({built.vocab_size} ids)')
  print(f'fingerprint of the vocabulary: {built.fingerprint}')
  return 0


def check_task(*, mixture_or_task_name: str | task.Task | Mixture) -> int:
  """Prints a line for each task of a mixture: how many records its splits hold, or what is missing.

  Args:
    mixture_or_task_name: what to look for; the tasks that a mixture is only evaluated on count.

  Returns:
    The exit code: 0 if all are there, 2 if not.
  """
  found = (*task.tasks(mixture_or_task_name), *task.only_evaluated(mixture_or_task_name))
  missing = 0
  for each in found:
    try:
      splits = each.splits if each.splits is not None else each.source.splits
      print(f'{each.name}: there ({", ".join(f"{each.num_examples(split):,} {split}" for split in splits)})')
    except errors.UsageError as error:
      missing += 1
      print(f'{each.name}: {error}')
  print(f'{len(found) - missing} of {len(found)} tasks are there')
  return 2 if missing else 0


def convert_records(*, dataset: str, target: str, data_dir: str | None = None, workers: int | None = None) -> int:
  """Converts a data set that TFDS has prepared in TFRecord files to ArrayRecord (see `data/preparation/conversion.py`).

  Args:
    dataset: TFDS's name.
    target: the TFDS data dir to write to.
    data_dir: the one to read from; None: TFDS's own.
    workers: number of processes; None: one for each CPU.
  """
  folder = conversion.to_array_record(dataset, target, data_dir=data_dir, workers=workers)
  root = os.fspath(folder)
  source = sources.TfdsSource(dataset, data_dir=target)
  counts = ', '.join(f'{len(source.random_access(split))} {split}' for split in source.splits)
  print(f'{root}: complete ({counts})')
  return 0


def tokenise_task(
  *,
  mixture_or_task_name: str | task.Task | Mixture,
  tokenizer: tokenizers.Tokenizer,
  directory: str,
  objective: streams.Objective | Any = None,
  splits: Sequence[str] = (),
  num_shards: int | None = None,
  workers: int | None = None,
) -> int:
  """Makes token ids of a task or of the tasks of a mixture (see `data/preparation/tokenisation.py`).

  Args:
    mixture_or_task_name: what to tokenise.
    tokenizer: makes the ids.
    directory: to write to.
    objective: that the ids are for.
    splits: of the tasks; none: all.
    num_shards: of a split; None: by its size.
    workers: number of processes; None: one for each CPU.
  """
  folders = tokenisation.tokenise(
    mixture_or_task_name,
    tokenizer,
    directory,
    objective=objective,
    splits=splits,
    num_shards=num_shards,
    workers=workers,
  )
  for folder in folders:
    info = tokenised.read_info(os.fspath(folder))
    for name, split in info['splits'].items():
      print(f'{info["task"]}, {name}: {split["records"]:,} records, {split["tokens"]:,} tokens')
  print(f'complete: read it with MIXTURE_OR_TASK_NAME = @tokenised() and tokenised.directory = {directory!r}')
  return 0


def train_vocabulary(
  *,
  mixture_or_task_name: str | task.Task | Mixture,
  target: str,
  size: int = 32_000,
  symbols: Sequence[str] = (),
  byte_fallback: bool = False,
  max_lines: int = 2_000_000,
) -> int:
  """Trains a SentencePiece vocabulary on the training examples of a task; see `preparation.vocabulary`."""
  path = vocabulary.make_vocabulary(
    mixture_or_task_name,
    target,
    size=size,
    symbols=symbols,
    byte_fallback=byte_fallback,
    max_lines=max_lines,
  )
  trained = SentencePieceTokenizer(path)
  print(f'{path}: complete ({size:,} pieces and {trained.vocab_size - size} sentinels)')
  print(f'fingerprint of the vocabulary: {trained.fingerprint}')
  print(f'use it with --gin_file=data/t5_vocabulary.gin --gin.VOCABULARY_PATH={path}')
  return 0


def prepare_with_tfds(
  *,
  dataset: str,
  data_dir: str,
  runner: str = 'DirectRunner',
  beam_options: Sequence[str] = (),
  download_dir: str | None = None,
  manual_dir: str | None = None,
  module: str | None = None,
) -> int:
  """Prepares a data set through TFDS and Apache Beam; parameters as `beam_preparation.prepare_with_beam` has them."""
  folder = beam_preparation.prepare_with_beam(
    dataset,
    data_dir,
    runner=runner,
    beam_options=beam_options,
    download_dir=download_dir,
    manual_dir=manual_dir,
    module=module,
  )
  print(f'{folder}: complete')
  return 0
