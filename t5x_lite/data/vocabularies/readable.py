"""Ids as text for people to read: unlike a tokenizer's `decode`, it neither ends at EOS nor drops what is blank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from t5x_lite.data.vocabularies.tokenizers import Tokenizer

EOS = '<eos>'
_BETWEEN = ' | '


def text(tokenizer: Tokenizer, ids: np.ndarray) -> str:
  """The text of ids `[L]`; an EOS shows where it is not the last."""
  parts = [tokenizer.decode(part.tolist()) for part in _split(ids, ids == tokenizer.eos_id)]
  if len(parts) > 1 and ids[-1] == tokenizer.eos_id:
    parts.pop()
  return f' {EOS} '.join(parts)


def with_blanks(tokenizer: Tokenizer, ids: np.ndarray, blank: np.ndarray, mark: str) -> str:
  """The text of ids `[L]`, with `mark` for each id where `blank`, bool `[L]`, says so."""
  texts = (text(tokenizer, part) if len(part) else '' for part in _split(ids, blank))
  return f' {mark} '.join(texts).replace('  ', ' ').strip()


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
  """The text of each id by itself; of one that has none, its number."""
  return _BETWEEN.join(tokenizer.decode([token]).strip() or f'#{token}' for token in ids)


def _split(ids: np.ndarray, at: np.ndarray) -> list[np.ndarray]:
  """What lies before, between and after the places `at`, which are left out."""
  places = np.flatnonzero(at)
  starts, ends = [0, *(places + 1)], [*places, len(ids)]
  return [ids[start:end] for start, end in zip(starts, ends, strict=True)]
