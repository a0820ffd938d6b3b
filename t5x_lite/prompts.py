"""What a user gives to be gone on with, as rows of ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.decoding.config import GenerationConfig


def prompts(
  inputs: Any,
  attention_mask: Any,
  *,
  tokenizer: Tokenizer | None,
  config: GenerationConfig,
  vocab_size: int,
  encodes: bool,
  begin: int | None = None,
) -> tuple[list[np.ndarray], int]:
  """Ids of every input, and the width of the batch that they were given as, 0 for texts.

  Args:
    inputs: a text, texts, ids, rows of ids, or None for the id that begins a text.
    attention_mask: 0 at what is padding; None: padding is the padding id, if it does not end texts as well.
    tokenizer: of texts.
    config: tells special ids.
    vocab_size: rows of the embedding table.
    encodes: whether they go to an encoder, whose inputs end with an end.
    begin: id put before texts; None: none is.

  Raises:
    UsageError: no such input; an empty one; ids that are none.
  """
  if inputs is None:
    if config.bos_token_id is None or encodes:
      raise errors.UsageError('no inputs: expected texts or ids')
    inputs = [[config.bos_token_id]]
  if isinstance(inputs, str):
    inputs = [inputs]
  if isinstance(inputs, list | tuple) and inputs and all(isinstance(text, str) for text in inputs):
    if tokenizer is None:
      raise errors.UsageError('inputs are texts, and the model has no tokenizer beside it: expected ids')
    return [_encoded(text, place, tokenizer, encodes, begin) for place, text in enumerate(inputs, start=1)], 0
  if not isinstance(inputs, list | tuple) and not np.ndim(inputs):
    raise errors.UsageError(f'inputs are {inputs!r}: expected texts, ids, or rows of ids')
  rows, width = _rows_of(inputs, attention_mask, config)
  for place, row in enumerate(rows, start=1):
    if not len(row):
      raise errors.UsageError(f'input {place} is empty: expected at least one token')
    if row.min() < 0 or row.max() >= vocab_size:
      bad = row[(row < 0) | (row >= vocab_size)][0]
      raise errors.UsageError(f'input {place} has {bad}: expected ids from 0 to {vocab_size - 1}')
  return rows, width


def decoder_prompts(given: Any, rows: int, config: GenerationConfig, vocab_size: int) -> np.ndarray:
  """What the decoder of an encoder-decoder starts from, int32 `[B, P]`.

  As in transformers, the start token is put in front where no row has it there.

  Args:
    given: `decoder_input_ids`: ids `[P]`, the same for every row, or `[B, P]`; None: the start token alone.
    rows: B.
    config: tells the start token.
    vocab_size: rows of the embedding table.

  Raises:
    UsageError: no start token, or ids of another shape or out of range.
  """
  start = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.bos_token_id
  if start is None:
    raise errors.UsageError('decoder_start_token_id is not set: expected the id that the decoder starts from')
  if given is None:
    return np.full((rows, 1), start, np.int32)
  try:
    ids = np.asarray(given)
  except ValueError as error:  # ragged
    raise errors.UsageError('decoder_input_ids has rows of several lengths: expected ids [P] or [B, P]') from error
  if ids.ndim == 1:
    ids = np.repeat(ids[None], rows, axis=0)
  if ids.ndim != 2 or len(ids) != rows or not ids.size or ids.dtype.kind not in 'iu':
    raise errors.UsageError(
      f'decoder_input_ids is {ids.dtype} {list(np.shape(given))}: expected ids [P] or [{rows}, P], at least one a row'
    )
  if ids.min() < 0 or ids.max() >= vocab_size:
    bad = ids[(ids < 0) | (ids >= vocab_size)][0]
    raise errors.UsageError(f'decoder_input_ids has {bad}: expected ids from 0 to {vocab_size - 1}')
  ids = ids.astype(np.int32)
  if np.all(ids[:, 0] != start):
    ids = np.concatenate([np.full((rows, 1), start, np.int32), ids], axis=1)
  return ids


def _encoded(text: str, place: int, tokenizer: Tokenizer, encodes: bool, begin: int | None) -> np.ndarray:
  ids = tokenizer.encode(text)
  if encodes:
    ids, _ = tokenizer.with_special_tokens(ids)
  elif begin is not None:
    ids = [begin, *ids]
  if not ids:
    raise errors.UsageError(f'input {place} is empty: expected a text to go on from')
  return np.asarray(ids, np.int32)


def _rows_of(inputs: Any, attention_mask: Any, config: GenerationConfig) -> tuple[list[np.ndarray], int]:
  try:
    one_row = len(inputs) > 0 and np.ndim(inputs) == 1
    rows = [np.asarray(row) for row in ([inputs] if one_row else inputs)]
  except (TypeError, ValueError):  # ragged
    rows = [np.asarray(row) for row in inputs]
  if not rows:
    raise errors.UsageError('inputs are empty: expected at least one text or row of ids')
  for place, row in enumerate(rows, start=1):
    if row.ndim != 1 or (len(row) and row.dtype.kind not in 'iu'):
      raise errors.UsageError(f'input {place} is {row.dtype} {list(row.shape)}: expected a text, or a row of ids')
  eos = config.eos_token_id if isinstance(config.eos_token_id, tuple) else (config.eos_token_id,)
  if attention_mask is not None:
    try:
      masks = [np.asarray(mask) != 0 for mask in np.atleast_2d(np.asarray(attention_mask))]
    except ValueError:  # ragged, as the rows may be
      masks = [np.asarray(mask) != 0 for mask in attention_mask]
    if [len(mask) for mask in masks] != [len(row) for row in rows]:
      raise errors.UsageError(
        f'attention_mask is {[len(masks), len(masks[0])]}: expected {[len(rows), len(rows[0])]}, as input_ids'
      )
  elif config.pad_token_id is not None and config.pad_token_id not in eos and len({len(row) for row in rows}) == 1:
    masks = [row != config.pad_token_id for row in rows]
  else:
    masks = [np.ones(len(row), bool) for row in rows]
  width = max(len(row) for row in rows)
  return [row[mask].astype(np.int32) for row, mask in zip(rows, masks, strict=True)], width
