"""Examples of one task in one virtual shard, as a stream that can be put back to any place.

The place is a `Cursor` of three ints. It also is the address of the example that follows it: going there and taking the
next example makes it again, randomness included, because the random generator of an example follows from its address.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from t5x_lite.data import documents
from t5x_lite.data.vocabularies import tokenizers


class Objective(Protocol):
  """Makes examples of raw text, such as `objectives.span_corruption.SpanCorruption`; `repr` tells its parameters."""

  @property
  def features(self) -> tuple[str, ...]:
    """Names of the arrays that an example consists of."""

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """How many raw tokens make an example of these lengths."""

  def separator(self, tokenizer: tokenizers.Tokenizer) -> int | None:
    """The id that stands after every document; None: nothing does."""

  def __call__(
    self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: tokenizers.Tokenizer
  ) -> dict[str, np.ndarray]:
    """Raw tokens (int32 `[<= raw length]`) -> the features of an example, int32."""


class BatchedObjective(Objective, Protocol):
  """An objective that makes examples of many texts of one length at a time; they are those of one call for each."""

  @property
  def makes_many(self) -> bool:
    """Whether it does; objectives without `draws` and `batch` need not say that they do not."""

  def draws(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """All that is random about an example of `length` tokens, `[draws]`."""

  def batch(self, tokens: np.ndarray, draws: np.ndarray, tokenizer: Any) -> list[dict[str, np.ndarray]]:
    """Texts (int32 `[N, length]`) and their draws `[N, draws]` -> the features of each."""


_NO_TOKENS = np.zeros(0, np.int32)
_MAX_BATCH = 64  # examples made at a time

Generator = Callable[[int], np.random.Generator]  # what it returns is good until the next call


class Cursor(NamedTuple):
  """A place in a stream.

  Attributes:
    document: number of the document in the shard's list.
    offset: where in it: a token (text) or an example (pairs).
    example: how many examples of the stream come before.
  """

  document: int = 0
  offset: int = 0
  example: int = 0


class TaskExample(NamedTuple):
  """An example.

  Attributes:
    features: arrays by name, int32.
    truncated: whether it lost tokens to the feature lengths.
    dropped: how many records or examples were left out since the one before it.
    text: how many tokens of text it is made of, where it could be made of fewer; else 0.
  """

  features: dict[str, np.ndarray]
  truncated: bool = False
  dropped: int = 0
  text: int = 0


class TheEnd(NamedTuple):
  """What comes after the last example.

  Attributes:
    dropped: how many records or examples were left out since the last one; 0 if the end has been seen before.
  """

  dropped: int = 0


class ExampleStream(Protocol):
  """Examples of one task in one virtual shard."""

  cursor: Cursor

  def next(self) -> TaskExample | TheEnd:
    """The example at the cursor, which moves on; behind the last one it moves to the end."""


class TextStream:
  """An unsupervised task: its documents end to end, cut into chunks of one length, or of lengths that are asked for.

  What remains of a document begins the next chunk, and only the last chunk of a finite stream is short. Where the
  objective wants a separator after every document, `documents.tokenise_text` has made it part of them. T5 has none. It
  concatenates 128 documents at a time, and cuts each such group on its own, so that the last chunk of each is short.

  Args:
    reader: of documents that are int32 arrays.
    objective: makes an example of a chunk.
    raw_length: of a chunk, in tokens.
    tokenizer: for the objective.
    generator: the random generator of the n-th example, by n.
    ahead: whether several examples are made at a time where the objective can: not if most are asked for by length.
  """

  def __init__(
    self,
    reader: documents.DocumentReader[np.ndarray],
    objective: Objective,
    raw_length: int,
    tokenizer: tokenizers.Tokenizer,
    generator: Generator,
    *,
    ahead: bool = True,
  ):
    self._reader = reader
    self._objective = objective
    self._raw_length = raw_length
    self._tokenizer = tokenizer
    self._generator = generator
    self._makes_many = ahead and getattr(objective, 'makes_many', False)
    self._ready: collections.deque[tuple[Cursor, Cursor, TaskExample | TheEnd]] = collections.deque()
    self.cursor = Cursor()

  def next(self) -> TaskExample | TheEnd:
    """The next chunk, made an example."""
    if not (self._ready and self._ready[0][0] == self.cursor):
      self._ready = collections.deque(self._make())
    _, self.cursor, example = self._ready.popleft()
    return example

  def next_of(self, length: int) -> TaskExample | TheEnd:
    """The example of the next `length` tokens (at least 1), with the random numbers that `next` would use."""
    chunk = self._chunk(self.cursor, length)
    self.cursor = chunk.after
    if not len(chunk.tokens):
      return TheEnd(chunk.dropped)
    made = self._objective(chunk.tokens, self._generator(chunk.before.example), self._tokenizer)
    return TaskExample(made, dropped=chunk.dropped, text=len(chunk.tokens))

  def _make(self) -> list[tuple[Cursor, Cursor, TaskExample | TheEnd]]:
    """The next example, and where many cost less than one after the other, those whose text is there already.

    Returns:
      For each example the cursor before it and behind it.
    """
    chunk = self._chunk(self.cursor, self._raw_length)
    if not len(chunk.tokens):
      return [(chunk.before, chunk.after, TheEnd(chunk.dropped))]
    chunks, there = [chunk], self._reader.read_up_to
    if self._makes_many:
      while chunk.after.document < there and len(chunks) < _MAX_BATCH:
        chunk = self._chunk(chunk.after, self._raw_length)
        if not len(chunk.tokens):
          break
        chunks.append(chunk)
    return [
      (chunk.before, chunk.after, TaskExample(features, dropped=chunk.dropped, text=len(chunk.tokens)))
      for chunk, features in zip(chunks, self._examples(chunks), strict=True)
    ]

  def _examples(self, chunks: Sequence[_Chunk]) -> list[dict[str, np.ndarray]]:
    """The features of the examples that chunks become; all but the last are whole."""
    made: list[dict[str, np.ndarray]] = []
    whole = [chunk for chunk in chunks if len(chunk.tokens) == self._raw_length]
    if len(whole) > 1:
      objective = cast(BatchedObjective, self._objective)
      draws = [objective.draws(self._raw_length, self._generator(chunk.before.example)) for chunk in whole]
      made = objective.batch(np.stack([chunk.tokens for chunk in whole]), np.stack(draws), self._tokenizer)
    rest = chunks[len(made) :]
    return made + [self._objective(own.tokens, self._generator(own.before.example), self._tokenizer) for own in rest]

  def _chunk(self, cursor: Cursor, length: int) -> _Chunk:
    """The text from a place on, `length` tokens; fewer at the end, and none behind it."""
    document, offset, example = cursor
    pieces: list[np.ndarray] = []
    missing, dropped = length, 0
    while missing:
      document, tokens, left_out = self._reader.next_filled(document)
      dropped += left_out
      if tokens is None:
        break
      piece = tokens[offset : offset + missing]
      pieces.append(piece)
      missing -= len(piece)
      offset += len(piece)
      if offset == len(tokens):
        document, offset = document + 1, 0
    raw = pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, _NO_TOKENS])
    return _Chunk(raw, cursor, Cursor(document, offset, example + bool(pieces)), dropped)


class _Chunk(NamedTuple):
  """Raw tokens of an example, the places before and behind it, and how many documents were left out."""

  tokens: np.ndarray
  before: Cursor
  after: Cursor
  dropped: int


class DocumentStream:
  """An unsupervised task whose documents are never joined: a long one makes several chunks, or one that is cut short.

  Args:
    reader: of documents that are int32 arrays.
    objective: makes an example of a chunk.
    raw_length: of a chunk at most, in tokens.
    tokenizer: for the objective.
    generator: the random generator of the n-th example, by n.
    stride: how many tokens of a chunk are repeated in the next of the same document; None: only the first is used.
  """

  def __init__(
    self,
    reader: documents.DocumentReader[np.ndarray],
    objective: Objective,
    raw_length: int,
    tokenizer: tokenizers.Tokenizer,
    generator: Generator,
    stride: int | None,
  ):
    self._reader = reader
    self._objective = objective
    self._raw_length = raw_length
    self._tokenizer = tokenizer
    self._generator = generator
    self._stride = stride
    self.cursor = Cursor()

  def next(self) -> TaskExample | TheEnd:
    """The next chunk, made an example."""
    document, offset, example = self.cursor
    document, tokens, dropped = self._reader.next_filled(document)
    if tokens is None:
      self.cursor = Cursor(document, 0, example)
      return TheEnd(dropped)
    stop = offset + self._raw_length
    raw = tokens[offset:stop]
    if stop >= len(tokens) or self._stride is None:
      self.cursor = Cursor(document + 1, 0, example + 1)
    else:
      self.cursor = Cursor(document, stop - self._stride, example + 1)
    truncated = self._stride is None and stop < len(tokens)
    made = self._objective(raw, self._generator(example), self._tokenizer)
    return TaskExample(made, truncated=truncated, dropped=0 if offset else dropped)


class PairStream:
  """A supervised task: examples as they are.

  Args:
    reader: of documents that are lists of examples.
  """

  def __init__(self, reader: documents.DocumentReader[documents.Examples[documents.Pair]]):
    self._reader = reader
    self.cursor = Cursor()

  def next(self) -> TaskExample | TheEnd:
    """The next pair."""
    document, offset, example = self.cursor
    document, pairs, dropped = self._reader.next_filled(document)
    if pairs is None:
      self.cursor = Cursor(document, 0, example)
      return TheEnd(dropped)
    inputs, targets, truncated = pairs[offset]
    is_last = offset + 1 == len(pairs)
    self.cursor = Cursor(document + is_last, 0 if is_last else offset + 1, example + 1)
    return TaskExample({'inputs': inputs, 'targets': targets}, truncated, dropped=0 if offset else dropped)
