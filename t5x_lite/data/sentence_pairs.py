"""Pairs of texts from the documents of an unsupervised task: what BERT and ALBERT are pretrained on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import documents, streams
from t5x_lite.data.vocabularies import tokenizers

Sentences = Sequence[np.ndarray]

_NEAR = 64  # documents: in a shuffled order those that follow are as random as any, and they are read soon


class PairObjective(Protocol):
  """Makes an example of the sentences of one document and of another, such as `objectives.sentence_pairs`."""

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The length of an example, at most."""

  @property
  def features(self) -> tuple[str, ...]:
    """Names of the arrays that an example consists of."""

  def pair(
    self,
    sentences: Sentences,
    other: Callable[[np.random.Generator], Sentences],
    rng: np.random.Generator,
    tokenizer: tokenizers.Tokenizer,
    length: int,
  ) -> tuple[dict[str, np.ndarray], int, bool]:
    """An example of at most `length` tokens, how many of the sentences it has used up, and whether it lost tokens."""


class SentencePairStream:
  """Reads a document sentence by sentence, and another one wherever the objective asks for it.

  Args:
    name: of the task, for errors.
    reader: of documents that are lists of sentences.
    others: another reader, of the whole split by index, so that a random document does not displace those that were
      read ahead.
    num_documents: in the split.
    index_of: from the number of a document to its index in the split; None beyond the end.
    objective: makes an example.
    length: of an example at most, in tokens.
    tokenizer: for the objective.
    generator: the random generator of the n-th example, by n.
  """

  def __init__(
    self,
    name: str,
    reader: documents.DocumentReader[list[np.ndarray]],
    others: documents.DocumentReader[list[np.ndarray]],
    num_documents: int,
    index_of: Callable[[int], int | None],
    objective: PairObjective,
    length: int,
    tokenizer: tokenizers.Tokenizer,
    generator: streams.Generator,
  ):
    self._name = name
    self._reader = reader
    self._others = others
    self._num_documents = num_documents
    self._index_of = index_of
    self._objective = objective
    self._length = length
    self._tokenizer = tokenizer
    self._generator = generator
    self.cursor = streams.Cursor()

  def next(self) -> streams.TaskExample | streams.TheEnd:
    """The example that begins with the sentence at the cursor."""
    document, offset, example = self.cursor
    document, sentences, dropped = self._reader.next_filled(document)
    if sentences is None:
      self.cursor = streams.Cursor(document, 0, example)
      return streams.TheEnd(dropped)

    def other(rng: np.random.Generator) -> Sentences:
      return self._random_other(document, rng)

    made, used, truncated = self._objective.pair(
      sentences[offset:], other, self._generator(example), self._tokenizer, self._length
    )
    assert used > 0, 'an objective that uses no sentence would be given the same ones for ever'
    is_last = offset + used >= len(sentences)
    self.cursor = streams.Cursor(document + is_last, 0 if is_last else offset + used, example + 1)
    return streams.TaskExample(made, truncated, dropped=0 if offset else dropped)

  def _random_other(self, document: int, rng: np.random.Generator) -> Sentences:
    """The sentences of another document: one soon after `document` in the shard's order, or else any of the split.

    Empty documents are walked past from a random place on, so that it is only in vain if all others are empty.
    """
    own = self._index_of(document)
    first = document + 1 + int(rng.integers(_NEAR))
    near = itertools.takewhile(lambda index: index is not None, map(self._index_of, range(first, first + _NEAR)))
    start = int(rng.integers(self._num_documents))
    anywhere = itertools.chain(range(start, self._num_documents), range(start))  # where a finite pass nears its end
    for index in itertools.chain(near, anywhere):
      sentences = self._others.get(index) if index is not None and index != own else None
      if sentences:
        return sentences
    raise errors.UsageError(
      f'task {self._name!r}: all but one of {self._num_documents} documents hold no text: expected another one, for '
      'pairs of sentences'
    )
