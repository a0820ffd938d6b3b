"""Documents of one task as one virtual shard reads them: a fixed endless (or, in evaluation, finite) tokenised list.

Documents are numbered by their place in the shard's list, so that a number is all there is to remember of a position.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import features, randomness, sources, token_ids
from t5x_lite.data import task as tasks
from t5x_lite.data.vocabularies import tokenizers

D = TypeVar('D', bound=Sized)  # a tokenised document
E = TypeVar('E')
Tokenise = Callable[[Sequence[tasks.Record]], list[D]]
Observer = Callable[[int, Sequence[int]], None]

_MAX_READ_AHEAD = 64  # documents
_ENOUGH_READ_AHEAD = 2**15  # tokens; long documents are not read ahead by the dozen
_MAX_TABLE = 2**16
_MAX_EMPTY = 2**14  # documents in a row; less is no sign of an empty split where a shard of a small one goes round


@dataclasses.dataclass(frozen=True)
class Order:
  """The order in which the documents of a split are read, before it is dealt out to the virtual shards.

  Attributes:
    num_documents: in the split, at least 1.
    seed: None reads them as they are stored; ints (of the run, and of the task in it) shuffle every epoch anew.
    repeat: whether another epoch follows the last.
  """

  num_documents: int
  seed: tuple[int, int] | None
  repeat: bool

  def dealt(self, shard: int, num_shards: int) -> Callable[[int], int | None]:
    """A function from the number of a document in `shard`'s list to its index in the split; None beyond the end.

    Shard s has the places s, s + V, s + 2V, ... of the order, across epochs.
    """
    index_at = self._index_at()

    def index_of(number: int) -> int | None:
      place = shard + number * num_shards
      return index_at(place) if self.repeat or place < self.num_documents else None

    return index_of

  def stored(self, index: int) -> int | None:
    """The documents as they are stored, in place of what `dealt` returns."""
    return index if index < self.num_documents else None

  def _index_at(self) -> Callable[[int], int]:
    """A function from a place in the order, epoch after epoch, to the index of the document there."""
    count, seed = self.num_documents, self.seed
    if seed is None:
      return lambda place: place % count
    if count <= _MAX_TABLE:
      return lambda place: int(_permutation(count, *seed, place // count)[place % count])
    return _shuffled_by_grain(count, seed)


@functools.lru_cache(maxsize=64)  # the shards of a tiny split may be epochs apart
def _permutation(count: int, seed: int, part: int, epoch: int) -> np.ndarray:
  """A random order of `count` documents, from raw Philox words: no release of NumPy changes it."""
  words = randomness.philox(seed, randomness.ORDER, (epoch, part, 0)).random_raw(count)
  return np.argsort(words, kind='stable').astype(np.uint16)


def _shuffled_by_grain(count: int, seed: tuple[int, int]) -> Callable[[int], int]:
  """The shuffled order of a large split: Grain computes each index by itself, so that there is never a table of them.

  For small splits that is slow (it searches a cycle of 2^16 places), and `import grain` takes a third of a second.
  Grain 0.2 repeats one index and omits another of 4^k + 1 places: hence an even number of places. The one too many that
  this may be sends whoever lands there on to the next.
  """
  import grain

  places = count + count % 2
  seed32 = int(np.random.SeedSequence(seed).generate_state(1)[0])
  shuffled = grain.MapDataset.range(places).shuffle(seed=seed32).repeat()

  def index_at(place: int) -> int:
    epoch, index = divmod(place, count)
    index = int(shuffled[epoch * places + index])
    return index if index < count else int(shuffled[epoch * places + index])

  return index_at


def tokenise_text(
  task: tasks.Task, tokenizer: tokenizers.Tokenizer, separator: int | None = None
) -> Tokenise[np.ndarray]:
  """A function from records of an unsupervised task to their tokens, int32 arrays without EOS, one per record.

  A `separator` is appended to every document that is not empty.
  """
  ids_of = token_ids.of_text(task, tokenizer)
  if separator is None:
    return ids_of
  end = np.array([separator], np.int32)
  return lambda records: [np.concatenate([ids, end]) if len(ids) else ids for ids in ids_of(records)]


def tokenise_sentences(task: tasks.Task, tokenizer: tokenizers.Tokenizer, length: int) -> Tokenise[list[np.ndarray]]:
  """A function from records of an unsupervised task to their sentences, lists of int32 arrays, none of them empty.

  Sentences of more than `length` tokens (at least 2) are cut into pieces of which any two that follow each other have
  just so many, the last one may be shorter: so a text without the ends of sentences fills pairs, and loses nothing.
  """
  ids_of = token_ids.of_sentences(task, tokenizer)

  def halves(sentence: np.ndarray) -> list[np.ndarray]:
    count = -(-2 * len(sentence) // length)
    starts = [piece * length // 2 for piece in range(count + 1)]
    return [sentence[start:stop] for start, stop in itertools.pairwise(starts)]

  def tokenise(records: Sequence[tasks.Record]) -> list[list[np.ndarray]]:
    return [
      [piece for sentence in document for piece in ([sentence] if len(sentence) <= length else halves(sentence))]
      for document in ids_of(records)
    ]

  return tokenise


class Pair(NamedTuple):
  """A supervised example.

  Attributes:
    inputs: ids, EOS included, no longer than the features have room for.
    targets: the same.
    truncated: whether tokens were lost.
  """

  inputs: np.ndarray
  targets: np.ndarray
  truncated: bool


class Examples(list[E]):
  """The examples of a record.

  Attributes:
    dropped: how many more there would be, had they not been too long.
  """

  dropped: int = 0


def tokenise_pairs(
  task: tasks.Task, tokenizer: tokenizers.Tokenizer, feature_lengths: Mapping[str, int]
) -> Tokenise[Examples[Pair]]:
  """A function from records of a supervised task to examples that fit the feature lengths, as the task wants it."""
  eos_id, (inputs_length, targets_length) = (
    tokenizer.eos_id,
    (feature_lengths[name] for name in tasks.SUPERVISED_FEATURES),
  )

  ids_of = token_ids.of_pairs(task, tokenizer)

  def fitted(inputs: Sequence[int], targets: Sequence[int]) -> list[Pair]:
    if task.long_examples == tasks.DROP and (len(inputs) >= inputs_length or len(targets) >= targets_length):
      return []
    cut_targets, lost = features.append_eos_after_trim(targets, targets_length, eos_id)
    windows = [inputs]
    if task.long_examples == tasks.SPLIT:
      windows = [inputs[start:stop] for start, stop in spans(len(inputs), inputs_length - 1, task.stride)]
    cut = (features.append_eos_after_trim(window, inputs_length, eos_id) for window in windows)
    return [Pair(own, cut_targets, lost or lost_inputs) for own, lost_inputs in cut]

  def tokenise(records: Sequence[tasks.Record]) -> list[Examples[Pair]]:
    documents = []
    for of_record in ids_of(records):
      found = [fitted(inputs, targets) for inputs, targets in of_record]
      document = Examples(pair for pairs in found for pair in pairs)
      document.dropped = sum(not pairs for pairs in found)
      documents.append(document)
    return documents

  return tokenise


def spans(length: int, size: int, stride: int) -> list[tuple[int, int]]:
  """Where to cut `length` tokens into parts of at most `size`, of which each repeats `stride` tokens of the one before.

  One part, if need be an empty one, even of nothing. The last is never part of the one before it.
  """
  assert 0 <= stride < size, (size, stride)
  starts = range(0, max(length - stride, 1), size - stride)
  return [(start, min(start + size, length)) for start in starts]


class Filled(NamedTuple, Generic[D]):
  """Where a search for a document that is not empty has ended.

  Attributes:
    number: of the document; behind the last one, the first that is not there.
    document: None at the end.
    dropped: how many examples were left out on the way.
  """

  number: int
  document: D | None
  dropped: int


class DocumentReader(Generic[D]):
  """Random access to the documents of a shard by number, with read-ahead.

  Reading ahead makes the batches that the tokenizer works on large; it starts small, for the first batch should not
  wait for documents that it does not need. How far it goes has no effect on what is returned.

  Args:
    name: of the task, for errors.
    records: all records of the split.
    index_of: from the number of a document to its index in `records`; None beyond the end.
    tokenise: from records to tokenised documents (anything with a length).
    observe: is told of every read: the number of the first document, and the index in `records` of each.
  """

  def __init__(
    self,
    name: str,
    records: sources.RandomAccess,
    index_of: Callable[[int], int | None],
    tokenise: Tokenise[D],
    observe: Observer | None = None,
  ):
    self._observe = observe
    self._name = name
    self._records = records
    self._index_of = index_of
    self._tokenise = tokenise
    self._first = 0  # number of the first document of the buffer
    self._buffer: list[D] = []
    self._read_ahead = 1

  def get(self, number: int) -> D | None:
    """Document `number`, or None beyond the last. Cheapest in ascending order."""
    if not self._first <= number < self.read_up_to:
      self._read(number)
    at = number - self._first
    return self._buffer[at] if at < len(self._buffer) else None

  @property
  def read_up_to(self) -> int:
    """The number of the first document that was not read ahead."""
    return self._first + len(self._buffer)

  def next_filled(self, number: int) -> Filled[D]:
    """The first document from `number` on that is not empty, or the end.

    What is left out on the way is counted: all examples of the empty documents before it, an empty one without any
    counting as one, and those that it lacks itself.
    """
    dropped = 0
    most = max(len(self._records) + 1, _MAX_EMPTY)
    for skipped in range(most):
      document = self.get(number + skipped)
      if document is None:
        return Filled(number + skipped, None, dropped)
      left_out = getattr(document, 'dropped', 0)
      if len(document) > 0:
        return Filled(number + skipped, document, dropped + left_out)
      dropped += max(left_out, 1)
    raise errors.UsageError(f'task {self._name!r}: {most} documents in a row hold no text after preprocessing')

  def _read(self, number: int) -> None:
    if number != self._first + len(self._buffer):
      self._read_ahead = 1
    elif sum(map(len, self._buffer)) < _ENOUGH_READ_AHEAD:
      self._read_ahead = min(2 * self._read_ahead, _MAX_READ_AHEAD)
    else:
      self._read_ahead = max(self._read_ahead // 2, 1)
    indices = [self._index_of(n) for n in range(number, number + self._read_ahead)]
    within = [index for index in indices if index is not None]
    self._buffer = self._tokenise(self._records.__getitems__(within)) if within else []
    if self._observe is not None:
      self._observe(number, within)
    self._first = number
