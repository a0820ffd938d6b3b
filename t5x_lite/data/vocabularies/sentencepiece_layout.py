"""How a SentencePiece model comes to have the ids of a family, and what the family does to a text before it.

Pieces of a model keep their ids: special tokens that it lacks come after them, then the sentinels, then added tokens.
XLM-RoBERTa alone puts its own before the pieces, as fairseq did.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import sentencepiece_model, token_layouts
from t5x_lite.data.vocabularies.sentencepiece_model import CONTROL, UNKNOWN, USER_DEFINED, Piece
from t5x_lite.data.vocabularies.tokenizers import SENTINEL_START

if TYPE_CHECKING:
  import sentencepiece

OWN_ROLES = ('pad', 'eos', 'unk')  # What SentencePiece models say themselves, whatever they call it.
EXTRA_IDS = 100  # Sentinels of T5.

_SPACE = '\u2581'
_NUMBER_COMMA_PENALTY = 100.0


def with_layout(
  model: bytes,
  processor: sentencepiece.SentencePieceProcessor,
  layout: token_layouts.Layout,
  extra_ids: int | None,
) -> bytes:
  """A model with the special tokens, sentinels and added tokens of a family.

  Args:
    model: serialised.
    processor: of that model.
    layout: the family.
    extra_ids: number of sentinels, or None for the family's own number. A model that has sentinels keeps those.

  Raises:
    UsageError: a T5 model has no pad or no end, or added tokens do not follow on the vocabulary.
  """
  if layout.name == 't5':
    _check_t5(processor)
  if layout.name == 'xlm-roberta':
    model = sentencepiece_model.with_pieces(model, in_fairseq_order)
  else:
    own = {getattr(layout, role) for role in OWN_ROLES if own_id(processor, role) >= 0}
    tokens = (token for token in dict.fromkeys(layout.roles.values()) if token not in own)
    missing = (Piece(token, kind=CONTROL) for token in tokens if not has(processor, token))
    model = sentencepiece_model.appended(model, missing)
  if layout.cleaning is not None:
    model = sentencepiece_model.with_pieces(model, without_number_commas)
  if not any(has(processor, f'{space}{SENTINEL_START}0>') for space in ('', _SPACE)):
    if extra_ids is None:
      extra_ids = EXTRA_IDS if layout.name == 't5' else 0
    model = with_sentinels(model, extra_ids)
  return with_added_tokens(model, layout.added_tokens)


def own_id(processor: sentencepiece.SentencePieceProcessor, role: str) -> int:
  """Id of pad, end or unknown by the model's own account, -1 if it has none."""
  return getattr(processor, f'{role}_id')()


def has(processor: sentencepiece.SentencePieceProcessor, token: str) -> bool:
  """Whether exactly this token has an id."""
  return processor.id_to_piece(processor.piece_to_id(token)) == token


def with_sentinels(model: bytes, extra_ids: int) -> bytes:
  """A serialised SentencePiece model with `<extra_id_{extra_ids - 1}>` ... `<extra_id_0>` after its pieces.

  `user_defined_symbols` of the trainer would put them first.
  """
  names = (f'{SENTINEL_START}{index}>' for index in reversed(range(extra_ids)))
  return sentencepiece_model.appended(model, (Piece(name, kind=USER_DEFINED) for name in names))


def with_added_tokens(model: bytes, tokens: Iterable[token_layouts.AddedToken]) -> bytes:
  """A model with the added tokens that it lacks. Raises `UsageError` where their ids do not follow its own."""
  by_id = sorted(tokens, key=lambda token: token.token_id)
  size = len(sentencepiece_model.pieces_of(model)) if by_id else 0
  new = [token for token in by_id if token.token_id >= size]
  for expected, token in enumerate(new, size):
    if token.token_id != expected:
      raise errors.UsageError(f'the added token {token.content!r} has id {token.token_id}, expected {expected}')
  return sentencepiece_model.appended(model, (Piece(token.content, kind=CONTROL) for token in new))


def without_number_commas(pieces: Sequence[Piece]) -> list[Piece]:
  """The pieces, those that end in a digit and a comma made so improbable that they are never chosen.

  XLNet and ALBERT were trained on texts in which such a comma is a piece of its own; this is how Hugging Face's
  published files have it.
  """
  return [
    dataclasses.replace(piece, score=piece.score - _NUMBER_COMMA_PENALTY)
    if piece.text[-1:] == ',' and piece.text[-2:-1].isdigit()
    else piece
    for piece in pieces
  ]


def in_fairseq_order(pieces: Sequence[Piece]) -> list[Piece]:
  """XLM-RoBERTa's ids: `<s> <pad> </s> <unk>`, the pieces but the first three (`<unk> <s> </s>`), and `<mask>`."""
  start = [Piece(token, kind=CONTROL) for token in ('<s>', '<pad>', '</s>')]
  return [*start, Piece('<unk>', kind=UNKNOWN), *pieces[3:], Piece('<mask>', kind=CONTROL)]


def clean(text: str, cleaning: token_layouts.Cleaning | None) -> str:
  """A text as XLNet and ALBERT hand it to SentencePiece; as it is without a `cleaning`.

  Letters become small one by one, without regard to their place in the word: a capital sigma is never a final one.
  """
  if cleaning is None:
    return text
  text = text.replace('``', '"').replace("''", '"')
  if not cleaning.keep_accents and not text.isascii():
    text = ''.join(c for c in unicodedata.normalize('NFKD', text) if unicodedata.category(c)[0] != 'M')
  if cleaning.do_lower_case:
    text = text.lower() if text.isascii() else ''.join(map(str.lower, text))
  return text


def _check_t5(processor: sentencepiece.SentencePieceProcessor) -> None:
  missing = [f'{role}_id' for role in OWN_ROLES if own_id(processor, role) < 0]
  if missing:
    raise errors.UsageError(f'the model has no {" and no ".join(missing)}: expected one in the layout of T5')
