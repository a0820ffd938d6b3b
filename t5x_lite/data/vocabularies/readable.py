"""Ids as text for people to read: unlike a tokenizer's `decode`, it neither ends at EOS nor drops what is blank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from t5x_lite.data.vocabularies.tokenizers import LayoutTokenizer, Tokenizer

EOS = '<eos>'
_BETWEEN = ' | '


def text(tokenizer: Tokenizer, ids: np.ndarray) -> str:
  """The text of ids `[L]`, special tokens by their names; one that only ends texts shows where it is not the last."""
  names = _special_names(tokenizer)
  at = np.flatnonzero(np.isin(ids, list(names)))
  parts = [tokenizer.decode(part.tolist()) for part in _split(ids, np.isin(ids, list(names)))]
  shown = [names[token] for token in ids[at].tolist()]
  if shown and at[-1] == len(ids) - 1 and shown[-1] == EOS:
    shown.pop()
    parts.pop()
  words = [word for pair in zip(parts, [*shown, ''], strict=True) for word in pair]
  return ' '.join(word for word in words if word)


def _special_names(tokenizer: Tokenizer) -> dict[int, str]:
  """What special tokens are shown as, by id; EOS, unless it has another part too, such as `[SEP]` in BERT."""
  ids = tokenizer.special_ids() if isinstance(tokenizer, LayoutTokenizer) else {}
  names = {token_id: token for token, token_id in ids.items() if token_id != tokenizer.unk_id}
  roles = tokenizer.family.roles if isinstance(tokenizer, LayoutTokenizer) else {}
  if roles.get('sep', '') != names.get(tokenizer.eos_id):
    names[tokenizer.eos_id] = EOS
  return names


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
