"""What a model makes of held-out examples, as text: each family shows in its own way what it has learned.

    encoder-decoder   the output that it writes for the inputs
    decoder-only      how it continues the inputs, or the beginning of a text
    encoder-only      what it takes the predicted tokens of a masked text for
    permutation       what it takes the predicted tokens for, each seen from those before it in the order

All is greedy: the likeliest token, after those that the model has written itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from t5x_lite.core.batch import (
  DECODER,
  ENCODER,
  INPUT_TOKENS,
  LOSS_WEIGHTS,
  ORDER,
  POSITIONS,
  SEGMENT_IDS,
  TARGET_TOKENS,
  TOKEN_TYPE_IDS,
  key,
)
from t5x_lite.data import features
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.vocabularies import readable
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.decoding.generate import generate_from_encoder, generate_from_prompt
from t5x_lite.training.samples import Sample

MASK = '[MASK]'
_LONGEST_PROMPT = 64  # tokens of a text that has no inputs
_LONGEST_CONTINUATION = 48

HostBatch = Mapping[str, np.ndarray]


class Predictor(Protocol):
  """From a batch of examples, one a row and empty rows last, to samples."""

  def arrays(self, examples: HostBatch) -> dict[str, np.ndarray]:
    """What the model needs of them."""

  def write(self, params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
    """Ids that the model writes, int32 `[B, T]`; a pure function, to be jitted by the caller."""

  def samples(self, examples: HostBatch, written: np.ndarray) -> list[Sample]:
    """One for each row that is not empty."""


def predictor(module: nn.Module, config: DatasetConfig) -> Predictor | None:
  """What suits the features of a data set; None for features that are not of this library.

  Args:
    module: the model.
    config: the data set, with a tokenizer.
  """
  tokenizer, lengths = config.tokenizer, config.task_feature_lengths
  assert tokenizer is not None
  match config.features:
    case features.EncoderDecoderFeatures():
      return Output(module, tokenizer, lengths['targets'])
    case features.DecoderOnlyFeatures(bidirectional_prefix=bidirectional):
      return Continuation(module, tokenizer, bidirectional)
    case features.EncoderOnlyFeatures():
      return Fills(module, tokenizer, ENCODER)
    case features.PermutationFeatures():
      return Fills(module, tokenizer, DECODER)
  return None


@dataclasses.dataclass(frozen=True)
class Output:
  """What an encoder-decoder writes, greedily.

  Attributes:
    module: the model.
    tokenizer: of its examples.
    max_length: tokens written at most.
  """

  module: nn.Module
  tokenizer: Tokenizer
  max_length: int

  def arrays(self, examples: HostBatch) -> dict[str, np.ndarray]:
    """The encoder's side."""
    return {key(ENCODER, name): examples[key(ENCODER, name)] for name in (INPUT_TOKENS, SEGMENT_IDS, POSITIONS)}

  def write(self, params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
    """int32 `[B, max_length]`."""
    return generate_from_encoder(
      self.module,
      params,
      arrays,
      max_length=self.max_length,
      eos_id=self.tokenizer.eos_id,
      num_tokens=self.tokenizer.vocab_size,
    )

  def samples(self, examples: HostBatch, written: np.ndarray) -> list[Sample]:
    """Inputs, targets, output."""
    return [
      Sample(
        input=readable.text(self.tokenizer, _used(examples, ENCODER, INPUT_TOKENS, row)),
        target=readable.text(self.tokenizer, _used(examples, DECODER, TARGET_TOKENS, row)),
        prediction=self.tokenizer.decode(written[row].tolist()),
      )
      for row in _filled(examples, ENCODER)
    ]


@dataclasses.dataclass(frozen=True)
class Continuation:
  """How a decoder-only model goes on, greedily: after the inputs, or after the first half of a text without.

  Attributes:
    module: the model.
    tokenizer: of its examples.
    bidirectional: whether what it continues sees all of itself.
  """

  module: nn.Module
  tokenizer: Tokenizer
  bidirectional: bool = False

  def starts(self, examples: HostBatch) -> np.ndarray:
    """The first position of every row that the model is to write, int `[B]`; positive where a row has two tokens."""
    weights = examples[key(DECODER, LOSS_WEIGHTS)]
    used = np.count_nonzero(examples[key(DECODER, SEGMENT_IDS)], axis=1)
    first = np.argmax(weights > 0, axis=1)  # Behind the inputs; 0 if there are none.
    return np.where(first > 0, first, np.minimum(used // 2, _LONGEST_PROMPT))

  def arrays(self, examples: HostBatch) -> dict[str, np.ndarray]:
    """Prompts padded on the left, and how many tokens fit behind the longest, as the length of `room`."""
    inputs, starts = examples[key(DECODER, INPUT_TOKENS)], self.starts(examples)
    longest = int(starts.max()) + 1
    tokens = np.zeros((len(inputs), longest), np.int32)
    segments = np.zeros_like(tokens)
    for row, start in enumerate(starts):
      tokens[row, longest - 1 - start :] = inputs[row, : start + 1]
      segments[row, longest - 1 - start :] = 1
    room = min(inputs.shape[1] - longest + 1, _LONGEST_CONTINUATION)
    return {'tokens': tokens, 'segment_ids': segments, 'room': np.zeros(room, np.int32)}

  def write(self, params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
    """int32 `[B, T]`, T being the length of `room`."""
    return generate_from_prompt(
      self.module,
      params,
      arrays['tokens'],
      arrays['segment_ids'],
      max_length=arrays['room'].shape[0],
      eos_id=self.tokenizer.eos_id,
      num_tokens=self.tokenizer.vocab_size,
      bidirectional=self.bidirectional,
    )

  def samples(self, examples: HostBatch, written: np.ndarray) -> list[Sample]:
    """What was continued, how the text goes on, how the model does."""
    starts = self.starts(examples)
    made = []
    for row in _filled(examples, DECODER):
      tokens, start = _used(examples, DECODER, TARGET_TOKENS, row), int(starts[row])
      made.append(
        Sample(
          input=readable.text(self.tokenizer, tokens[:start]) if start else '',
          target=readable.text(self.tokenizer, tokens[start : start + written.shape[1]]),
          prediction=self.tokenizer.decode(written[row].tolist()),
        )
      )
    return made


@dataclasses.dataclass(frozen=True)
class Fills:
  """The likeliest token at every predicted position, all found in one forward pass.

  Attributes:
    module: the model.
    tokenizer: of its examples.
    side: that predicts: the encoder of BERT, the decoder of XLNet.
  """

  module: nn.Module
  tokenizer: Tokenizer
  side: str

  def arrays(self, examples: HostBatch) -> dict[str, np.ndarray]:
    """What the model reads, and the predicted positions of each row, `places` int32 `[B, P]`, filled up with 0."""
    predicted = examples[key(self.side, LOSS_WEIGHTS)] > 0
    places = np.zeros((len(predicted), max(int(predicted.sum(axis=1).max()), 1)), np.int32)
    for row, at in enumerate(predicted):
      places[row, : np.count_nonzero(at)] = np.flatnonzero(at)
    names = (key(self.side, name) for name in (INPUT_TOKENS, SEGMENT_IDS, POSITIONS, ORDER, TOKEN_TYPE_IDS))
    return {name: examples[name] for name in names if name in examples} | {'places': places}

  def write(self, params: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
    """int32 `[B, P]`; only the logits of the predicted positions are multiplied out."""
    batch = {name: array for name, array in arrays.items() if name != 'places'}
    factored = self.module.apply({'params': params}, batch, deterministic=True, method='factored_logits')
    hidden = jnp.take_along_axis(factored.hidden, arrays['places'][..., None], axis=1)
    logits = factored.replace(hidden=hidden).logits()[..., : self.tokenizer.vocab_size]
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)

  def samples(self, examples: HostBatch, written: np.ndarray) -> list[Sample]:
    """The text with blanks, what belongs there, what the model puts there."""
    tokenizer, made = self.tokenizer, []
    for row in _filled(examples, self.side):
      inputs, targets = (_used(examples, self.side, name, row) for name in (INPUT_TOKENS, TARGET_TOKENS))
      predicted = _used(examples, self.side, LOSS_WEIGHTS, row) > 0
      # BERT sees some of the predicted tokens; XLNet's queries none.
      blank = inputs == tokenizer.mask_id if self.side == ENCODER else predicted
      made.append(
        Sample(
          input=readable.with_blanks(tokenizer, inputs, blank, MASK),
          target=readable.pieces(tokenizer, targets[predicted].tolist()),
          prediction=readable.pieces(tokenizer, written[row, : np.count_nonzero(predicted)].tolist()),
        )
      )
    return made


def _used(examples: HostBatch, side: str, name: str, row: int) -> np.ndarray:
  """The values of a row that are not padding."""
  return examples[key(side, name)][row][examples[key(side, SEGMENT_IDS)][row] > 0]


def _filled(examples: HostBatch, side: str) -> list[int]:
  return np.flatnonzero(examples[key(side, SEGMENT_IDS)].any(axis=1)).tolist()
