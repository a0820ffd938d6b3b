"""T5's prefix language model: a text is cut in two at random, and the second part predicted from the first.

    text      Thank you for inviting me to your party last week
    inputs    Thank you for inviting </s>
    targets   me to your party last week </s>

A decoder-only model has both in one row, with loss on the targets; an encoder-decoder has one on either side.

Source: Raffel et al. 2020 (T5), section 3.2.1; the split is that of `random_prefix_noise_mask` in the published
`t5.data.preprocessors`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives import sizes, spans
from t5x_lite.objectives.protocols import Ended


@dataclasses.dataclass(frozen=True, repr=False)
class PrefixLM:
  """Cuts a text in two, each place that is allowed equally likely.

  Attributes:
    noise_density: mean share of the tokens that are predicted, from 0 to 1. 0.5 allows every place but the ends; with
      less, the last `2 * noise_density` of the text are where it is cut, with more the first `2 - 2 * noise_density`.
      0 predicts nothing but EOS, 1 all.
    features: what an example consists of.
  """

  noise_density: float = 0.5
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets')

  def __post_init__(self):
    if not 0.0 <= self.noise_density <= 1.0:
      raise errors.UsageError(f'prefix LM: got noise_density {self.noise_density!r}, expected 0 <= density <= 1')

  def __repr__(self) -> str:
    """The default has no parameters, so that positions in the data of older runs stay valid."""
    return 'PrefixLM()' if self.noise_density == 0.5 else f'PrefixLM(noise_density={self.noise_density!r})'

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """Raw tokens that fit wherever they are cut, an EOS for each part included.

    With a length for `targets` alone both parts share it; else each part must fit into its own.
    """
    in_one_row = set(feature_lengths) == sizes.IN_ONE_ROW
    of = self.lengths_in_one_row if in_one_row else self.example_lengths
    raw = sizes.longest_text(of, feature_lengths, shortest=2)
    if raw < 2:
      got = dict(feature_lengths)
      least = 4 if in_one_row else ' and '.join(map(str, self.example_lengths(2)))
      raise errors.UsageError(f'prefix LM: got task_feature_lengths {got}, expected lengths of at least {least}')
    return raw

  def separator(self, tokenizer: Ended) -> int | None:
    """None: T5 has nothing between documents."""
    return None

  def example_lengths(self, raw_length: int) -> tuple[int, int]:
    """The longest inputs and the longest targets that `raw_length` (at least 2) tokens become, EOS included."""
    shortest, longest = self._prefixes(raw_length)
    return longest + 1, raw_length - shortest + 1

  def lengths_in_one_row(self, raw_length: int) -> tuple[int, int]:
    """As `example_lengths`, but not longer together than they can be."""
    targets = self.example_lengths(raw_length)[1]
    return raw_length + 2 - targets, targets

  def _prefixes(self, length: int) -> tuple[int, int]:
    """The least and the largest number of inputs of `length` tokens, EOS not included."""
    density, longest = self.noise_density, length - 1
    if density == 0.0:
      return length, length
    if density == 1.0 or length < 2:  # a single token is predicted
      return 0, 0
    if density <= 0.5:
      return min(max(round((1.0 - 2.0 * density) * longest), 1), longest), longest
    return 1, min(max(round((2.0 - 2.0 * density) * longest), 1), longest)

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Ended) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int. A single one is all target, unless nothing is; none make inputs and targets of EOS.
      rng: decides where the text is cut.
      tokenizer: gives EOS.

    Returns:
      `inputs` and `targets`, int32, EOS included.
    """
    shortest, longest = self._prefixes(len(tokens))
    cut = int(rng.integers(shortest, longest + 1)) if shortest < longest else longest
    return spans.ended_example(tokens[:cut], tokens[cut:], tokenizer)
