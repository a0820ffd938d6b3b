"""Where records come from: any data set that TFDS has prepared (ArrayRecord or TFRecord), and the embedded corpus.

A source gives random access to records, each a dict of `str`. Everything is opened on first use, nothing is ever
downloaded, and TensorFlow is not needed. Other sources: `files`, `huggingface_datasets`, `combined`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

from t5x_lite.core import errors
from t5x_lite.data import embedded, prepared
from t5x_lite.data.tfds_records import ArrayRecordExamples, TfdsSplit, TFRecordExamples

_log = logging.getLogger(__name__)


class RandomAccess(Protocol):
  """The records of one split: what Grain calls a random-access data source.

  One that leaves bad records out has an attribute `skipped`: their numbers, by reason.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """One record: text as `str`, anything else as TFDS gives it."""

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several records with one read."""


class Source(Protocol):
  """Records by split. Raises `UsageError` where the data, or the split, is not there."""

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits."""

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""

  def random_access(self, split: str) -> RandomAccess:
    """The records of `split`."""

  def fingerprint(self, split: str | None = None) -> str:
    """Hex digest that changes with the data (of `split`, or of all splits): a resumed run compares it."""


class _PreparedSource(abc.ABC):
  """What the two sources share: a folder that TFDS reads."""

  @abc.abstractmethod
  def folder(self) -> pathlib.Path:
    """The version folder, which holds `dataset_info.json`."""

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits. Slices of them, such as `train[:99%]`, are splits too."""
    return tuple(_open(self.folder()).info.splits)

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return self._split_info(split).num_examples

  def random_access(self, split: str) -> TfdsSplit:
    """The records of `split`."""
    folder = self.folder()
    shards = self._split_info(split).file_instructions
    for shard in shards:
      if not os.path.isfile(shard.filename):
        raise errors.UsageError(
          f'cannot read split {split!r} of {folder}: {os.path.basename(shard.filename)} is missing'
        )
    examples = TFRecordExamples if prepared.file_format(folder) == prepared.TFRECORD else ArrayRecordExamples
    return TfdsSplit(examples(shards, _open(folder).info.features), shards)

  def _split_info(self, split: str) -> Any:
    """TFDS's `SplitInfo` of `split`."""
    folder = self.folder()
    known = _open(folder).info.splits
    if split.partition('[')[0] not in known:
      raise errors.unknown(f'split of {folder}', split, known)
    try:
      return known[split]
    except Exception as error:
      raise errors.UsageError(
        f'bad split {split!r} of {folder}: {prepared.first_line(error)}; expected such as train or train[:99%]'
      ) from error


@dataclasses.dataclass(frozen=True)
class EmbeddedSource(_PreparedSource):
  """The embedded corpus, built on first use.

  Attributes:
    config: `text` (documents to pretrain on) or `docstrings` (for supervised tasks), see `data.embedded`.
  """

  config: str = 'text'

  @property
  def splits(self) -> tuple[str, ...]:
    """`('train', 'validation')`; known without opening anything."""
    return embedded.SPLITS

  def folder(self) -> pathlib.Path:
    """The folder of this config in the cache."""
    return embedded.folder(self.config)

  def fingerprint(self, split: str | None = None) -> str:
    """The fingerprint of the whole corpus, whatever the config and the split."""
    del split
    return embedded.fingerprint()

  def random_access(self, split: str) -> TfdsSplit:
    """The records of `split`."""
    _log.debug('embedded corpus %s/%s: fingerprint %s', self.config, split, self.fingerprint())
    return super().random_access(split)


@dataclasses.dataclass(frozen=True)
class TfdsSource(_PreparedSource):
  """A data set that TFDS has prepared in ArrayRecord files, or else in TFRecord files, whose checksums are checked.

  Attributes:
    name: TFDS's name: `name`, `name/config`, `name:1.0.0` or `name/config:1.0.0`; without a version, the newest on disk
      is read.
    data_dir: the TFDS data dir. None: `$TFDS_DATA_DIR` if set, then `~/tensorflow_datasets`.
  """

  name: str
  data_dir: str | None = None

  def folder(self) -> pathlib.Path:
    """The version folder; `UsageError` says where it was looked for and what is needed."""
    return prepared.locate(self.name, self.data_dir)

  def fingerprint(self, split: str | None = None) -> str:
    """Hex SHA-256 of name, version and sizes of the shards; of the contents TFDS keeps no digest."""
    info = _open(self.folder()).info
    shards = {name: [known.num_bytes, known.shard_lengths] for name, known in info.splits.items()}
    digest = hashlib.sha256(json.dumps([info.full_name, shards, split], sort_keys=True).encode())
    return digest.hexdigest()


def _open(folder: pathlib.Path) -> Any:
  """TFDS's read-only builder for a version folder, opened once."""
  return _opened(folder, prepared.file_format(folder))


@functools.cache
def _opened(folder: pathlib.Path, file_format: str) -> Any:
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format.value != file_format:  # builder_from_directory refuses an alternative format (4.9.10)
      builder.info.set_file_format(file_format, override=True, override_if_initialized=True)
    return builder
  except Exception as error:
    raise errors.UsageError(f'cannot open the data set in {folder}: {prepared.first_line(error)}') from error
