"""BART's text infilling: spans of random length each become one mask token, and the whole text is the target.

    text      Thank you for inviting me to your party last week
    inputs    Thank you <M> me to your <M> party <M> week </s>
    targets   Thank you for inviting me to your party last week </s>

The second mask stands for an empty span: the model must also tell how many tokens are missing, if any are.

Source: Lewis et al. 2020 (BART), section 2.2, with the budget of `add_whole_word_mask` in the published
`denoising_dataset.py`: span lengths are drawn until they cover the share of the tokens that is to be masked, and the
last one is cut to it. There spans may fall on each other, and then less is masked; here they never do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives import sizes, spans
from t5x_lite.objectives.protocols import Hiding


@dataclasses.dataclass(frozen=True)
class TextInfilling:
  """Replaces spans of a text, some of them empty, by one mask token each.

  The mask token is the first sentinel, or `[MASK]` where the tokenizer has no sentinels.

  Attributes:
    mask_ratio: share of the tokens that are masked, from 0 to 1.
    poisson_lambda: mean length of a span, in tokens, more than 0.
    features: what an example consists of.
  """

  mask_ratio: float = 0.3
  poisson_lambda: float = 3.0
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets')

  def __post_init__(self):
    if not 0.0 <= self.mask_ratio <= 1.0:
      raise errors.UsageError(f'text infilling: got mask_ratio {self.mask_ratio!r}, expected 0 <= ratio <= 1')
    if not 0.0 < self.poisson_lambda < math.inf:
      raise errors.UsageError(f'text infilling: got poisson_lambda {self.poisson_lambda!r}, expected more than 0')

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """One less than the inputs: they may be as long as the text, and both end with EOS.

    With a length for `targets` alone inputs and targets share it, half and half.
    """
    got = dict(feature_lengths)
    raw = sizes.longest_text(self.example_lengths, got) if sizes.are_known(got) else 0
    if not raw or got.get('inputs', 0) > got['targets']:
      raise errors.UsageError(
        f'text infilling: got task_feature_lengths {got}, expected inputs of at least 2, and targets no shorter; or, '
        'of a decoder-only model, targets of at least 4'
      )
    return raw

  def example_lengths(self, raw_length: int) -> tuple[int, int]:
    """The longest inputs and the longest targets that `raw_length` tokens become, EOS included."""
    return raw_length + 1, raw_length + 1

  def separator(self, tokenizer: Hiding) -> int | None:
    """None: as in T5, nothing stands between documents."""
    return None

  def span_lengths(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths of the spans of a text of `length` tokens, int `[spans]`, in random order.

    They add up to `ceil(length * mask_ratio)`, and there are no more of them than that, so that inputs are never longer
    than the text.
    """
    masked = min(math.ceil(length * self.mask_ratio), length)
    ends = np.minimum(np.cumsum(rng.poisson(self.poisson_lambda, masked)), masked)
    ends[masked - 1 :] = masked
    count = int(np.searchsorted(ends, masked)) + 1 if masked else 0
    return rng.permutation(np.diff(ends[:count], prepend=0))

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Hiding) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int, without EOS; none make inputs and targets of EOS.
      rng: decides the spans and where they are.
      tokenizer: gives what stands for a span, and EOS.

    Returns:
      `inputs` and `targets`, int32, EOS included.
    """
    lengths = self.span_lengths(len(tokens), rng)
    kept = len(tokens) - int(lengths.sum())
    is_span = np.zeros(kept + len(lengths), bool)  # every order of kept tokens and spans is as likely
    is_span[rng.choice(len(is_span), len(lengths), replace=False, shuffle=False)] = True
    runs = np.ones(len(is_span), np.int64)
    runs[is_span] = lengths
    inputs = np.empty(len(is_span), np.int32)
    inputs[is_span] = spans.hidden_id(tokenizer)
    inputs[~is_span] = tokens[~np.repeat(is_span, runs)]
    return spans.ended_example(inputs, tokens, tokenizer)
