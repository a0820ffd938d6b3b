"""Which part of a mixture comes next in a virtual shard."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from t5x_lite.data import mixtures, randomness

_DRAWS_PER_BLOCK = 512


class PartChoice:
  """Which part of a mixture the n-th example of a shard comes from.

  Shares of the examples are drawn at random. Shares of the tokens are kept to as closely as examples allow: the part
  that lags most behind its share is next.

  Args:
    blend: the mixture.
    seed: of the run.
    shard: index of the virtual shard.
  """

  def __init__(self, blend: mixtures.Blend, seed: int, shard: int):
    self.by_tokens = blend.unit == mixtures.TOKENS
    self._first_steps = [step for step, _ in blend.stages]
    self._shares = [shares for _, shares in blend.stages]
    self._upper = [_upper_bounds(shares) for shares in self._shares]
    self._seed = seed
    self._shard = shard
    self._block_index = -1
    self._block: list[float] = []

  def stage(self, step: int) -> int:
    """The stage of the mixture at a step of the run."""
    return bisect.bisect_right(self._first_steps, step) - 1

  def first_step(self, stage: int) -> int:
    """The step of the run that a stage begins with."""
    return self._first_steps[stage]

  def has_share(self, part: int, stage: int) -> bool:
    """Whether anything of the part is drawn in a stage."""
    return self._shares[stage][part] > 0

  def at_random(self, draw: int, stage: int) -> int:
    """The part of draw number `draw`, by shares of the examples."""
    block, at = divmod(draw, _DRAWS_PER_BLOCK)
    if block != self._block_index:
      generator = randomness.generator(self._seed, randomness.MIXTURE, (block, self._shard, 0))
      self._block = generator.random(_DRAWS_PER_BLOCK).tolist()
      self._block_index = block
    return int(np.searchsorted(self._upper[stage], self._block[at], side='right'))

  def lagging(self, tokens: Sequence[int], stage: int) -> int:
    """The part that has least of its share of the tokens; the first of equals.

    Args:
      tokens: that the parts have had since the stage began.
      stage: of the mixture.
    """
    shares = self._shares[stage]
    filled = [count / share if share else float('inf') for count, share in zip(tokens, shares, strict=True)]
    return filled.index(min(filled))


def _upper_bounds(shares: Sequence[float]) -> np.ndarray:
  """Where in [0, 1) each part but the last ends; from the last that has a share on it is 1, whatever rounding says."""
  upper = np.cumsum(shares)
  upper[np.flatnonzero(shares)[-1] :] = 1.0
  return upper[:-1]
