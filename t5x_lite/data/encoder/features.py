"""From examples with labels to what an encoder with a head reads (BERT fine-tuned).

Labels stand at positions, so that packed examples keep theirs: a head is computed at all positions that have a weight.

    classification   label, label_weights        at [CLS]
    regression       label_value, label_weights  at [CLS]
    multiple_choice  label, label_weights,       at the [CLS] of every choice, which is a segment by itself: 1 if it is
                     label_group                 the right one; and which question of its row it belongs to
    span             span_start, span_end        1.0 at one position of every example
    tagging          label, label_weights        at the first piece of every word
    embedding        text_number, text_id,       at the [CLS] of every text, which is a segment by itself; the weight
                     label_weights               at that of the first
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import (
  DECODER,
  ENCODER,
  INPUT_TOKENS,
  LABEL,
  LABEL_GROUP,
  LABEL_VALUE,
  LABEL_WEIGHTS,
  POSITIONS,
  SEGMENT_IDS,
  SPAN_END,
  SPAN_START,
  TEXT_ID,
  TEXT_NUMBER,
  TOKEN_TYPE_IDS,
  key,
)
from t5x_lite.data import task
from t5x_lite.data.features import ModelExample, Names
from t5x_lite.data.vocabularies import tokenizers

_READ = (INPUT_TOKENS, SEGMENT_IDS, POSITIONS, TOKEN_TYPE_IDS)
_LABELLED = (LABEL, LABEL_WEIGHTS)
# What an example of each head has besides `inputs` and `token_types`, and the batch keys of what it learns from.
_HEADS: dict[str, tuple[Names, Names]] = {
  'classification': (('pooled', 'label'), _LABELLED),
  'regression': (('pooled', 'label'), (LABEL_VALUE, LABEL_WEIGHTS)),
  'multiple_choice': (('pooled', 'segments', 'label'), (*_LABELLED, LABEL_GROUP)),
  'span': (('pooled', 'span', 'offsets'), (SPAN_START, SPAN_END)),
  'tagging': (('tags', 'words'), _LABELLED),
  'embedding': (('pooled', 'segments', 'ids', 'label'), (TEXT_NUMBER, TEXT_ID, LABEL_WEIGHTS)),
}


@dataclasses.dataclass(frozen=True)
class EncoderTaskFeatures:
  """BERT with a head: what the encoder reads, and labels at some of its positions.

  The examples are those of `encoder_examples`, of tasks whose `encoder` has this head.

  Attributes:
    head: what answers, one of `data.task.HEADS`.
    max_query_length: tokens of a question that is asked of a context, at most (head 'span').
    side: that reads them: 'encoder', of BERT, or 'decoder', as XLNet's keys are called.
  """

  head: str
  max_query_length: int = 64
  side: str = ENCODER
  lengths: ClassVar[tuple[Names, ...]] = (('inputs',),)
  objectives: ClassVar[Names] = ()

  def __post_init__(self):
    if self.head not in task.HEADS:
      raise errors.unknown('head', self.head, task.HEADS)
    if self.side not in (ENCODER, DECODER):
      raise errors.unknown('side', self.side, (ENCODER, DECODER))
    if self.max_query_length < 1:
      raise errors.UsageError(f'got max_query_length {self.max_query_length}, expected at least 1')

  @property
  def examples(self) -> tuple[Names, ...]:
    """What the examples of this head consist of."""
    return (('inputs', 'token_types', *_HEADS[self.head][0]),)

  def for_tokenizer(self, tokenizer: tokenizers.Tokenizer) -> EncoderTaskFeatures:
    """Nothing is left open."""
    return self

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Inputs are the length of the one side."""
    return {self.side: task_feature_lengths['inputs']}

  def keys(self, side: str) -> Names:
    """What the encoder reads, and what its head learns from; no tokens are predicted."""
    return tuple(key(side, name) for name in (*_READ, *_HEADS[self.head][1]))

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """An example of `encoder_examples` of this head, `[n]` -> the encoder's keys, `[n]`.

    Choices have segments of their own, 1, 2, ..., and positions that begin anew.
    """
    tokens = example['inputs']
    segments = example['segments'] if 'segments' in example else np.ones(len(tokens), np.int32)
    labels = self._labels(example, len(tokens))
    return {
      key(self.side, INPUT_TOKENS): tokens,
      key(self.side, SEGMENT_IDS): segments,
      key(self.side, POSITIONS): _places(segments),
      key(self.side, TOKEN_TYPE_IDS): example['token_types'],
      **{key(self.side, name): values for name, values in zip(_HEADS[self.head][1], labels, strict=True)},
    }

  def _labels(self, example: Mapping[str, np.ndarray], length: int) -> tuple[np.ndarray, ...]:
    """The arrays that the head learns from, `[length]`."""
    if self.head == 'tagging':
      return np.maximum(example['tags'], 0), (example['tags'] >= 0).astype(np.float32)
    if self.head == 'span':
      start, end = np.zeros((2, length), np.float32)
      start[example['span'][0]] = end[example['span'][1]] = 1.0
      return start, end
    pooled, label = example['pooled'], example['label'][0]
    if self.head == 'embedding':
      return _numbered(example, label == 1)
    values = np.zeros(length, np.float32 if self.head == 'regression' else np.int32)
    weights = np.zeros(length, np.float32)
    known = not (np.isnan(label) if self.head == 'regression' else label < 0)
    if known:
      values[pooled] = np.arange(len(pooled)) == label if self.head == 'multiple_choice' else label
      weights[pooled] = 1.0
    if self.head != 'multiple_choice':
      return values, weights
    group = np.zeros(length, np.int32)
    group[pooled] = 1
    return values, weights, group


def _numbered(example: Mapping[str, np.ndarray], alike: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Numbers and ids of texts int32, and the weight of the first, float32, all `[n]`."""
  pooled, length = example['pooled'], len(example['inputs'])
  numbers, ids, weights = np.zeros(length, np.int32), np.zeros(length, np.int32), np.zeros(length, np.float32)
  numbers[pooled] = np.arange(1, len(pooled) + 1)
  ids[pooled] = example['ids']
  weights[pooled[0]] = alike
  return numbers, ids, weights


def _places(segments: np.ndarray) -> np.ndarray:
  """Index of every position within its segment, int32; segments stand one after the other."""
  index = np.arange(len(segments), dtype=np.int32)
  begins = np.concatenate([[True], segments[1:] != segments[:-1]])
  return index - np.maximum.accumulate(np.where(begins, index, 0)).astype(np.int32)
