"""Tasks that were tokenised beforehand: training reads token ids, and the tokenizer has nothing to do.

    python -m t5x_lite.prepare tokenise --gin_file=t5_small.gin --directory=/data/c4_ids

    MIXTURE_OR_TASK_NAME = @tokenised()
    tokenised.directory = '/data/c4_ids'

A folder holds the ids of one task in ArrayRecord files, and `tokens.json`, which tells what they were made of. A record
is what a record of the task's source has become, an empty one where nothing was left: so the batches, their order and
the fingerprints are those of the task itself, and a run may change from one to the other. The folder of a mixture holds
a folder for each task, and `mixture.json` with the shares. `token_ids` describes the records.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import task as tasks
from t5x_lite.data import token_ids
from t5x_lite.data.formats import array_records
from t5x_lite.data.mixtures import Mixture, Rates

INFO = 'tokens.json'
MIXTURE_INFO = 'mixture.json'
VERSION = 1


class TokenisedSplit:
  """A `RandomAccess` over token ids.

  Args:
    shards: `(path, number of records)` of the files.
    kind: one of `task.ID_KINDS`; the only key of the records.
    dtype: that ids are kept in.
  """

  def __init__(self, shards: Sequence[tuple[str, int]], kind: str, dtype: str):
    self._records = array_records.ShardedRecords(shards)
    self._kind = kind
    self._dtype = dtype

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Record `index`."""
    return self.__getitems__([index])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Several records with one read of each file."""
    return [token_ids.as_record(record, self._kind, self._dtype) for record in self._records.read(indices)]


@dataclasses.dataclass(frozen=True)
class TokenisedSource:
  """The records of a task's source as token ids; splits are called what that source calls them.

  Attributes:
    directory: the folder with `tokens.json`.
  """

  directory: str

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits."""
    return tuple(self._splits())

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return self._split(split)['records']

  def random_access(self, split: str) -> TokenisedSplit:
    """The records of `split`."""
    info, folder = read_info(self.directory), pathlib.Path(self.directory)
    shards = [(os.fspath(folder / file), count) for file, count in self._split(split)['shards']]
    for path, _ in shards:
      if not os.path.isfile(path):
        raise errors.UsageError(f'cannot read split {split!r} of {folder}: {os.path.basename(path)} is missing')
    return TokenisedSplit(shards, info['kind'], info['dtype'])

  def fingerprint(self, split: str | None = None) -> str:
    """The fingerprint of the source of the text (of one split; of all, those of its splits)."""
    if split is not None:
      return self._split(split)['fingerprint']
    return ' '.join(own['fingerprint'] for own in self._splits().values())

  def _splits(self) -> dict[str, dict[str, Any]]:
    return {own['source_split']: own for own in read_info(self.directory)['splits'].values()}

  def _split(self, split: str) -> dict[str, Any]:
    splits = self._splits()
    if split not in splits:
      raise errors.unknown(f'split of {self.directory}', split, splits)
    return splits[split]


def tokenised(directory: str) -> tasks.Task | Mixture:
  """The task or mixture that `prepare tokenise` has written to `directory`, under its own name.

  It is for training and its losses: metrics and sample predictions want text, and so the task itself.

  Raises:
    UsageError: there is none, or it is not finished.
  """
  folder = pathlib.Path(directory).expanduser().absolute()
  if not (folder / MIXTURE_INFO).is_file():
    return _task(folder)
  info = _read(folder / MIXTURE_INFO)
  members = {name: _task(folder / below) for name, below in info['tasks'].items()}

  def rates(shares: Sequence[tuple[str, float]]) -> Rates:
    # Members stand for themselves: under their names the registry has the tasks that read text.
    return typing.cast(Rates, tuple((members[name], share) for name, share in shares))

  (_, first), *later = info['stages']
  schedule = tuple((step, rates(shares)) for step, shares in later)
  evaluated = typing.cast(tuple[str, ...], tuple(members[name] for name in info.get('evaluated', ())))
  return Mixture(info['name'], rates(first), unit=info['unit'], schedule=schedule, evaluated=evaluated)


def _task(folder: pathlib.Path) -> tasks.Task:
  info = read_info(os.fspath(folder))
  return tasks.Task(
    info['task'],
    TokenisedSource(os.fspath(folder)),
    _AS_NUMBERS[info['kind']],
    supervised=info['kind'] == tasks.PAIR_IDS,
    splits=_Splits({name: own['source_split'] for name, own in info['splits'].items()}),
    long_examples=info['long_examples'],
    stride=info['stride'],
    documents=info['documents'],
    ids=tasks.TokenIds(info['kind'], info['tokenizer'], os.fspath(folder)),
  )


class _Splits(dict[str, str]):
  """Names of splits that a task can be hashed with, as the members of a mixture are."""

  def __hash__(self) -> int:  # type: ignore[override]
    return hash(tuple(self.items()))


def read_info(directory: str) -> dict[str, Any]:
  """What `tokens.json` of a folder says."""
  path = pathlib.Path(directory) / INFO
  if not path.is_file():
    raise errors.UsageError(
      f'no {INFO} in {directory}: expected a folder that `python -m t5x_lite.prepare tokenise` has written to the end'
    )
  return _read(path)


def _read(path: pathlib.Path) -> dict[str, Any]:
  """The JSON at `path`, read once: files of this kind are replaced whole, and then have another time."""
  return _read_once(path, path.stat().st_mtime_ns)


@functools.lru_cache(256)
def _read_once(path: pathlib.Path, changed: int) -> dict[str, Any]:
  try:
    info = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UsageError(f'cannot read {path}: {error}') from error
  if not isinstance(info, dict) or info.get('version') != VERSION:
    raise errors.UsageError(f'{path} is not of version {VERSION}: tokenise the task again')
  return info


def _numbers(ids: Sequence[int]) -> str:
  return ' '.join(map(str, ids))


def _text_as_numbers(record: tasks.Record) -> dict[str, str]:
  return {'text': _numbers(record[tasks.TEXT_IDS])}


def _sentences_as_numbers(record: tasks.Record) -> dict[str, str]:
  return {'text': '\n'.join(map(_numbers, record[tasks.SENTENCE_IDS]))}


def _pairs_as_numbers(record: tasks.Record) -> list[dict[str, str]]:
  return [{'inputs': _numbers(inputs), 'targets': _numbers(targets)} for inputs, targets in record[tasks.PAIR_IDS]]


# What stands for the text of a record to who looks at it: its ids, written out.
_AS_NUMBERS: Mapping[str, Callable[[tasks.Record], Any]] = {
  tasks.TEXT_IDS: _text_as_numbers,
  tasks.SENTENCE_IDS: _sentences_as_numbers,
  tasks.PAIR_IDS: _pairs_as_numbers,
}
