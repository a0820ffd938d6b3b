"""BERT's masked language model: some tokens are hidden, and the model tells what they were.

    text       Thank you for inviting me to your party last week
    inputs     [CLS] Thank you [MASK] inviting me to banana party last week [SEP]
    targets    [CLS] Thank you for    inviting me to your   party last week [SEP]
    predicted  0     0     0   1      0        0  0  1      0     0    0    0

Sources: Devlin et al. 2019 (BERT), section 3.1 and appendix A.1, with the counts of `create_masked_lm_predictions` in
the published `create_pretraining_data.py`; Liu et al. 2019 (RoBERTa), section 4: every epoch draws its masks anew, and
a row is filled across documents, with a separator between them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np

from t5x_lite.core import errors

_ADDED = 2  # [CLS] and [SEP]


class Masks(Protocol):
  """What masking must know of a tokenizer."""

  @property
  def vocab_size(self) -> int:
    """Random tokens are drawn from as many ids."""

  @property
  def pad_id(self) -> int:
    """Id of padding."""

  @property
  def cls_id(self) -> int:
    """The id that begins a text."""

  @property
  def sep_id(self) -> int:
    """The id that ends it."""

  @property
  def mask_id(self) -> int:
    """The id of what is hidden."""


@dataclasses.dataclass(frozen=True)
class MaskedLM:
  """Hides random tokens, never special ones.

  Attributes:
    mask_probability: share of the tokens, special ones counted too, that are predicted; at least one is.
    mask_share: of the predicted tokens, how many become `[MASK]`.
    random_share: how many become a random token, any of the vocabulary; the rest stays as it is.
    features: what an example consists of.
  """

  mask_probability: float = 0.15
  mask_share: float = 0.8
  random_share: float = 0.1
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets', 'predicted')

  def __post_init__(self):
    if not 0.0 < self.mask_probability < 1.0:
      raise errors.UsageError(f'masked LM: got mask_probability {self.mask_probability!r}, expected 0 < p < 1')
    shares = (self.mask_share, self.random_share)
    if not (min(shares) >= 0.0 and sum(shares) <= 1.0):
      raise errors.UsageError(
        f'masked LM: got mask_share {self.mask_share!r} and random_share {self.random_share!r}, '
        'expected shares of at least 0 that add up to at most 1'
      )

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The raw tokens of a full row: `[CLS]` and `[SEP]` are added."""
    length = feature_lengths['inputs']
    if length <= _ADDED:
      raise errors.UsageError(f'masked LM: got an inputs length of {length}, expected at least {_ADDED + 1}')
    return length - _ADDED

  def separator(self, tokenizer: Masks) -> int | None:
    """The id that stands after every document, as in RoBERTa: `[SEP]`."""
    return tokenizer.sep_id

  def num_predictions(self, length: int) -> int:
    """How many of `length` tokens, special ones included, are predicted."""
    return max(1, round(length * self.mask_probability))

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Masks) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int, at least one.
      rng: decides which are predicted, and what the model sees of them.
      tokenizer: gives the special ids and the number of ids.

    Returns:
      `inputs`, `targets` and `predicted` (1 where a target is predicted), int32 `[length + 2]`.
    """
    assert len(tokens) > 0
    targets = np.empty(len(tokens) + _ADDED, np.int32)
    targets[0], targets[1:-1], targets[-1] = tokenizer.cls_id, tokens, tokenizer.sep_id
    special = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.pad_id)
    candidates = np.flatnonzero(~np.isin(targets, special))
    count = min(self.num_predictions(len(targets)), len(candidates))
    chosen = rng.choice(candidates, count, replace=False) if count else candidates
    draw = rng.random(count)
    random_tokens = rng.integers(0, tokenizer.vocab_size, count, np.int32)
    inputs = targets.copy()
    hidden, replaced = draw < self.mask_share, draw < self.mask_share + self.random_share
    inputs[chosen] = np.where(hidden, tokenizer.mask_id, np.where(replaced, random_tokens, targets[chosen]))
    predicted = np.zeros(len(targets), np.int32)
    predicted[chosen] = 1
    return {'inputs': inputs, 'targets': targets, 'predicted': predicted}
