"""What each key of a batch means: the only contract between data and models.

A batch is a `dict[str, array]`. Every array is `[batch, length]`; ids, positions and segment ids are int32, loss
weights float32, as is what says so below. The names are T5X's. Each side (`encoder_`, `decoder_`) has the same keys,
and a model has one side or both: T5 both, BERT the encoder, GPT and XLNet the decoder.

    {side}_input_tokens    what the stack reads (T5's and GPT's decoder: the targets shifted right, behind an id that
                           starts every example)
    {side}_target_tokens   what it is asked to predict, position by position
    {side}_loss_weights    weight of each target in the loss; 0.0 where there is nothing to predict
    {side}_segment_ids     which example of a packed row a position belongs to: 1, 2, ...; 0 is padding
    {side}_positions       index of the position inside its own example, from 0
    {side}_token_type_ids  BERT's sentence A or B, XLNet's segments; zeros where there is no such key

What only some encoders have, where examples have labels besides their tokens. Labels stand at positions, so that
examples can share a row: that of a text at its [CLS], that of a word at its first piece.

    {side}_label           the label (BERT's next sentence, a class, a tag), and of choices 1 at the [CLS] of the right
                           one; 0 elsewhere
    {side}_label_group     of choices: at the [CLS] of each the number, from 1, that its question has in its row; 0
                           elsewhere
    {side}_label_weights   weight of that label in the loss, float32; 0.0 elsewhere, and where it is unknown
    {side}_label_value     float32, in the place of the label where it is a number
    {side}_span_start      float32, 1.0 at the first position of an example's answer, or at its [CLS] if it has none
    {side}_span_end        float32, 1.0 at the last position of the answer, or at the same [CLS]
    {side}_text_number     of texts to be compared, each a segment: at the [CLS] of a text 1, of what is like it 2, of
                           what is unlike it 3; 0 elsewhere. The weight of the label stands at the first
    {side}_text_id         at these [CLS] a number that is the same for the same text, or for texts that are not to be
                           told from each other; 0 elsewhere

What only some decoders read:

    decoder_prefix         1 where a position belongs to a prefix that sees all of itself (T5X's
                           `decoder_causal_attention`); nothing does where there is no such key
    decoder_perm_mask      [B, L, L], 1 where a position must not see another (XLNet, as in Hugging Face)
    decoder_target_mapping [B, P, L], 1 at the position that each of P predictions is for (XLNet, as in Hugging Face)
    decoder_order          place of a position in XLNet's factorisation order: 0 is context, which all see and which
                           sees context alone; 1, 2, ... see smaller places, and in the content stream themselves
    decoder_pool_position  [B], the position that stands for its row in heads that read one vector of it (GPT, XLNet);
                           the last that is not padding where there is no such key

Masks are made of segment ids, never of token ids: RoBERTa's padding is id 1, and T5's decoder starts with the padding
id.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Batch = Mapping[str, Any]

ENCODER = 'encoder'
DECODER = 'decoder'

INPUT_TOKENS = 'input_tokens'
TARGET_TOKENS = 'target_tokens'
LOSS_WEIGHTS = 'loss_weights'
SEGMENT_IDS = 'segment_ids'
POSITIONS = 'positions'
TOKEN_TYPE_IDS = 'token_type_ids'
PREFIX = 'prefix'
ORDER = 'order'
PERM_MASK = 'perm_mask'
TARGET_MAPPING = 'target_mapping'
POOL_POSITION = 'pool_position'
LABEL = 'label'
LABEL_WEIGHTS = 'label_weights'
LABEL_VALUE = 'label_value'
LABEL_GROUP = 'label_group'
SPAN_START = 'span_start'
SPAN_END = 'span_end'
TEXT_NUMBER = 'text_number'
TEXT_ID = 'text_id'

# What examples that are labelled, and have nothing else to predict, may be labelled with.
LABELS = (LABEL, LABEL_VALUE, LABEL_GROUP, SPAN_START, SPAN_END, TEXT_NUMBER, TEXT_ID)
_FLOATS = frozenset((LOSS_WEIGHTS, LABEL_WEIGHTS, LABEL_VALUE, SPAN_START, SPAN_END))


@functools.cache
def key(side: str, name: str) -> str:
  """The batch key of one side, such as `decoder_segment_ids`."""
  return f'{side}_{name}'


def dtype(name: str) -> type[np.generic]:
  """What the arrays under a batch key are: float32 for weights, numbers and spans, int32 for the rest."""
  return np.float32 if name.partition('_')[2] in _FLOATS else np.int32


def predicting_side(batch: Batch) -> str:
  """The side whose targets are predicted: the decoder where there is one, else the encoder."""
  for side in (DECODER, ENCODER):
    if key(side, TARGET_TOKENS) in batch:
      return side
  raise KeyError(f'no target tokens in a batch of {sorted(batch)}')


def targets(batch: Batch) -> tuple[Any, Any]:
  """`(target tokens int32 [B, L], loss weights float32 [B, L])` of the predicting side."""
  side = predicting_side(batch)
  return batch[key(side, TARGET_TOKENS)], batch[key(side, LOSS_WEIGHTS)]


def is_labelled(batch: Batch) -> bool:
  """Whether the labels of examples are all that is learned: no tokens are predicted."""
  sides = (DECODER, ENCODER)
  predicted = any(key(side, TARGET_TOKENS) in batch for side in sides)
  return not predicted and any(key(side, name) in batch for side in sides for name in LABELS)


def compares_texts(batch: Batch) -> bool:
  """Whether the examples of a batch are texts to be told from each other."""
  return any(key(side, TEXT_NUMBER) in batch for side in (DECODER, ENCODER))


def labelled_side(batch: Batch) -> str:
  """The side of a batch that predicts no tokens whose examples have labels."""
  for side in (ENCODER, DECODER):
    if any(key(side, name) in batch for name in LABELS):
      return side
  raise KeyError(f'neither target tokens nor labels in a batch of {sorted(batch)}')


def has_labels(batch: Batch) -> bool:
  """Whether the examples of a batch have labels besides their tokens."""
  return key(predicting_side(batch), LABEL) in batch


def labels(batch: Batch) -> tuple[Any, Any]:
  """`(labels int32 [B, L], their weights float32 [B, L])` of the predicting side, which `has_labels`."""
  side = predicting_side(batch)
  return batch[key(side, LABEL)], batch[key(side, LABEL_WEIGHTS)]


def zeros(spec: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
  """A batch of zeros of the given shapes, to initialise or trace a model with."""
  return {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
