"""Pairs of texts for BERT and ALBERT: some tokens are hidden, and the model also tells how the two belong together.

    inputs       [CLS] Thank you [MASK] inviting me [SEP] to your banana last week [SEP]
    targets      [CLS] Thank you for    inviting me [SEP] to your party  last week [SEP]
    predicted    0     0     0   1      0        0  0     0  0    1      0    0    0
    token_types  0     0     0   0      0        0  0     1  1    1      1    1    1
    label        0

Next sentence: label 1 where the second text is from another document. Sentence order: label 1 where the two changed
places.

Sources: Devlin et al. 2019 (BERT), section 3.1 and appendix A.2; Lan et al. 2020 (ALBERT), section 3.1; the arithmetic
is that of `create_instances_from_document` in their published `create_pretraining_data.py`. There a target length is
drawn for each document; here for each pair, since a pair is all that is looked at.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives.masked_lm import MaskedLM
from t5x_lite.objectives.protocols import Masks

Sentences = Sequence[np.ndarray]
OtherDocument = Callable[[np.random.Generator], Sentences]

_ADDED = 3  # [CLS] and two [SEP]
_HALF = 0.5


@dataclasses.dataclass(frozen=True)
class SentencePairs(abc.ABC):
  """Fills an example with sentences, of which it makes two texts; the base of the two objectives.

  Attributes:
    masking: hides tokens of the pair, never special ones.
    short_seq_prob: share of the examples that are not to be filled: their length is anything from 2 tokens on.
    reads: 'sentences': examples are made by `pair`.
    features: what an example consists of.
  """

  masking: MaskedLM = dataclasses.field(default_factory=MaskedLM)
  short_seq_prob: float = 0.1
  reads: ClassVar[str] = 'sentences'
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets', 'predicted', 'token_types', 'label')

  def __post_init__(self):
    if not 0.0 <= self.short_seq_prob <= 1.0:
      raise errors.UsageError(f'sentence pairs: got short_seq_prob {self.short_seq_prob!r}, expected 0 <= p <= 1')

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The raw tokens of a full row, of both texts: `[CLS]` and two `[SEP]` are added."""
    length = feature_lengths['inputs']
    if length < _ADDED + 2:
      raise errors.UsageError(f'sentence pairs: got an inputs length of {length}, expected at least {_ADDED + 2}')
    return length - _ADDED

  def most_predicted(self, length: int) -> int:
    """The largest number of predictions of an example of exactly `length` tokens, special ones included."""
    return self.masking.most_predicted(length)

  def separator(self, tokenizer: Masks) -> int | None:
    """None: documents are told apart by their sentences."""
    return None

  def pair(
    self, sentences: Sentences, other: OtherDocument, rng: np.random.Generator, tokenizer: Masks, raw_length: int
  ) -> tuple[dict[str, np.ndarray], int, bool]:
    """Makes an example of the next sentences of a document.

    Args:
      sentences: of one document, from the first unused one on; at least one. Each is int32 `[length]`.
      other: gives the sentences, at least one, of a random other document.
      rng: decides all that is random.
      tokenizer: gives the special ids and the number of ids.
      raw_length: the largest number of tokens of both texts.

    Returns:
      The example, how many sentences are used up, and whether the pair was too long: then the longer text has lost
      tokens at either end, at random. `inputs`, `targets`, `predicted` and `token_types` are int32
      `[<= raw_length + 3]`, `label` is int32 `[1]`.
    """
    wanted = raw_length
    if rng.random() < self.short_seq_prob:
      wanted = int(rng.integers(2, raw_length + 1))
    chunk = take_sentences(sentences, wanted)
    first_end = int(rng.integers(1, len(chunk))) if len(chunk) > 1 else 1
    first = np.concatenate(chunk[:first_end])
    first, second, label, used = self._paired(first, chunk[first_end:], wanted - len(first), other, rng)
    too_long = len(first) + len(second) > raw_length
    first, second = truncate_pair(first, second, raw_length, rng)
    targets = np.empty(len(first) + len(second) + _ADDED, np.int32)
    middle = len(first) + 1
    targets[0], targets[middle], targets[-1] = tokenizer.cls_id, tokenizer.sep_id, tokenizer.sep_id
    targets[1:middle], targets[middle + 1 : -1] = first, second
    example = self.masking.masked(targets, rng, tokenizer)
    example['token_types'] = (np.arange(len(targets)) > middle).astype(np.int32)
    example['label'] = np.array([label], np.int32)
    return example, first_end + used, too_long

  @abc.abstractmethod
  def _paired(
    self, first: np.ndarray, rest: Sentences, missing: int, other: OtherDocument, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray, int, int]:
    """The two texts, the label, and how many sentences of `rest`, which follow the first text, are used up."""


@dataclasses.dataclass(frozen=True)
class NextSentence(SentencePairs):
  """BERT's next sentence prediction, with masked language modelling.

  Half of the second texts, and all that would be empty, are from another document; then the sentences that would have
  been the second text begin the next example.
  """

  def _paired(
    self, first: np.ndarray, rest: Sentences, missing: int, other: OtherDocument, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray, int, int]:
    if len(rest) and rng.random() >= _HALF:
      return first, np.concatenate(rest), 0, len(rest)
    return first, random_text(other, missing, rng), 1, 0


@dataclasses.dataclass(frozen=True)
class SentenceOrder(SentencePairs):
  """ALBERT's sentence order prediction, with masked language modelling.

  Half of the pairs change places. As in the published code, a single sentence, which cannot be a pair, gets a second
  text from another document, and label 1.
  """

  def _paired(
    self, first: np.ndarray, rest: Sentences, missing: int, other: OtherDocument, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray, int, int]:
    if not len(rest):
      return first, random_text(other, missing, rng), 1, 0
    second = np.concatenate(rest)
    return (second, first, 1, len(rest)) if rng.random() < _HALF else (first, second, 0, len(rest))


def take_sentences(sentences: Sentences, length: int) -> Sentences:
  """The first sentences that together have `length` tokens or more, or all there are; at least one."""
  total = 0
  for count, sentence in enumerate(sentences, 1):
    total += len(sentence)
    if total >= length:
      return sentences[:count]
  return sentences


def random_text(other: OtherDocument, length: int, rng: np.random.Generator) -> np.ndarray:
  """Sentences of another document, from a random one on, until there are `length` tokens or no more; at least one."""
  document = other(rng)
  return np.concatenate(take_sentences(document[int(rng.integers(len(document))) :], length))


def truncate_pair(
  first: np.ndarray, second: np.ndarray, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Both texts, `length` tokens in all: the longer one loses first, then both in turn, the second before the first.

  Every token that is lost is lost in front or at the back, either equally likely.
  """
  surplus = len(first) + len(second) - length
  if surplus <= 0:
    return first, second
  levelling = min(surplus, abs(len(first) - len(second)))
  lost = [(surplus - levelling) // 2, (surplus - levelling + 1) // 2]
  lost[int(len(first) <= len(second))] += levelling
  cut = []
  for text, count in ((first, lost[0]), (second, lost[1])):
    front = int(rng.binomial(count, _HALF))
    cut.append(text[front : len(text) - (count - front)])
  return cut[0], cut[1]
