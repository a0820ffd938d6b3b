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
from typing import ClassVar, Protocol

import numpy as np

from t5x_lite.core import errors


class Ended(Protocol):
  """What the prefix language model must know of a tokenizer."""

  @property
  def eos_id(self) -> int:
    """The id that ends inputs and targets."""


@dataclasses.dataclass(frozen=True)
class PrefixLM:
  """Cuts a text after 1 to `length - 1` of its tokens, each place equally likely.

  Attributes:
    features: what an example consists of.
  """

  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets')

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """Raw tokens that fit wherever they are cut, an EOS for each part included.

    With a length for `targets` alone both parts share it; else each part must fit into its own.
    """
    if 'inputs' in feature_lengths:
      raw, least = min(feature_lengths['inputs'], feature_lengths['targets']), 2
    else:
      raw, least = feature_lengths['targets'] - 2, 4
    if raw < 2:
      got = dict(feature_lengths)
      raise errors.UsageError(f'prefix LM: got task_feature_lengths {got}, expected lengths of at least {least}')
    return raw

  def separator(self, tokenizer: Ended) -> int | None:
    """None: T5 has nothing between documents."""
    return None

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Ended) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int, at least one. A single one is all target.
      rng: decides where the text is cut.
      tokenizer: gives EOS.

    Returns:
      `inputs` and `targets`, int32, EOS included.
    """
    assert len(tokens) > 0
    cut = int(rng.integers(1, len(tokens))) if len(tokens) > 1 else 0
    eos = np.array([tokenizer.eos_id], np.int32)
    parts = (tokens[:cut], tokens[cut:])
    inputs, targets = (np.concatenate([part, eos]).astype(np.int32) for part in parts)
    return {'inputs': inputs, 'targets': targets}
