"""BERT's masked language model: some tokens are hidden, and the model tells what they were.

    text       Thank you for inviting me to your party last week
    inputs     [CLS] Thank you [MASK] inviting me to banana party last week [SEP]
    targets    [CLS] Thank you for    inviting me to your   party last week [SEP]
    predicted  0     0     0   1      0        0  0  1      0     0    0    0

What is chosen may be single tokens, all pieces of words, or all pieces of n-grams of words: see `masking_units`.

Sources: Devlin et al. 2019 (BERT), section 3.1 and appendix A.1, with the counts of `create_masked_lm_predictions` in
the published `create_pretraining_data.py`; Liu et al. 2019 (RoBERTa), section 4: every epoch draws its masks anew, and
a row is filled across documents, with a separator between them; Lan et al. 2020 (ALBERT), section 4.1: n-grams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives import masking_units, spans
from t5x_lite.objectives.protocols import Masks

_ADDED = 2  # [CLS] and [SEP]
_UNITS = ('token', 'word', 'ngram')


@dataclasses.dataclass(frozen=True)
class MaskedLM:
  """Hides random tokens, never special ones.

  Attributes:
    mask_probability: share of the tokens, special ones counted too, that are predicted; at least one is, if it is not
      part of a word or an n-gram that would be too many.
    mask_share: of the predicted tokens, how many become `[MASK]`.
    random_share: how many become a random token, any of the vocabulary; the rest stays as it is.
    unit: what is chosen at random: a 'token', all pieces of a 'word', or an 'ngram' of whole words.
    max_ngram: words of the longest n-gram; n has a probability that goes with 1 / n.
    max_predictions: the largest number of predicted tokens of an example; None: no limit. BERT has 20 of 128.
    features: what an example consists of.
  """

  mask_probability: float = 0.15
  mask_share: float = 0.8
  random_share: float = 0.1
  unit: Literal['token', 'word', 'ngram'] = 'token'
  max_ngram: int = 3
  max_predictions: int | None = None
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets', 'predicted')

  def __post_init__(self):
    if not 0.0 < self.mask_probability <= 1.0:  # with 0 there would be no loss
      raise errors.UsageError(f'masked LM: got mask_probability {self.mask_probability!r}, expected 0 < p <= 1')
    shares = (self.mask_share, self.random_share)
    if not (min(shares) >= 0.0 and sum(shares) <= 1.0):
      raise errors.UsageError(
        f'masked LM: got mask_share {self.mask_share!r} and random_share {self.random_share!r}, '
        'expected shares of at least 0 that add up to at most 1'
      )
    if self.unit not in _UNITS:
      raise errors.unknown('unit of masked LM', self.unit, _UNITS)
    for name in ('max_ngram', 'max_predictions'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise errors.UsageError(f'masked LM: got {name} {value!r}, expected at least 1')

  @property
  def makes_many(self) -> bool:
    """Whether there is `batch`: only for single tokens."""
    return self.unit == 'token'

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
    count = max(1, round(length * self.mask_probability))
    return count if self.max_predictions is None else min(count, self.max_predictions)

  def most_predicted(self, length: int) -> int:
    """The largest number of predictions of an example of exactly `length` tokens, special ones included."""
    return min(self.num_predictions(length), max(length - _ADDED, 0))

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Masks) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int. None make an example of `[CLS]` and `[SEP]`, with nothing to predict.
      rng: decides which are predicted, and what the model sees of them.
      tokenizer: gives the special ids, the number of ids and, where words are masked whole, what a word is.

    Returns:
      `inputs`, `targets` and `predicted` (1 where a target is predicted), int32 `[length + 2]`.
    """
    if self.unit == 'token':
      return self.batch(tokens[None], self.draws(len(tokens), rng)[None], tokenizer)[0]
    return self.masked(_framed(tokens[None], tokenizer)[0], rng, tokenizer)

  def draws(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """All that is random about an example of `length` tokens of which single ones are chosen, for `batch`.

    float64 `[length + 2 + 2 * predictions]`: what chooses, what becomes of the chosen, and the random tokens.
    """
    length += _ADDED
    return rng.random(length + 2 * self.num_predictions(length))

  def batch(self, tokens: np.ndarray, draws: np.ndarray, tokenizer: Masks) -> list[dict[str, np.ndarray]]:
    """Makes examples of texts of one length, of which single tokens are chosen: faster than one after the other.

    Args:
      tokens: `[N, length]` int.
      draws: what `draws` returned for each, `[N, draws]`.
      tokenizer: see `__call__`.

    Returns:
      What `__call__` returns for each.
    """
    targets = _framed(tokens, tokenizer)
    inputs, predicted = self._masked(targets, draws, tokenizer)
    return [{'inputs': inputs[i], 'targets': targets[i], 'predicted': predicted[i]} for i in range(len(targets))]

  def _masked(self, targets: np.ndarray, draws: np.ndarray, tokenizer: Masks) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and what is predicted, int32 `[N, length]`, of targets with special tokens, which are never predicted."""
    num, length = targets.shape
    count = self.num_predictions(length)
    chances, fates, others = draws[:, :length], draws[:, length : length + count], draws[:, length + count :]
    chances = np.where(_special(targets, tokenizer), 2.0, chances)
    places = spans.smallest(chances, min(count, length))
    rows = np.arange(num)[:, None]
    is_chosen = chances[rows, places] < 1.0  # where there are fewer tokens than predictions, not all places are
    fates = np.where(is_chosen, fates[:, : places.shape[1]], 2.0)
    inputs, predicted = targets.copy(), np.zeros_like(targets)
    predicted[rows, places] = is_chosen
    row, at = (fates < self.mask_share).nonzero()
    inputs[row, places[row, at]] = tokenizer.mask_id
    row, at = ((fates >= self.mask_share) & (fates < self.mask_share + self.random_share)).nonzero()
    inputs[row, places[row, at]] = (others[row, at] * tokenizer.vocab_size).astype(np.int32)
    return inputs, predicted

  def masked(self, targets: np.ndarray, rng: np.random.Generator, tokenizer: Masks) -> dict[str, np.ndarray]:
    """The same of tokens that have their special ones already, int32 `[length]`: the features, int32 `[length]`."""
    if self.unit == 'token':
      draws = self.draws(len(targets) - _ADDED, rng)
      inputs, predicted = self._masked(targets[None], draws[None], tokenizer)
      return {'inputs': inputs[0], 'targets': targets, 'predicted': predicted[0]}
    mask_id = tokenizer.mask_id
    chosen = self._chosen(targets, np.flatnonzero(~_special(targets, tokenizer)), rng, tokenizer)
    draw = rng.random(len(chosen))
    hidden = draw < self.mask_share
    replaced = chosen[(draw < self.mask_share + self.random_share) & ~hidden]
    inputs = targets.copy()
    inputs[chosen[hidden]] = mask_id
    inputs[replaced] = rng.integers(0, tokenizer.vocab_size, len(replaced), np.int32)
    predicted = np.zeros(len(targets), np.int32)
    predicted[chosen] = 1
    return {'inputs': inputs, 'targets': targets, 'predicted': predicted}

  def _chosen(
    self, targets: np.ndarray, candidates: np.ndarray, rng: np.random.Generator, tokenizer: Masks
  ) -> np.ndarray:
    """Which of the candidates, places in the targets, are predicted."""
    count = self.num_predictions(len(targets))
    continues = tokenizer.piece_continues[targets[candidates]]
    if self.unit == 'word':
      return masking_units.choose_words(candidates, continues, count, rng)
    return masking_units.choose_ngrams(candidates, continues, count, self.max_ngram, rng)


def _framed(tokens: np.ndarray, tokenizer: Masks) -> np.ndarray:
  """`[CLS]`, the tokens `[N, length]`, and `[SEP]`: int32 `[N, length + 2]`."""
  targets = np.empty((len(tokens), tokens.shape[1] + _ADDED), np.int32)
  targets[:, 0], targets[:, 1:-1], targets[:, -1] = tokenizer.cls_id, tokens, tokenizer.sep_id
  return targets


def _special(tokens: np.ndarray, tokenizer: Masks) -> np.ndarray:
  """bool like `tokens`: which of them are special tokens."""
  special = (tokens == tokenizer.cls_id) | (tokens == tokenizer.sep_id)
  return special | (tokens == tokenizer.mask_id) | (tokens == tokenizer.pad_id)
