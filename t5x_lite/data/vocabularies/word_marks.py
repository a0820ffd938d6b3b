"""Which pieces of a vocabulary go on with a word, as whole-word masking and tagging need it.

WordPiece marks what continues a word (`##ing`), SentencePiece and byte-level BPE what begins one (`▁sing`, `Ġsing`).
Where beginnings are marked, punctuation without a space before it goes with the word before it, as in fairseq.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors

SENTENCEPIECE_SPACE = '\u2581'
BYTE_LEVEL_SPACE = '\u0120'


def without_prefix(pieces: Sequence[str], space: str) -> np.ndarray:
  """bool `[len(pieces)]`: which do not begin with a space, spelt as the vocabulary spells it."""
  return np.array([not piece.startswith(space) for piece in pieces], bool)


def of_json(pieces: Sequence[str], content: dict[str, Any]) -> np.ndarray:
  """bool `[len(pieces)]`: which go on with a word, by the account of the `tokenizer.json` whose content this is.

  Raises:
    UsageError: the vocabulary marks where words end (BPE with an end-of-word suffix): a piece does not tell.
  """
  model = content['model']
  if model['type'] == 'WordLevel':
    return np.zeros(len(pieces), bool)
  prefix = model.get('continuing_subword_prefix')
  if prefix:
    return ~without_prefix(pieces, prefix)
  if model.get('end_of_word_suffix'):
    raise errors.UsageError(
      f'the pieces of this vocabulary tell where words end (by {model["end_of_word_suffix"]!r}), not whether they '
      'continue one: expected WordPiece, SentencePiece or byte-level BPE'
    )
  steps = (content.get('pre_tokenizer'), content.get('decoder'))
  return without_prefix(pieces, BYTE_LEVEL_SPACE if any(map(_is_byte_level, steps)) else SENTENCEPIECE_SPACE)


def _is_byte_level(step: dict[str, Any] | None) -> bool:
  """Whether a pre-tokeniser or decoder, or any of its parts, is byte level."""
  if step is None:
    return False
  parts = (*step.get('pretokenizers', ()), *step.get('decoders', ()))
  return step['type'] == 'ByteLevel' or any(map(_is_byte_level, parts))
