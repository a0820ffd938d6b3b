"""What there is to know about a data set on its way to the model, as plain values: `report` shows them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5x_lite.data import hashes, opened, pipeline
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.inspection import examples as inspection_examples
from t5x_lite.data.inspection import rows as inspection_rows
from t5x_lite.data.inspection.examples import Example
from t5x_lite.data.inspection.rows import Row
from t5x_lite.data.opened import OpenedDataset, Part

_RECORDS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Documents:
  """A sample of a task's records: the first ones of the split, as they are stored.

  Attributes:
    read: how many.
    empty: how many of them the task makes nothing of, or nothing but blanks.
    duplicates: how many have exactly the texts of an earlier one; empty ones do not count.
    characters: of all their texts.
    skipped: how many records the source has passed over so far because they are bad, by reason.
  """

  read: int
  empty: int
  duplicates: int
  characters: int
  skipped: dict[str, int]


@dataclasses.dataclass(frozen=True)
class TaskFacts:
  """A task of the mixture, and what came of it over the sample of batches.

  Attributes:
    name: of the task.
    fingerprint: of its source.
    records: in the split.
    documents: a sample of them.
    rate: the share asked for at the first step, of what the mixture counts.
    share: the share realised, of the examples.
    token_share: the share realised, of the tokens.
    examples: in the sample of batches, as all that follows.
    tokens: without padding, of all sides.
    truncated: examples that lost tokens.
    dropped: records without an example and examples left out.
  """

  name: str
  fingerprint: str
  records: int
  documents: Documents
  rate: float
  share: float
  token_share: float
  examples: int
  tokens: int
  truncated: int
  dropped: int


@dataclasses.dataclass(frozen=True)
class Sample:
  """What was counted over the first batches, nothing made ahead.

  Attributes:
    batches: how many.
    rows: of the last of them, the one with most examples first.
    useful_fraction: of the positions of all sides, those that are not padding.
    useful_fraction_per_side: the same by side.
    tokens_per_second: positions a second, padding included, the first batch left out; None if there was only one.
    useful_tokens_per_second: the same without padding.
  """

  batches: int
  rows: list[Row]
  useful_fraction: float
  useful_fraction_per_side: dict[str, float]
  tokens_per_second: float | None
  useful_tokens_per_second: float | None


@dataclasses.dataclass(frozen=True)
class BatchHashes:
  """The hash of the first global batches.

  Attributes:
    batches: how many there were; fewer than asked for where a finite pass ends.
    hosts: as how many processes they were read.
    hash: of all of them together.
    each: of each by itself.
  """

  batches: int
  hosts: int
  hash: str
  each: list[str]


@dataclasses.dataclass(frozen=True)
class Facts:
  """All there is to show.

  Attributes:
    name: of the mixture or task.
    configuration: everything that the stream of batches follows from, by name.
    raw_length: tokens of text that an example takes; 0 where all tasks are supervised.
    vocabulary: `ids` and `sentinels`, how many.
    tasks: of the mixture.
    examples: the first ones of the first virtual shard, tasks in turn.
    sample: of batches.
    document_order_hash: see `hashes.order_hash`.
    batch_hashes: None where they were not asked for.
  """

  name: str
  configuration: dict[str, Any]
  raw_length: int
  vocabulary: dict[str, int]
  tasks: list[TaskFacts]
  examples: list[Example]
  sample: Sample
  document_order_hash: str
  batch_hashes: BatchHashes | None

  def as_dict(self) -> dict[str, Any]:
    """JSON-able."""
    return dataclasses.asdict(self)


def gather(
  config: DatasetConfig,
  num: int,
  *,
  sample_batches: int = 20,
  sample_records: int = 1000,
  hashed_batches: int = 0,
  hosts: int = 1,
) -> Facts:
  """Reads what `config` says and collects the facts.

  Args:
    config: the data set.
    num: how many examples, from the tasks of the mixture in turn.
    sample_batches: how many batches shares, padding and speed are measured on, at least 1.
    sample_records: in how many records of each task empty ones and duplicates are looked for.
    hashed_batches: how many batches to hash; 0: none.
    hosts: as how many processes to read these.

  Raises:
    UsageError: the configuration is impossible, the data is not there, or there are more hosts than rows.
  """
  data = opened.open_dataset(config)
  hashed = _batch_hashes(config, hashed_batches, hosts) if hashed_batches else None
  sample, statistics = _sample(config, data, sample_batches)
  return Facts(
    name=config.name,
    configuration=dict(data.fingerprint),
    raw_length=data.raw_length,
    vocabulary={'ids': data.tokenizer.vocab_size, 'sentinels': data.tokenizer.num_sentinels},
    tasks=[_task(data, part, statistics, sample_records) for part in data.parts],
    examples=inspection_examples.first(data, num),
    sample=sample,
    document_order_hash=hashes.order_hash(data),
    batch_hashes=hashed,
  )


def _batch_hashes(config: DatasetConfig, num: int, hosts: int) -> BatchHashes:
  each = list(hashes.batch_hashes(config, num, hosts))
  return BatchHashes(len(each), hosts, each[-1].stream, [digest.batch for digest in each])


def _task(data: OpenedDataset, part: Part, statistics: Mapping[str, Any], sample_records: int) -> TaskFacts:
  name = part.task.name
  return TaskFacts(
    name=name,
    fingerprint=data.fingerprint['sources'][name],
    records=len(part.records),
    documents=_documents(data, part, sample_records),
    rate=part.share,
    share=statistics['share_per_task'][name],
    token_share=statistics['token_share_per_task'][name],
    examples=statistics['examples_per_task'][name],
    tokens=statistics['tokens_per_task'][name],
    truncated=statistics['truncated_per_task'][name],
    dropped=statistics['dropped_per_task'][name],
  )


def _documents(data: OpenedDataset, part: Part, count: int) -> Documents:
  """Empty documents and exact duplicates among the first records, by hashes of 64 bits, 8 bytes of memory each.

  Of 10^9 different records one in 37 such counts would find a single duplicate that is none.
  """
  count = min(count, len(part.records))
  empty = characters = filled = 0
  hashes_of = np.zeros(count, np.uint64)
  for start in range(0, count, _RECORDS_AT_ONCE):
    for record in part.records.__getitems__(range(start, min(start + _RECORDS_AT_ONCE, count))):
      texts = [text for example in inspection_examples.texts_of(data, part.task, record) for text in example.values()]
      characters += sum(map(len, texts))
      if any(text.strip() for text in texts):
        digest = hashlib.blake2b(repr(texts).encode(), digest_size=8).digest()
        hashes_of[filled] = int.from_bytes(digest, 'little')
        filled += 1
      else:
        empty += 1
  skipped = dict(getattr(part.records, 'skipped', {}))
  return Documents(count, empty, filled - len(np.unique(hashes_of[:filled])), characters, skipped)


def _sample(config: DatasetConfig, data: OpenedDataset, sample_batches: int) -> tuple[Sample, Mapping[str, Any]]:
  """The first batches, and the iterator's statistics of them."""
  batches = pipeline.build(dataclasses.replace(config, prefetch=0))
  batch = next(batches)
  first, count, start = batches.statistics(), 1, time.perf_counter()
  for latest in itertools.islice(batches, sample_batches - 1):
    batch, count = latest, count + 1
  seconds = time.perf_counter() - start
  statistics = batches.statistics()
  total, useful = (
    (statistics[name] - first[name]) / seconds if count > 1 else None for name in ('total_tokens', 'useful_tokens')
  )
  sample = Sample(
    batches=count,
    rows=inspection_rows.fullest(data, batch),
    useful_fraction=statistics['useful_fraction'],
    useful_fraction_per_side=dict(statistics['useful_fraction_per_side']),
    tokens_per_second=total,
    useful_tokens_per_second=useful,
  )
  return sample, statistics
