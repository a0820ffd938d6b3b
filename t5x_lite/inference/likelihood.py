"""How likely a model finds tokens behind others: what `infer --mode=score` and lm-evaluation-harness ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, ORDER, POSITIONS, SEGMENT_IDS, key
from t5x_lite.generation import bucket
from t5x_lite.pretrained import Pretrained

_SCORED = ('T5', 'Gpt', 'Xlnet')


class Scored(NamedTuple):
  """Of the targets of one input.

  Attributes:
    log_likelihoods: float64 `[T]`, natural logarithms.
    greedy: bool `[T]`, whether each target is the likeliest token at its place.
  """

  log_likelihoods: np.ndarray
  greedy: np.ndarray


class Likelihood:
  """The likelihood of targets behind their inputs.

  An encoder-decoder reads the inputs and writes the targets, a decoder goes on from the inputs. XLNet reads the inputs
  as a context that sees all of itself, and the targets in their order, one behind the other.

  Attributes:
    encodes: whether it is an encoder-decoder.
    start: the id that stands before a text which has no inputs, and before the targets of an encoder-decoder.

  Raises:
    UsageError: the model gives a text no likelihood.
  """

  def __init__(self, model: Pretrained):
    self._kind, config = type(model.module).__name__, model.generation_config
    if 'lm' not in model.module.config.heads or self._kind not in _SCORED:
      raise errors.UsageError(
        f'model {self._kind} gives a text no likelihood: expected T5, GPT or XLNet with an lm head to score'
      )
    self.encodes = self._kind == 'T5'
    start = config.decoder_start_token_id if self.encodes else config.bos_token_id
    if start is None and model.tokenizer is not None:
      start = model.tokenizer.pad_id if self.encodes else model.tokenizer.eos_id
    if start is None:
      raise errors.UsageError(f'{model.source} does not tell what a text begins with: expected a vocabulary')
    self.start = start
    sizes = model.module.config
    self._positions = sizes.max_length - sizes.prompt_length if getattr(sizes, 'positions', '') == 'learned' else None

    def score(params: Any, batch: Mapping[str, jax.Array], targets: jax.Array) -> tuple[jax.Array, jax.Array]:
      factored = model.module.apply({'params': params}, batch, deterministic=True, method='factored_logits')
      logits = factored.logits()
      chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
      return chosen - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == targets

    self._score = model.jitted(score)

  @property
  def longest(self) -> int | None:
    """Tokens that a decoder reads at most, which are all but the last of inputs and targets; None: any number."""
    return self._positions

  def __call__(
    self, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], length: int | None = None
  ) -> list[Scored]:
    """The likelihood of each of some targets.

    Args:
      inputs: int32 `[S]` each, none empty.
      targets: int32 `[T]` each, none empty.
      length: rows (of an encoder-decoder, those of its encoder) are padded to it; None: to a power of two.
    """
    batch, wanted, begins = self._batch(inputs, targets, length)
    log_likelihoods, greedy = self._score(batch, wanted)
    found = []
    for row, (begin, each) in enumerate(zip(begins, targets, strict=True)):
      own = slice(begin, begin + len(each))
      found.append(Scored(np.asarray(log_likelihoods[row, own], np.float64), np.asarray(greedy[row, own])))
    return found

  def _batch(
    self, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], length: int | None
  ) -> tuple[dict[str, np.ndarray], np.ndarray, list[int]]:
    """What the model reads, what is wanted at each position, int32 `[B, L]`, and where the targets begin."""
    if self.encodes:
      width = bucket(max(map(len, targets)))
      decoder = [np.concatenate([[self.start], each[:-1]]) for each in targets]
      encoder = one_side(ENCODER, inputs, length or bucket(max(map(len, inputs))))
      return encoder | one_side(DECODER, decoder, width), filled(targets, width), [0] * len(inputs)
    rows = [np.concatenate(pair) for pair in zip(inputs, targets, strict=True)]
    is_shifted = self._kind == 'Gpt'
    read = [row[:-1] for row in rows] if is_shifted else rows
    longest = max(map(len, read))
    width = max(longest, length or min(bucket(longest), self._positions or bucket(longest)))
    if is_shifted:
      begins = [len(each) - 1 for each in inputs]
      return one_side(DECODER, read, width), filled([row[1:] for row in rows], width), begins
    orders = [np.maximum(np.arange(len(row)) - len(each) + 1, 0) for row, each in zip(rows, inputs, strict=True)]
    batch = one_side(DECODER, rows, width) | {key(DECODER, ORDER): filled(orders, width)}
    return batch, filled(rows, width), [len(each) for each in inputs]


def filled(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
  """int32 `[B, length]`."""
  return np.stack([np.pad(row, (0, length - len(row))) for row in rows]).astype(np.int32)


def one_side(side: str, inputs: Sequence[np.ndarray], length: int) -> dict[str, np.ndarray]:
  """What one side of a model reads."""
  tokens = filled(inputs, length)
  segments = filled([np.ones(len(ids)) for ids in inputs], length)
  places = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
  return {key(side, INPUT_TOKENS): tokens, key(side, SEGMENT_IDS): segments, key(side, POSITIONS): places}
