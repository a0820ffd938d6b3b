"""XLNet's permutation language model: some tokens are predicted in random order, each from those before it in it.

    text       Thank you for inviting me to your party last week
    targets    Thank you for inviting me to your party last week [SEP] [CLS]
    predicted  0     0   1   1        0  0  0    0     1    0    0     0
    order      0     0   4   1        0  0  0    0     2    0    5     3
    types      0     0   0   0        0  0  0    0     0    0    0     2

What is not predicted is context: place 0 of the order, which everything sees and which sees nothing but context. The
predicted tokens and the special ones have the places 1, 2, ... at random. A position sees the positions of smaller
places; its content stream sees itself too.

Source: Yang et al. 2019 (XLNet), sections 2.2, 2.3 and 3.1; the order is that of `_local_perm` in the published
`data_utils.py`, over the whole row: rows are independent here, so that there is no memory to permute apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives.protocols import Framed

_ADDED = 2  # [SEP] and [CLS]
_CLS_TYPE = 2  # XLNet's third segment, besides those of two texts


@dataclasses.dataclass(frozen=True)
class PermutationLM:
  """Predicts spans of 1 to `max_span_length` tokens, one in every `context_factor` tokens on average.

  A span of l tokens, every l equally likely (as in transformers' collator; the paper does not say, and the published
  `_sample_mask` draws l in proportion to 1 / l), lies at random in a stretch of `context_factor * l` tokens, and the
  stretches follow each other.

  Attributes:
    max_span_length: in tokens.
    context_factor: the paper's K: about 1 / K of the tokens are predicted, at least one.
    features: what an example consists of.
  """

  max_span_length: int = 5
  context_factor: int = 6
  features: ClassVar[tuple[str, ...]] = ('targets', 'predicted', 'order', 'token_types')

  def __post_init__(self):
    if self.max_span_length < 1:
      raise errors.UsageError(f'permutation LM: got max_span_length {self.max_span_length!r}, expected at least 1')
    if self.context_factor < 2:
      raise errors.UsageError(f'permutation LM: got context_factor {self.context_factor!r}, expected at least 2')

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The raw tokens of a full row: `[SEP]` and `[CLS]` are added."""
    length = feature_lengths['targets']
    if length <= _ADDED:
      raise errors.UsageError(f'permutation LM: got a targets length of {length}, expected at least {_ADDED + 1}')
    return length - _ADDED

  def most_predicted(self, length: int) -> int:
    """The largest number of predictions of an example of exactly `length` tokens, special ones included.

    Every stretch that is whole has its share; the last one may end behind its span.
    """
    tokens = max(length - _ADDED, 0)
    return max(last + (tokens - last) // self.context_factor for last in range(min(self.max_span_length, tokens) + 1))

  def separator(self, tokenizer: Framed) -> int | None:
    """The id that stands after every document: `[SEP]`."""
    return tokenizer.sep_id

  def spans(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """bool `[length]`: which tokens of a text lie in a span."""
    if not length:
      return np.zeros(0, bool)
    lengths = rng.integers(1, self.max_span_length + 1, -(-length // self.context_factor))
    stretches = lengths * self.context_factor
    offsets = np.floor(rng.random(len(lengths)) * (stretches - lengths + 1)).astype(np.int64)
    starts = np.cumsum(stretches) - stretches + offsets
    edges = np.zeros(max(length, int(starts[-1] + lengths[-1])) + 1, np.int64)
    edges[starts] += 1
    np.subtract.at(edges, starts + lengths, 1)  # where a span ends, the next may begin
    return np.cumsum(edges)[:length] > 0

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Framed) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int. None make an example of the special tokens, with nothing to predict.
      rng: decides the spans and their order.
      tokenizer: gives the special ids.

    Returns:
      `targets`, `predicted` (1 where a target is predicted), `order` and `token_types`, int32 `[length + 2]`.
    """
    targets = np.empty(len(tokens) + _ADDED, np.int32)
    targets[:-2], targets[-2:] = tokens, (tokenizer.sep_id, tokenizer.cls_id)
    special = np.isin(targets, (tokenizer.sep_id, tokenizer.cls_id))
    predicted = np.zeros(len(targets), bool)
    predicted[:-2] = self.spans(len(tokens), rng)
    predicted &= ~special
    if not predicted.any() and not special.all():
      predicted[rng.choice(np.flatnonzero(~special))] = True
    ordered = np.flatnonzero(predicted | special)
    order = np.zeros(len(targets), np.int32)
    order[ordered] = 1 + rng.permutation(len(ordered))
    token_types = np.zeros(len(targets), np.int32)
    token_types[-1] = _CLS_TYPE
    return {
      'targets': targets,
      'predicted': predicted.astype(np.int32),
      'order': order,
      'token_types': token_types,
    }
