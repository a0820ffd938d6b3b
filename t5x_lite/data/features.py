"""From an example of inputs and targets to what a model reads: the one seam between tasks and architectures (seqio's).

A feature converter makes a model example of one task example: 1-D arrays under the keys of `core/batch.py`, not padded,
with segment id 1 throughout. Packing and padding come afterwards and know nothing of the architecture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import numpy as np

from t5x_lite.core import batch as batch_keys
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, LOSS_WEIGHTS, POSITIONS, SEGMENT_IDS, TARGET_TOKENS, key

ModelExample = dict[str, np.ndarray]


class FeatureConverter(Protocol):
  """Makes model examples; a frozen dataclass, so that its `repr` tells what it does."""

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Length of each side (`encoder`, `decoder`) of a row."""

  def keys(self, side: str) -> tuple[str, ...]:
    """The batch keys of a side, token ids first."""

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """`{'inputs', 'targets'}` -> arrays by batch key; those of one side have one length, at least 1."""


@dataclasses.dataclass(frozen=True)
class EncoderDecoderFeatures:
  """T5: inputs go to the encoder, targets to the decoder, which predicts each from those before it.

  Attributes:
    decoder_start_id: what the decoder reads at the first position of every example (T5: 0, its padding).
  """

  decoder_start_id: int = 0

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Inputs are the encoder's length, targets the decoder's."""
    return {ENCODER: task_feature_lengths['inputs'], DECODER: task_feature_lengths['targets']}

  def keys(self, side: str) -> tuple[str, ...]:
    """The encoder predicts nothing, so that it has neither targets nor weights."""
    predicted = (TARGET_TOKENS, LOSS_WEIGHTS) if side == DECODER else ()
    return tuple(key(side, name) for name in (INPUT_TOKENS, *predicted, SEGMENT_IDS, POSITIONS))

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """`inputs` `[S]` and `targets` `[T]` (int, EOS included) -> the keys of both sides, `[S]` and `[T]`."""
    inputs, targets = example['inputs'], example['targets']
    shifted = np.empty(len(targets), np.int32)
    shifted[0] = self.decoder_start_id
    shifted[1:] = targets[:-1]
    return {
      key(ENCODER, INPUT_TOKENS): inputs,
      key(ENCODER, SEGMENT_IDS): np.ones(len(inputs), np.int32),
      key(ENCODER, POSITIONS): np.arange(len(inputs), dtype=np.int32),
      key(DECODER, INPUT_TOKENS): shifted,
      key(DECODER, TARGET_TOKENS): targets,
      key(DECODER, LOSS_WEIGHTS): np.ones(len(targets), np.float32),
      key(DECODER, SEGMENT_IDS): np.ones(len(targets), np.int32),
      key(DECODER, POSITIONS): np.arange(len(targets), dtype=np.int32),
    }


def append_eos_after_trim(tokens: Sequence[int], length: int, eos_id: int) -> tuple[np.ndarray, bool]:
  """`tokens`, cut so that EOS fits too, and EOS: `(int32 [<= length], whether tokens were lost)`. As in seqio."""
  kept = tokens[: length - 1]
  out = np.empty(len(kept) + 1, np.int32)
  out[:-1] = kept
  out[-1] = eos_id
  return out, len(kept) < len(tokens)


def batch_spec(
  converter: FeatureConverter, task_feature_lengths: Mapping[str, int], batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes `[batch_size, length of the side]` and dtypes of a global batch: loss weights float32, the rest int32."""
  spec = {}
  for side, length in converter.side_lengths(task_feature_lengths).items():
    for name in converter.keys(side):
      dtype = np.float32 if name == batch_keys.key(side, LOSS_WEIGHTS) else np.int32
      spec[name] = jax.ShapeDtypeStruct((batch_size, length), dtype)
  return spec
