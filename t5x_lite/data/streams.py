"""Examples of one task in one virtual shard, as a stream that can be put back to any place.

The place is a `Cursor` of three ints. It also is the address of the example that follows it: going there and taking the
next example makes it again, randomness included, because the random generator of an example follows from its address.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from t5x_lite.data import documents, features, tokenizers


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
  """The features of an example, int32 by name, and whether any lost tokens to the feature lengths."""

  features: dict[str, np.ndarray]
  truncated: bool = False


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
    generator: Callable[[int], np.random.Generator],
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
    missing = self._raw_length
    while missing:
      filled = self._reader.next_filled(document)
      if filled is None:
        break
      document, tokens = filled
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
    return TaskExample(self._objective(raw, self._generator(example), self._tokenizer))


class PairStream:
  """A supervised task: inputs and targets as they are, trimmed to the feature lengths with EOS kept.

  Args:
    reader: of documents that are lists of (inputs ids, targets ids).
    feature_lengths: `{'inputs': ..., 'targets': ...}` in tokens.
    eos_id: what is appended.
  """

  def __init__(
    self,
    reader: documents.DocumentReader[list[documents.TokenPair]],
    feature_lengths: Mapping[str, int],
    eos_id: int,
  ):
    self._reader = reader
    self._lengths = feature_lengths
    self._eos_id = eos_id
    self.cursor = Cursor()

  def next(self) -> TaskExample | None:
    """The next pair."""
    document, offset, example = self.cursor
    filled = self._reader.next_filled(document)
    if filled is None:
      return None
    document, pairs = filled
    input_ids, target_ids = pairs[offset]
    inputs, cut_inputs = features.append_eos_after_trim(input_ids, self._lengths['inputs'], self._eos_id)
    targets, cut_targets = features.append_eos_after_trim(target_ids, self._lengths['targets'], self._eos_id)
    is_last = offset + 1 == len(pairs)
    self.cursor = Cursor(document + is_last, 0 if is_last else offset + 1, example + 1)
    return TaskExample({'inputs': inputs, 'targets': targets}, cut_inputs or cut_targets)
