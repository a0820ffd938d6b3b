"""T5's span corruption: spans of the text are replaced by sentinels, and the targets spell them out.

    text      Thank you for inviting me to your party last week
    inputs    Thank you <extra_id_0> me to your party <extra_id_1> </s>
    targets   <extra_id_0> for inviting <extra_id_1> last week </s>

Source: Raffel et al. 2020 (T5), section 3.1.4 and appendix; the arithmetic is that of `random_spans_helper` and
`random_spans_noise_mask` in the published `t5.data.preprocessors`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.objectives import sizes, spans
from t5x_lite.objectives.protocols import Sentinels

_TEXT, _ADDED, _NOISE = range(3)
_ALL_OR_NOTHING = (0.0, 1.0)  # densities without a span of text beside every span of noise


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
  """Replaces random spans of a text by sentinels.

  Attributes:
    noise_density: share of the tokens that are noise, from 0 to 1. In between at least one token is noise and one is
      not; with 0 the inputs are the text and the targets EOS, with 1 the whole text is one span.
    mean_noise_span_length: mean length of a noise span in tokens, at least 1.
    features: what an example consists of.
  """

  noise_density: float = 0.15
  mean_noise_span_length: float = 3.0
  features: ClassVar[tuple[str, ...]] = ('inputs', 'targets')
  makes_many: ClassVar[bool] = True

  def __post_init__(self):
    if not 0.0 <= self.noise_density <= 1.0:
      raise errors.UsageError(f'span corruption: got noise_density {self.noise_density!r}, expected 0 <= density <= 1')
    if not self.mean_noise_span_length >= 1.0:
      raise errors.UsageError(
        f'span corruption: got mean_noise_span_length {self.mean_noise_span_length!r}, expected at least 1'
      )

  def raw_length(self, feature_lengths: Mapping[str, int]) -> int:
    """The number of raw tokens that fills `feature_lengths['inputs']`: 568 for 512.

    With a length for `targets` alone inputs and targets share it. Raises `UsageError` where the targets of so many
    tokens do not fit.
    """
    if set(feature_lengths) == sizes.IN_ONE_ROW or self.noise_density == 1.0:  # then the targets have all of the text
      raw = sizes.longest_text(self.example_lengths, feature_lengths, shortest=2)
      if raw < 2:
        got = dict(feature_lengths)
        raise errors.UsageError(f'span corruption: got task_feature_lengths {got}, expected targets of at least 6')
      return raw
    raw, targets = self.fitted_lengths(feature_lengths['inputs'])
    if targets > feature_lengths['targets']:
      raise errors.UsageError(
        f'span corruption of inputs of length {feature_lengths["inputs"]} makes targets of length {targets}: '
        f'got a feature length of {feature_lengths["targets"]} for targets, expected at least {targets}'
      )
    return raw

  def separator(self, tokenizer: Sentinels) -> int | None:
    """None: T5 has nothing between documents."""
    return None

  def fitted_lengths(self, inputs_length: int) -> tuple[int, int]:
    """`(raw tokens, targets length)` for inputs of exactly `inputs_length` tokens, EOS included: 512 -> (568, 114).

    Not for a density of 1, whose inputs have 2 tokens whatever the text.
    """
    assert self.noise_density < 1.0
    if inputs_length < 3:
      raise errors.UsageError(f'span corruption: got an inputs length of {inputs_length}, expected at least 3')
    raw = inputs_length - 1
    while self.example_lengths(raw + 1)[0] <= inputs_length:
      raw += 1
    inputs, targets = self.example_lengths(raw)
    if self.noise_density == 0.5 and targets > inputs:  # T5 prefers the round number: the inputs' length
      raw, targets = raw - 1, targets - 1
    return raw, targets

  def example_lengths(self, raw_length: int) -> tuple[int, int]:
    """`(inputs length, targets length)` that `raw_length` (at least 2) tokens become, EOS included."""
    noise, count = self._noise(raw_length)
    return raw_length - noise + count + 1, noise + count + 1

  def _noise(self, length: int) -> tuple[int, int]:
    """`(noise tokens, noise spans)` of a text of `length` tokens. Rounding is half to even, as in T5."""
    if self.noise_density in _ALL_OR_NOTHING:
      return (length, min(length, 1)) if self.noise_density else (0, 0)
    length = max(length, 2)
    noise = min(max(round(length * self.noise_density), 1), length - 1)
    count = max(round(noise / self.mean_noise_span_length), 1)
    return noise, min(count, length - noise)  # at high densities T5 runs out of text between the spans

  def draws(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """All that is random about an example of `length` tokens: float32 `[length - 2]`, for `batch`."""
    return rng.random(max(length - 2, 0), np.float32)

  def span_lengths(self, length: int, draws: np.ndarray) -> np.ndarray:
    """Lengths of the spans of texts, int64 `[N, spans, 2]`: non-noise and noise by turns. All partitions are as likely.

    They add up to `length`, or to 2 for a single token, as T5 has it. Not for a density of 0 or 1.

    Args:
      length: of every text, in tokens.
      draws: float32 `[N, length - 2]`.
    """
    noise, count = self._noise(length)
    lengths = np.empty((len(draws), count, 2), np.int64)
    lengths[:, :, 1] = spans.partitions(noise, count, draws[:, : noise - 1])
    lengths[:, :, 0] = spans.partitions(max(length, 2) - noise, count, draws[:, noise - 1 :])
    return lengths

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Sentinels) -> dict[str, np.ndarray]:
    """Makes an example of raw tokens.

    Args:
      tokens: `[length]` int, without EOS. A single one is all input, with an empty span after it that has a sentinel in
        the targets alone; none makes inputs and targets of EOS.
      rng: decides the spans.
      tokenizer: gives the sentinels and EOS.

    Returns:
      `inputs` and `targets`, int32, EOS included.
    """
    if self.noise_density in _ALL_OR_NOTHING:
      return self._all_or_nothing(tokens, tokenizer)
    if len(tokens) < 2:
      return spans.ended_example(tokens, self._sentinels(len(tokens), 1, tokenizer)[: len(tokens)], tokenizer)
    return self.batch(tokens[None], self.draws(len(tokens), rng)[None], tokenizer)[0]

  def batch(self, tokens: np.ndarray, draws: np.ndarray, tokenizer: Sentinels) -> list[dict[str, np.ndarray]]:
    """Makes examples of texts of one length, which is several times as fast as one after the other.

    Args:
      tokens: `[N, length]` int, length at least 2.
      draws: what `draws` returned for each, `[N, length - 2]`.
      tokenizer: gives the sentinels and EOS.

    Returns:
      What `__call__` returns for each.
    """
    if self.noise_density in _ALL_OR_NOTHING:
      return [self._all_or_nothing(own, tokenizer) for own in tokens]
    num, length = tokens.shape
    lengths = self.span_lengths(length, draws)
    count = lengths.shape[1]
    added = np.append(self._sentinels(length, count, tokenizer), np.int32(tokenizer.eos_id))
    # All of it in a row: text, sentinel, noise, ..., and EOS. Sentinels and EOS are in the inputs and in the targets.
    runs = np.ones((num, count + 1, 3), np.int64)
    runs[:, :count, ::2] = lengths
    runs[:, count, ::2] = 0
    kind = np.tile(_kinds(count + 1), num).repeat(runs.reshape(-1))
    is_added = kind == _ADDED
    both = np.empty(len(kind), np.int32)
    both[~is_added] = tokens.reshape(-1)
    both[is_added] = np.tile(added, num)
    inputs, targets = both[kind != _NOISE].reshape(num, -1), both[kind != _TEXT].reshape(num, -1)
    return [{'inputs': own, 'targets': spelt} for own, spelt in zip(inputs, targets, strict=True)]

  def _all_or_nothing(self, tokens: np.ndarray, tokenizer: Sentinels) -> dict[str, np.ndarray]:
    """The example of a text of which all or nothing is noise."""
    noise, count = self._noise(len(tokens))
    added = self._sentinels(len(tokens), count, tokenizer)
    kept, hidden = np.split(tokens, [len(tokens) - noise])
    return spans.ended_example(np.append(kept, added), np.append(added, hidden), tokenizer)

  def _sentinels(self, length: int, count: int, tokenizer: Sentinels) -> np.ndarray:
    needs, advice = f'span corruption of {length} tokens', 'make the inputs shorter or mean_noise_span_length larger'
    return spans.first_sentinels(tokenizer, count, needs, advice)


@functools.lru_cache(maxsize=256)
def _kinds(count: int) -> np.ndarray:
  """Text, what is added, and noise `count` times, int8 `[3 * count]`, not to be written to."""
  kinds = np.tile(np.array([_TEXT, _ADDED, _NOISE], np.int8), count)
  kinds.flags.writeable = False
  return kinds


def restore(inputs: np.ndarray, targets: np.ndarray, tokenizer: Sentinels) -> np.ndarray:
  """The raw tokens of an example, int32: each sentinel of the inputs gives way to its span in the targets."""
  index_of = {tokenizer.sentinel_id(i): i for i in range(tokenizer.num_sentinels)}
  spans: dict[int, list[int]] = {}
  span: list[int] = []
  for token in targets[:-1].tolist():
    if token in index_of:
      span = spans.setdefault(index_of[token], [])
    else:
      span.append(token)
  restored: list[int] = []
  for token in inputs[:-1].tolist():
    restored.extend(spans.get(index_of[token], []) if token in index_of else [token])
  return np.array(restored, np.int32)
