"""UL2's mixture of denoisers: each example is made by one of several, and begins with the mode that it belongs to.

    text      Thank you for inviting me to your party last week
    inputs    [NLU] Thank you <extra_id_0> me to your party <extra_id_1> </s>       R: T5's span corruption
    inputs    [NLG] Thank <extra_id_0> to your <extra_id_1> </s>                    X: longer spans, or more of them
    inputs    [S2S] Thank you for inviting me to your party </s>                    S: a prefix language model

A mode is text, which the tokenizer encodes, as in the paper's published code: T5's vocabulary has no tokens for it, and
spells `[NLU]` in several. A vocabulary that has one needs less room for it (`mode_length`).

All denoisers take texts of one length, at most the largest that every one of them can fit into the feature lengths, so
that no token is lost. Shorter texts, several to a row, fill it better, for some denoisers shorten the inputs and others
hardly do. The published code cuts a text for each denoiser, in a stream of its own.

Source: Tay et al. 2022 (UL2), section 3.1, table 1, and the code in the appendix.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives import sizes
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.objectives.protocols import Encoder
from t5x_lite.objectives.span_corruption import SpanCorruption

# Mode, mean span length (None: one span, at the end of the text), share of the tokens that is noise, rate.
Denoiser = tuple[str, float | None, float, float]

PAPER: tuple[Denoiser, ...] = (
  ('[NLU]', 3.0, 0.15, 1.0),
  ('[NLU]', 8.0, 0.15, 1.0),
  ('[NLG]', 3.0, 0.5, 1.0),
  ('[NLG]', 8.0, 0.5, 1.0),
  ('[NLG]', 64.0, 0.15, 1.0),
  ('[NLG]', 64.0, 0.5, 1.0),
  ('[S2S]', None, 0.25, 1.0),
)


@dataclasses.dataclass(frozen=True)
class UL2:
  """Draws a denoiser for every example.

  Attributes:
    denoisers: `(mode, mean span length, noise density, rate)` of each; a mean span length of None is a prefix language
      model that predicts that share of the text on average; rates are relative. A mode of '' adds nothing.
    mode_length: tokens of the inputs that are kept free for the mode.
    features: what an example consists of.
  """

  denoisers: tuple[Denoiser, ...] = PAPER
  mode_length: int = 6
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets')

  def __post_init__(self):
    rates = [rate for _, _, _, rate in self.denoisers]
    if not (rates and min(rates) >= 0.0 and 0.0 < sum(rates) < math.inf):
      raise errors.UsageError(f'UL2: got denoisers with rates {rates}, expected rates of at least 0, one of them more')
    if self.mode_length < 0:
      raise errors.UsageError(f'UL2: got mode_length {self.mode_length!r}, expected at least 0')
    _ = self.objectives  # which refuse what they cannot do

  @functools.cached_property
  def objectives(self) -> tuple[SpanCorruption | PrefixLM, ...]:
    """What each denoiser does to a text."""
    return tuple(
      PrefixLM(density) if span is None else SpanCorruption(density, span) for _, span, density, _ in self.denoisers
    )

  @functools.cached_property
  def _cumulative_rates(self) -> np.ndarray:
    return np.cumsum([rate for _, _, _, rate in self.denoisers])

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The largest number of raw tokens that, with all that are smaller, fits whichever denoiser is drawn.

    With a length for `targets` alone inputs and targets share it.
    """
    got = dict(feature_lengths)
    if not sizes.are_known(got):
      raise errors.UsageError(f'UL2: got task_feature_lengths {got}, expected inputs and targets, or targets alone')
    raw = min(sizes.longest_text(self._sizes(own, got), got, shortest=2) for own in self.objectives)
    if raw < 2:
      raise errors.UsageError(
        f'UL2: got task_feature_lengths {got}, expected inputs and targets that hold 2 tokens of text, what the '
        f'denoisers add to them and, in the inputs, a mode of {self.mode_length}'
      )
    return raw

  def _sizes(self, objective: SpanCorruption | PrefixLM, feature_lengths: Mapping[str, int]) -> sizes.Sizes:
    """The longest inputs, room for the mode included, and the longest targets of a denoiser, by tokens of text."""
    of = objective.example_lengths
    if isinstance(objective, PrefixLM) and set(feature_lengths) == sizes.IN_ONE_ROW:
      of = objective.lengths_in_one_row

    def with_mode(raw_length: int) -> tuple[int, int]:
      inputs, targets = of(raw_length)
      return inputs + self.mode_length, targets

    return with_mode

  def separator(self, tokenizer: Encoder) -> int | None:
    """None: T5 has nothing between documents."""
    return None

  def draw(self, rng: np.random.Generator) -> int:
    """The index of a random denoiser, by the rates."""
    rates = self._cumulative_rates
    return int(np.searchsorted(rates, rng.random() * rates[-1], side='right'))

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Encoder) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int, without EOS; none make inputs of the mode and EOS, and targets of EOS.
      rng: decides the denoiser and what it does.
      tokenizer: gives the sentinels and EOS, and encodes the mode.

    Returns:
      `inputs`, the mode first, and `targets`, int32, EOS included.

    Raises:
      UsageError: the mode has more tokens than there is room for.
    """
    index = self.draw(rng)
    example = self.objectives[index](tokens, rng, tokenizer)
    mode = _encoded(tokenizer, self.denoisers[index][0])
    if len(mode) > self.mode_length:
      raise errors.UsageError(
        f'UL2: the mode {self.denoisers[index][0]!r} has {len(mode)} tokens in this vocabulary: '
        f'got mode_length {self.mode_length}, expected at least {len(mode)}'
      )
    example['inputs'] = np.concatenate([mode, example['inputs']])
    return example


@functools.lru_cache(maxsize=64)
def _encoded(tokenizer: Encoder, mode: str) -> np.ndarray:
  """Ids of the mode, int32."""
  return np.array(tokenizer.encode(mode) if mode else [], np.int32)
