"""T5's denoising objectives: noise falls on a text, and the model says what was there.

    T5's paper             noise_mask  noise_density  inputs                                   targets
    iid, replace spans     iid         0.15           noise_span_to_unique_sentinel            nonnoise_span_to_...
    iid, drop tokens       iid         0.15           drop_noise_tokens                        drop_nonnoise_tokens
    BERT-style             iid         0.15           noise_token_to_random_token_or_sentinel  whole
    MASS-style             iid         0.15           noise_token_to_sentinel                  whole
    deshuffling            iid         1.0            permute_noise_tokens                     whole
    random spans           spans       0.15           noise_span_to_unique_sentinel            nonnoise_span_to_...

The functions are those of `corruptions`. The last line makes the same examples as `span_corruption`.

Independent noise has no fixed number of tokens, so that T5 cuts off what is too long for a row. Nothing is lost here:
noise that makes targets longer than three standard deviations above their mean length (one in a thousand), or needs
more sentinels than there are, is drawn again.

Source: Raffel et al. 2020 (T5), section 3.3 and tables 3 to 7; `denoise` in the published `t5.data.preprocessors`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives import corruptions, sizes, spans
from t5x_lite.objectives.protocols import Hiding
from t5x_lite.objectives.span_corruption import SpanCorruption

_NOISE_MASKS = ('iid', 'spans')
_DEVIATIONS = 3.0
_DRAWS = 100


@dataclasses.dataclass(frozen=True)
class Denoising:
  """Noise on a text, and what is made of it.

  Attributes:
    noise_mask: 'iid': every token is noise by itself; 'spans': noise comes in spans, as in span corruption.
    noise_density: share of the tokens that are noise, from 0 to 1.
    mean_noise_span_length: of noise in spans, in tokens, at least 1.
    inputs: a function of `corruptions.INPUTS`.
    targets: a function of `corruptions.TARGETS`.
    features: what an example consists of.
  """

  noise_mask: Literal['iid', 'spans'] = 'iid'
  noise_density: float = 0.15
  mean_noise_span_length: float = 3.0
  inputs: str = 'noise_span_to_unique_sentinel'
  targets: str = 'nonnoise_span_to_unique_sentinel'
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets')

  def __post_init__(self):
    if self.noise_mask not in _NOISE_MASKS:
      raise errors.unknown('noise mask of denoising', self.noise_mask, _NOISE_MASKS)
    if self.noise_mask == 'spans':
      self._spans()  # has the same limits
    elif not 0.0 <= self.noise_density <= 1.0:
      raise errors.UsageError(f'denoising: got noise_density {self.noise_density!r}, expected 0 <= density <= 1')
    if self.inputs not in corruptions.INPUTS:
      raise errors.unknown('inputs of denoising', self.inputs, corruptions.INPUTS)
    if self.targets not in corruptions.TARGETS:
      raise errors.unknown('targets of denoising', self.targets, corruptions.TARGETS)

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The largest number of raw tokens whose inputs fit whatever is noise: with iid noise one less than the inputs.

    With a length for `targets` alone inputs and targets share it. Raises `UsageError` where the targets of so many
    tokens may not fit.
    """
    got = dict(feature_lengths)
    if set(got) == sizes.IN_ONE_ROW:
      raw = sizes.longest_text(self.lengths_in_one_row, got)
      if raw:
        return raw
    if not sizes.are_known(got) or got.get('inputs', 0) < 2:
      raise errors.UsageError(
        f'denoising: got task_feature_lengths {got}, expected inputs of at least 2, and targets; or, of a decoder-only '
        f'model, targets of at least {sum(self.lengths_in_one_row(1))}'
      )
    if self.noise_mask == 'spans' and self.noise_density == 1.0:  # inputs may be short whatever the text
      return max(sizes.longest_text(self.example_lengths, got), 1)
    raw = 1
    while self.example_lengths(raw + 1)[0] <= got['inputs']:
      raw += 1
    targets = self.example_lengths(raw)[1]
    if targets > got['targets']:
      raise errors.UsageError(
        f'denoising of inputs of length {got["inputs"]} makes targets of length {targets}: '
        f'got a feature length of {got["targets"]} for targets, expected at least {targets}'
      )
    return raw

  def separator(self, tokenizer: Hiding) -> int | None:
    """None: T5 has nothing between documents."""
    return None

  def example_lengths(self, raw_length: int) -> tuple[int, int]:
    """The longest inputs and the longest targets that `raw_length` tokens become, EOS included."""
    if self.noise_mask == 'spans':
      noise = self.noise(raw_length, np.random.default_rng(0))  # the lengths are the same, whatever is drawn
      return _length(self.inputs, noise) + 1, _length(self.targets, ~noise) + 1
    return raw_length + 1, self._longest_iid_targets(raw_length) + 1

  def lengths_in_one_row(self, raw_length: int) -> tuple[int, int]:
    """As `example_lengths`, but not longer together than they can be: what one side drops the other may have."""
    inputs, targets = self.example_lengths(raw_length)
    if (self.inputs, self.targets) == ('drop_noise_tokens', 'drop_nonnoise_tokens'):
      inputs = raw_length + 2 - targets
    return inputs, targets

  def _longest_iid_targets(self, length: int) -> int:
    """Three standard deviations above the mean length, EOS not included; no more than the text."""
    p, q = self.noise_density, 1.0 - self.noise_density
    mean, variance = length * p, length * p * q
    if self.targets == 'whole':
      return length
    if self.targets != 'drop_nonnoise_tokens':  # A run of text begins where a token of text follows noise, or at once.
      mean, variance = mean + length * p * q + q, length * p * q * q * (4.0 - 3.0 * p)
    return min(length, math.floor(mean + _DEVIATIONS * math.sqrt(variance)) + 1)

  def noise(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """bool `[length]`: which tokens are noise."""
    if self.noise_mask == 'iid':
      return rng.random(length) < self.noise_density
    if self.noise_density in (0.0, 1.0):
      return np.full(length, self.noise_density == 1.0)
    spans = self._spans()
    lengths = spans.span_lengths(length, spans.draws(length, rng)[None]).reshape(-1)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)[:length]

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Hiding) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int32, without EOS; none make inputs and targets of EOS.
      rng: decides what is noise, and what becomes of it.
      tokenizer: gives sentinels, random tokens and EOS.

    Returns:
      `inputs` and `targets`, int32, EOS included.
    """
    noise = self._fitting_noise(len(tokens), rng, tokenizer)
    inputs = corruptions.INPUTS[self.inputs](tokens, noise, rng, tokenizer)
    targets = corruptions.TARGETS[self.targets](tokens, noise, rng, tokenizer)
    return spans.ended_example(inputs, targets, tokenizer)

  def _fitting_noise(self, length: int, rng: np.random.Generator, tokenizer: Hiding) -> np.ndarray:
    """Noise whose example is not too long; where none is found that the sentinels suffice for, the last drawn."""
    noise = self.noise(length, rng)
    if self.noise_mask == 'spans':
      return noise
    longest = self._longest_iid_targets(length)
    for _ in range(_DRAWS):
      if _length(self.targets, ~noise) <= longest and self._num_sentinels(noise) <= tokenizer.num_sentinels:
        break
      noise = self.noise(length, rng)
    return noise

  def _num_sentinels(self, noise: np.ndarray) -> int:
    """How many sentinels inputs and targets need."""
    runs = [
      _num_runs(flags)
      for name, flags in ((self.inputs, noise), (self.targets, ~noise))
      if name.endswith('unique_sentinel')
    ]
    return max(runs, default=0)

  def _spans(self) -> SpanCorruption:
    return SpanCorruption(self.noise_density, self.mean_noise_span_length)


def _num_runs(flags: np.ndarray) -> int:
  """Number of runs of True."""
  return int(np.count_nonzero(flags[1:] & ~flags[:-1])) + bool(len(flags) and flags[0])


def _length(name: str, replaced: np.ndarray) -> int:
  """Length, EOS not included, that the function of this name makes of tokens of which it replaces some."""
  kept = len(replaced) - int(np.count_nonzero(replaced))
  if name.startswith('drop'):
    return kept
  return kept + _num_runs(replaced) if '_span_to_' in name else len(replaced)
