"""Examples of one task in one virtual shard, as a stream that can be put back to any place.

The place is a `Cursor` of three ints. It also is the address of the example that follows it: going there and taking the
next example makes it again, randomness included, because the random generator of an example follows from its address.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

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


@dataclasses.dataclass(frozen=True)
class TaskExample:
  """An example.

  Attributes:
    features: arrays by name, int32.
    truncated: whether it lost tokens to the feature lengths.
    dropped: how many records or examples were left out since the one before it.
  """

  features: dict[str, np.ndarray]
  truncated: bool = False
  dropped: int = 0


class ExampleStream(Protocol):
  """Examples of one task in one virtual shard."""

  cursor: Cursor

  def next(self) -> TaskExample | None:
    """The example at the cursor, which moves on; None at the end."""


class TextStream:
  """An unsupervised task: its documents end to end, cut into chunks of the objective's raw length.

  What remains of a document begins the next chunk, and only the last chunk of a finite stream is short. Where the
  objective wants a separator after every document, `documents.tokenise_text` has made it part of them. T5 has none. It
  concatenates 128 documents at a time, and cuts each such group on its own, so that the last chunk of each is short.

  Args:
    reader: of documents that are int32 arrays.
    objective: makes an example of a chunk.
    raw_length: of a chunk, in tokens.
    tokenizer: for the objective.
    generator: the random generator of the n-th example, by n.
  """

  def __init__(
    self,
    reader: documents.DocumentReader[np.ndarray],
    objective: Objective,
    raw_length: int,
    tokenizer: tokenizers.Tokenizer,
    generator: Generator,
  ):
    self._reader = reader
    self._objective = objective
    self._raw_length = raw_length
    self._tokenizer = tokenizer
    self._generator = generator
    self.cursor = Cursor()

  def next(self) -> TaskExample | None:
    """The next chunk, made an example."""
    document, offset, example = self.cursor
    pieces: list[np.ndarray] = []
    missing, dropped = self._raw_length, 0
    while missing:
      filled = self._reader.next_filled(document)
      if filled is None:
        break
      document, tokens, left_out = filled
      dropped += left_out
      piece = tokens[offset : offset + missing]
      pieces.append(piece)
      missing -= len(piece)
      offset += len(piece)
      if offset == len(tokens):
        document, offset = document + 1, 0
    if not pieces:
      return None
    self.cursor = Cursor(document, offset, example + 1)
    raw = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return TaskExample(self._objective(raw, self._generator(example), self._tokenizer), dropped=dropped)


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

  def next(self) -> TaskExample | None:
    """The next chunk, made an example."""
    document, offset, example = self.cursor
    filled = self._reader.next_filled(document)
    if filled is None:
      return None
    document, tokens, dropped = filled
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

  def next(self) -> TaskExample | None:
    """The next pair."""
    document, offset, example = self.cursor
    filled = self._reader.next_filled(document)
    if filled is None:
      return None
    document, pairs, dropped = filled
    inputs, targets, truncated = pairs[offset]
    is_last = offset + 1 == len(pairs)
    self.cursor = Cursor(document + is_last, 0 if is_last else offset + 1, example + 1)
    return TaskExample({'inputs': inputs, 'targets': targets}, truncated, dropped=0 if offset else dropped)
