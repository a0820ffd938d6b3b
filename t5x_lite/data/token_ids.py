"""From the records of a task to token ids: made by the tokenizer, or there already where the task is tokenised.

Also how ids are kept, one record of a source a record: the number of arrays and their lengths (little-endian uint32),
then the ids of all of them (little-endian uint16, or uint32 for a vocabulary that is too large), without EOS. The
arrays are a text, the sentences of a text, or inputs and targets by turns.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import sentences
from t5x_lite.data import task as tasks
from t5x_lite.data.vocabularies import tokenizers

T = TypeVar('T')
OfRecords = Callable[[Sequence[tasks.Record]], list[T]]

_COUNT = struct.Struct('<I')
_EMPTY = np.zeros(0, np.int32)


def of_text(task: tasks.Task, tokenizer: tokenizers.Tokenizer) -> OfRecords[np.ndarray]:
  """A function from records of an unsupervised task to their tokens, int32 arrays without EOS, one per record."""
  if task.ids is not None:
    return _there(tasks.TEXT_IDS)

  def ids(records: Sequence[tasks.Record]) -> list[np.ndarray]:
    texts = [[example['text'] for example in task.examples(record)] for record in records]
    encoded = iter(tokenizer.encode_arrays([text for of_record in texts for text in of_record]))
    arrays = [[next(encoded) for _ in of_record] for of_record in texts]
    return [own[0] if len(own) == 1 else np.concatenate([*own, _EMPTY]) for own in arrays]

  return ids


def of_sentences(task: tasks.Task, tokenizer: tokenizers.Tokenizer) -> OfRecords[list[np.ndarray]]:
  """A function from records of an unsupervised task to their sentences, lists of int32 arrays, none of them empty."""
  if task.ids is not None:
    return _there(tasks.SENTENCE_IDS)

  def ids(records: Sequence[tasks.Record]) -> list[list[np.ndarray]]:
    split = [
      [sentence for example in task.examples(record) for sentence in sentences.split(example['text'])]
      for record in records
    ]
    encoded = iter(tokenizer.encode_arrays([sentence for of_record in split for sentence in of_record]))
    arrays = [[next(encoded) for _ in of_record] for of_record in split]
    return [[array for array in of_record if len(array)] for of_record in arrays]

  return ids


def of_pairs(task: tasks.Task, tokenizer: tokenizers.Tokenizer) -> OfRecords[list[tuple[Sequence[int], Sequence[int]]]]:
  """A function from records of a supervised task to `(inputs, targets)` of each example, whole and without EOS."""
  if task.ids is not None:
    return _there(tasks.PAIR_IDS)

  def ids(records: Sequence[tasks.Record]) -> list[list[tuple[Sequence[int], Sequence[int]]]]:
    examples = [list(task.examples(record)) for record in records]
    flat = [example[name] for of_record in examples for example in of_record for name in tasks.SUPERVISED_FEATURES]
    encoded = iter(tokenizer.encode_batch(flat))
    return [[(next(encoded), next(encoded)) for _ in of_record] for of_record in examples]

  return ids


def _there(kind: str) -> OfRecords[Any]:
  """Ids that the records hold."""
  return lambda records: [record[kind] for record in records]


def kind_for(task: tasks.Task, objective: Any) -> str:
  """Which kind of ids is read of a task under an objective: one of `task.ID_KINDS`."""
  if task.supervised:
    return tasks.PAIR_IDS
  return tasks.SENTENCE_IDS if hasattr(objective, 'pair') else tasks.TEXT_IDS


def check(task: tasks.Task, tokenizer: tokenizers.Tokenizer | None, objective: Any) -> None:
  """Raises UsageError if a task is tokenised by another tokenizer, or for objectives that read something else."""
  if task.ids is None:
    return
  kind, where = kind_for(task, objective), f'task {task.name!r}, tokenised in {task.ids.directory}'
  if task.ids.kind != kind:
    raise errors.UsageError(f'{where}: holds {task.ids.kind}, but {type(objective).__name__} reads {kind}')
  if tokenizer is not None and tokenizer.fingerprint != task.ids.tokenizer:
    raise errors.UsageError(
      f'{where}: its ids are of the vocabulary {task.ids.tokenizer[:16]}, got {tokenizer.fingerprint[:16]}: expected '
      'the vocabulary that it was tokenised with'
    )


def dtype_for(vocab_size: int) -> str:
  """NumPy's name of the type that ids are kept in."""
  return '<u2' if vocab_size <= 2**16 else '<u4'


def pack(arrays: Sequence[Sequence[int] | np.ndarray], dtype: str) -> bytes:
  """The bytes of a record that holds these ids."""
  lengths = np.array([len(arrays), *map(len, arrays)], '<u4')
  ids = [np.asarray(array, np.int64) for array in arrays]
  largest = np.iinfo(dtype).max
  assert all(not len(own) or (own.min() >= 0 and own.max() <= largest) for own in ids), 'ids beyond the vocabulary'
  return b''.join((lengths.tobytes(), *(own.astype(dtype).tobytes() for own in ids)))


def unpack_joined(record: bytes, dtype: str) -> np.ndarray:
  """The ids of a record, those of all arrays end to end: int32."""
  (count,) = _COUNT.unpack_from(record)
  return np.frombuffer(record, dtype, offset=4 + 4 * count).astype(np.int32)


def unpack(record: bytes, dtype: str) -> list[np.ndarray]:
  """The arrays of a record, int32."""
  (count,) = _COUNT.unpack_from(record)
  ends = np.cumsum(np.frombuffer(record, '<u4', count, 4), dtype=np.int64).tolist()
  ids = unpack_joined(record, dtype)
  return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def as_record(record: bytes, kind: str, dtype: str) -> dict[str, Any]:
  """What a source makes of the bytes of a record: `{kind: ids}`, as the functions of this module return them."""
  if kind == tasks.TEXT_IDS:
    return {kind: unpack_joined(record, dtype)}
  arrays = unpack(record, dtype)
  return {kind: arrays if kind == tasks.SENTENCE_IDS else list(zip(arrays[::2], arrays[1::2], strict=True))}


def arrays_of(ids: Any, kind: str) -> list[Sequence[int] | np.ndarray]:
  """The arrays to keep of what the functions of this module return for one record."""
  if kind == tasks.TEXT_IDS:
    return [ids]
  return list(ids) if kind == tasks.SENTENCE_IDS else [side for pair in ids for side in pair]
