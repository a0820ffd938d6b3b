"""The bytes that every token of a vocabulary adds to a text."""

from __future__ import annotations

import re
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import sentencepiece_model, word_marks
from t5x_lite.data.vocabularies.published_tokenizers import ByteLevelBpeTokenizer, JsonTokenizer, WordPieceTokenizer
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import SentencePieceTokenizer

_BYTE = re.compile(r'<0x([0-9A-Fa-f]{2})>')
_NO_TEXT = (sentencepiece_model.UNKNOWN, sentencepiece_model.CONTROL)


def token_bytes(tokenizer: Any) -> list[bytes]:
  """By id; of tokens without a text, such as the end of a sequence, there are none.

  Raises:
    UsageError: the tokenizer is of another library, and does not tell.
  """
  if isinstance(tokenizer, SentencePieceTokenizer):
    pieces = sentencepiece_model.pieces_of(tokenizer._processor.serialized_model_proto())
    found = [b'' if piece.kind in _NO_TEXT else _of_piece(piece.text) for piece in pieces]
    return found + [b''] * (tokenizer.vocab_size - len(found))
  if isinstance(tokenizer, ByteLevelBpeTokenizer | JsonTokenizer | WordPieceTokenizer):
    names = [tokenizer._backend.id_to_token(token) or '' for token in range(tokenizer.vocab_size)]
    special = set(tokenizer.special_ids())
    if isinstance(tokenizer, WordPieceTokenizer):
      return [b'' if n in special else (n[2:] if n.startswith('##') else f' {n}').encode() for n in names]
    byte_level = isinstance(tokenizer, ByteLevelBpeTokenizer) or any(
      name.startswith(word_marks.BYTE_LEVEL_SPACE) for name in names
    )
    of_name = _of_byte_level if byte_level else _of_piece
    return [b'' if name in special else of_name(name) for name in names]
  raise errors.UsageError(f'{tokenizer} does not tell the texts of its tokens, which stop_strings need')


def _of_piece(piece: str) -> bytes:
  """Of SentencePiece."""
  byte = _BYTE.fullmatch(piece)
  return bytes([int(byte[1], 16)]) if byte else piece.replace(word_marks.SENTENCEPIECE_SPACE, ' ').encode()


def _of_byte_level(name: str) -> bytes:
  """Of byte-level BPE, whose alphabet stands for bytes."""
  if all(character in _BYTES for character in name):
    return bytes(_BYTES[character] for character in name)
  return name.encode()


def _alphabet() -> dict[str, int]:
  """The byte that each character stands for: printable ones for themselves, the others from 256 on (GPT-2)."""
  printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _alphabet()
