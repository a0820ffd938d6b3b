"""From a task example to what a model reads: the one seam between tasks and architectures (seqio's).

A feature converter makes a model example of one task example: 1-D arrays under the keys of `core/batch.py`, not padded,
with segment id 1 throughout. Packing and padding come afterwards and know nothing of the architecture.

    EncoderDecoderFeatures  T5          inputs, targets             span corruption and its kin, prefix LM, supervised
    DecoderOnlyFeatures     GPT         targets, or inputs too      causal LM, and the same
    EncoderOnlyFeatures     BERT        inputs, targets, predicted  masked LM; with token_types, label: pairs of texts
    PermutationFeatures     XLNet       targets, predicted, order,  permutation LM
                                        token_types
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import (
  DECODER,
  ENCODER,
  INPUT_TOKENS,
  LABEL,
  LABEL_WEIGHTS,
  LOSS_WEIGHTS,
  ORDER,
  POSITIONS,
  PREFIX,
  SEGMENT_IDS,
  TARGET_TOKENS,
  TOKEN_TYPE_IDS,
  dtype,
  key,
)
from t5x_lite.data.vocabularies import tokenizers

ModelExample = dict[str, np.ndarray]
Names = tuple[str, ...]

SUPERVISED: Names = ('inputs', 'targets')
_MASKED = ('inputs', 'targets', 'predicted')
_OF_PAIRS = (TOKEN_TYPE_IDS, LABEL, LABEL_WEIGHTS)
_PREDICTED = (INPUT_TOKENS, TARGET_TOKENS, LOSS_WEIGHTS, SEGMENT_IDS, POSITIONS)


class FeatureConverter(Protocol):
  """Makes model examples; a frozen dataclass, so that its `repr` tells what it does."""

  @property
  def lengths(self) -> tuple[Names, ...]:
    """The names that task_feature_lengths may have, one set or another."""

  @property
  def examples(self) -> tuple[Names, ...]:
    """What a task example may consist of, one set or another."""

  @property
  def objectives(self) -> Names:
    """Names of the library's objectives that make such examples, for whoever chose another."""

  def for_tokenizer(self, tokenizer: tokenizers.Tokenizer) -> FeatureConverter:
    """The same, with what was left open taken from the tokenizer."""

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Length of each side (`encoder`, `decoder`) of a row."""

  def keys(self, side: str) -> Names:
    """The batch keys of a side, token ids first."""

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """A task example -> arrays by batch key; those of one side have one length, at least 1."""


@dataclasses.dataclass(frozen=True)
class EncoderDecoderFeatures:
  """T5: inputs go to the encoder, targets to the decoder, which predicts each from those before it.

  Attributes:
    decoder_start_id: what the decoder reads at the first position of every example (T5: 0, its padding).
  """

  decoder_start_id: int = 0
  lengths: ClassVar[tuple[Names, ...]] = (SUPERVISED,)
  examples: ClassVar[tuple[Names, ...]] = (SUPERVISED,)
  objectives: ClassVar[Names] = ('SpanCorruption', 'PrefixLM', 'Denoising', 'TextInfilling', 'UL2')

  def for_tokenizer(self, tokenizer: tokenizers.Tokenizer) -> EncoderDecoderFeatures:
    """Nothing is left open."""
    return self

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Inputs are the encoder's length, targets the decoder's."""
    return {ENCODER: task_feature_lengths['inputs'], DECODER: task_feature_lengths['targets']}

  def keys(self, side: str) -> Names:
    """The encoder predicts nothing, so that it has neither targets nor weights."""
    return _keys(side, _PREDICTED if side == DECODER else (INPUT_TOKENS, SEGMENT_IDS, POSITIONS))

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """`inputs` `[S]` and `targets` `[T]` (int, EOS included) -> the keys of both sides, `[S]` and `[T]`."""
    inputs, targets = example['inputs'], example['targets']
    weights = _constants(len(targets)).weights
    return {
      key(ENCODER, INPUT_TOKENS): inputs,
      **_places(ENCODER, len(inputs)),
      **_predicting(DECODER, _shifted(targets, self.decoder_start_id), targets, weights),
    }


@dataclasses.dataclass(frozen=True)
class DecoderOnlyFeatures:
  """GPT: inputs, if there are any, and targets are one sequence, each token predicted from those before it.

  The semantics are those of seqio's `LMFeatureConverter` and `PrefixLMFeatureConverter`. A row is as long as the
  lengths of inputs and targets together.

  Attributes:
    start_id: what is read at the first position of every example; None: the tokenizer's EOS, as in GPT-2.
    loss_on_targets_only: whether inputs weigh nothing in the loss.
    bidirectional_prefix: whether the inputs see all of themselves (T5's prefix LM; the model must read
      `decoder_prefix`). As in T5X, the position that reads the last input and predicts the first target belongs to
      the prefix.
  """

  start_id: int | None = None
  loss_on_targets_only: bool = True
  bidirectional_prefix: bool = False
  lengths: ClassVar[tuple[Names, ...]] = (('targets',), SUPERVISED)
  examples: ClassVar[tuple[Names, ...]] = (('targets',), SUPERVISED)
  objectives: ClassVar[Names] = ('CausalLM', 'PrefixLM', 'SpanCorruption', 'Denoising', 'TextInfilling', 'UL2')

  def __post_init__(self):
    if self.bidirectional_prefix and not self.loss_on_targets_only:
      raise errors.UsageError(
        'bidirectional_prefix with loss_on_targets_only=False: inputs that see each other cannot be predicted'
      )

  def for_tokenizer(self, tokenizer: tokenizers.Tokenizer) -> DecoderOnlyFeatures:
    """With the tokenizer's EOS for a start that was left open."""
    return dataclasses.replace(self, start_id=tokenizer.eos_id) if self.start_id is None else self

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """The decoder has all."""
    return {DECODER: sum(task_feature_lengths.values())}

  def keys(self, side: str) -> Names:
    """A prefix only where it is bidirectional: then it costs the attention a mask."""
    return _keys(side, (*_PREDICTED, PREFIX) if self.bidirectional_prefix else _PREDICTED)

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """`targets` `[T]` and, if there are any, `inputs` `[S]` (int, EOS included) -> the decoder's keys, `[S + T]`."""
    assert self.start_id is not None  # `for_tokenizer` has seen to it
    inputs, tokens = example.get('inputs'), example['targets']
    width = 0
    if inputs is not None:
      width, tokens = len(inputs), np.concatenate([inputs, tokens]).astype(np.int32, copy=False)
    weights = _constants(len(tokens)).weights
    if self.loss_on_targets_only and width:
      weights = weights.copy()
      weights[:width] = 0.0
    converted = _predicting(DECODER, _shifted(tokens, self.start_id), tokens, weights)
    if self.bidirectional_prefix:
      converted[key(DECODER, PREFIX)] = (np.arange(len(tokens)) <= width).astype(np.int32)
    return converted


@dataclasses.dataclass(frozen=True)
class EncoderOnlyFeatures:
  """BERT: what the encoder reads, and at some of its positions what it should have read.

  Attributes:
    sentence_pairs: whether examples are two texts that have a label together, besides (BERT's next sentence, ALBERT's
      sentence order). The model needs a head for it.
  """

  sentence_pairs: bool = False
  lengths: ClassVar[tuple[Names, ...]] = (('inputs',),)

  @property
  def examples(self) -> tuple[Names, ...]:
    """With the token types and the label of a pair, or without."""
    return ((*_MASKED, 'token_types', 'label') if self.sentence_pairs else _MASKED,)

  @property
  def objectives(self) -> Names:
    """Those of one text, or those of two."""
    return ('NextSentence', 'SentenceOrder') if self.sentence_pairs else ('MaskedLM',)

  def for_tokenizer(self, tokenizer: tokenizers.Tokenizer) -> EncoderOnlyFeatures:
    """Nothing is left open."""
    return self

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Inputs are the encoder's length."""
    return {ENCODER: task_feature_lengths['inputs']}

  def keys(self, side: str) -> Names:
    """The encoder predicts; a pair has its label at the first position."""
    return _keys(side, (*_PREDICTED, *_OF_PAIRS) if self.sentence_pairs else _PREDICTED)

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """`inputs`, `targets` and `predicted` (0 or 1), all int `[S]` -> the encoder's keys, `[S]`.

    Of pairs `token_types` `[S]` and `label` `[1]`, too.
    """
    weights = example['predicted'].astype(np.float32)
    converted = _predicting(ENCODER, example['inputs'], example['targets'], weights)
    if self.sentence_pairs:
      label, label_weights = np.zeros(len(weights), np.int32), np.zeros(len(weights), np.float32)
      label[0], label_weights[0] = example['label'][0], 1.0
      names = (key(ENCODER, name) for name in _OF_PAIRS)
      converted |= dict(zip(names, (example['token_types'], label, label_weights), strict=True))
    return converted


@dataclasses.dataclass(frozen=True)
class PermutationFeatures:
  """XLNet: the content stream reads all tokens, the query stream predicts some, both in the order given."""

  lengths: ClassVar[tuple[Names, ...]] = (('targets',),)
  examples: ClassVar[tuple[Names, ...]] = (('targets', 'predicted', 'order', 'token_types'),)
  objectives: ClassVar[Names] = ('PermutationLM',)

  def for_tokenizer(self, tokenizer: tokenizers.Tokenizer) -> PermutationFeatures:
    """Nothing is left open."""
    return self

  def side_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
    """Targets are the decoder's length."""
    return {DECODER: task_feature_lengths['targets']}

  def keys(self, side: str) -> Names:
    """Inputs and targets are the same tokens, not shifted."""
    return _keys(side, (*_PREDICTED, ORDER, TOKEN_TYPE_IDS))

  def __call__(self, example: Mapping[str, np.ndarray]) -> ModelExample:
    """`targets`, `predicted` (0 or 1), `order` and `token_types`, all int `[T]` -> the decoder's keys, `[T]`."""
    tokens = example['targets']
    converted = _predicting(DECODER, tokens, tokens, example['predicted'].astype(np.float32))
    return converted | {key(DECODER, ORDER): example['order'], key(DECODER, TOKEN_TYPE_IDS): example['token_types']}


CONVERTERS = (EncoderDecoderFeatures, DecoderOnlyFeatures, EncoderOnlyFeatures, PermutationFeatures)


def accepts(converter: FeatureConverter, names: Sequence[str]) -> bool:
  """Whether a converter reads examples of these features, in whatever order."""
  return any(set(known) == set(names) for known in converter.examples)


def fitting(names: Sequence[str]) -> list[str]:
  """The converters of the library that read examples of these features, as one would write them."""
  choices: tuple[FeatureConverter, ...] = (*(known() for known in CONVERTERS), EncoderOnlyFeatures(sentence_pairs=True))
  return [
    type(known).__name__ + ('.sentence_pairs = True' if known == choices[-1] else '')
    for known in choices
    if accepts(known, names)
  ]


def legal_objectives(converter: FeatureConverter) -> str:
  """The library's objectives that a converter reads, and of BERT's those that it would read with its other setting."""
  told = ' or '.join(converter.objectives)
  if isinstance(converter, EncoderOnlyFeatures):
    pairs = not converter.sentence_pairs
    other = ' or '.join(dataclasses.replace(converter, sentence_pairs=pairs).objectives)
    told += f' (with EncoderOnlyFeatures.sentence_pairs = {pairs}: {other})'
  return told


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
  """Shapes `[batch_size, length of the side]` and dtypes of a global batch, see `core/batch.py`."""
  spec = {}
  for side, length in converter.side_lengths(task_feature_lengths).items():
    for name in converter.keys(side):
      spec[name] = jax.ShapeDtypeStruct((batch_size, length), dtype(name))
  return spec


@functools.cache
def _keys(side: str, names: Names) -> Names:
  """The batch keys of these names on one side."""
  return tuple(key(side, name) for name in names)


class _Constants(NamedTuple):
  """What examples that stand by themselves have in common, `[length]`: their arrays are parts of these."""

  segments: np.ndarray
  positions: np.ndarray
  weights: np.ndarray

  @classmethod
  @functools.cache
  def up_to(cls, bits: int) -> _Constants:
    """Of length `2 ** bits`."""
    made = cls(np.ones(2**bits, np.int32), np.arange(2**bits, dtype=np.int32), np.ones(2**bits, np.float32))
    for array in made:
      array.flags.writeable = False
    return made


@functools.lru_cache(4096)
def _constants(length: int) -> _Constants:
  """Segment ids 1, positions and weights 1 of an example, not to be written to."""
  segments, positions, weights = _Constants.up_to(length.bit_length())
  return _Constants(segments[:length], positions[:length], weights[:length])


def _shifted(tokens: np.ndarray, start_id: int) -> np.ndarray:
  """`tokens` one position later, int32, with `start_id` first."""
  shifted = np.empty(len(tokens), np.int32)
  shifted[0] = start_id
  shifted[1:] = tokens[:-1]
  return shifted


def _predicting(side: str, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> ModelExample:
  """The keys of a side that predicts."""
  return {
    key(side, INPUT_TOKENS): inputs,
    key(side, TARGET_TOKENS): targets,
    key(side, LOSS_WEIGHTS): weights,
    **_places(side, len(targets)),
  }


def _places(side: str, length: int) -> ModelExample:
  """Segment and positions of an example by itself."""
  segments, positions, _ = _constants(length)
  return {key(side, SEGMENT_IDS): segments, key(side, POSITIONS): positions}
