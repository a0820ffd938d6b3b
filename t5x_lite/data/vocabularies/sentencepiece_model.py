"""Serialised SentencePiece models as bytes: their pieces and charsmap read, and their pieces changed.

A model is a protocol buffer (sentencepiece_model.proto, Kudo and Richardson 2018) whose field 1 are the pieces, in the
order of their ids. Working on its bytes needs neither its schema nor the protobuf package, whose version must suit
generated code.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# Of SentencePiece.Type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_PIECES, _TRAINER_SPEC, _NORMALIZER_SPEC = 1, 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNIGRAM = 1  # of TrainerSpec.ModelType


@dataclasses.dataclass(frozen=True)
class Piece:
  """An entry of the vocabulary.

  Attributes:
    text: what it stands for; a space is U+2581.
    score: log probability.
    kind: NORMAL, UNKNOWN, CONTROL, USER_DEFINED or another type of the schema.
  """

  text: str
  score: float = 0.0
  kind: int = NORMAL


def appended(model: bytes, pieces: Iterable[Piece]) -> bytes:
  """A model with more pieces after its own: concatenated protocol buffers are merged, field by field."""
  return model + b''.join(map(_serialized, pieces))


def pieces_of(model: bytes) -> list[Piece]:
  """The pieces of a model, in the order of their ids."""
  return [_piece(value) for field, _, value in _fields(model) if field == _PIECES]


def spans_of(encoded: bytes) -> list[tuple[int, int, int]]:
  """`(id, start, end)` of each piece of an encoded text (SentencePieceText), in bytes of the text as UTF-8."""
  fields = (_fields(value) for field, _, value in _fields(encoded) if field == 2)
  pieces = ({number: value for number, _, value in piece} for piece in fields)
  return [(piece.get(2, 0), piece.get(4, 0), piece.get(5, 0)) for piece in pieces]


def charsmap_of(model: bytes) -> bytes:
  """The compiled rules of normalisation, empty where there are none."""
  return bytes(_last(_sub_message(model, _NORMALIZER_SPEC), 2, b''))


def without_charsmap(model: bytes) -> bytes:
  """A model that takes texts as they are, but for spaces."""
  spec = b''.join(raw for field, raw, _ in _fields(_sub_message(model, _NORMALIZER_SPEC)) if field != 2)
  rest = b''.join(raw for field, raw, _ in _fields(model) if field != _NORMALIZER_SPEC)
  return rest + bytes([_NORMALIZER_SPEC << 3 | _BYTES]) + _varint(len(spec)) + spec


def is_unigram(model: bytes) -> bool:
  """Whether the pieces are chosen by their scores (Kudo 2018), not by merging."""
  return _last(_sub_message(model, _TRAINER_SPEC), 3, _UNIGRAM) == _UNIGRAM


def with_pieces(model: bytes, change: Callable[[Sequence[Piece]], Sequence[Piece]]) -> bytes:
  """A model with its pieces changed and all else as it was."""
  rest = b''.join(raw for field, raw, _ in _fields(model) if field != _PIECES)
  return appended(rest, change(pieces_of(model)))


def _serialized(piece: Piece) -> bytes:
  text = piece.text.encode()
  kind = b'' if piece.kind == NORMAL else b'\x18' + bytes([piece.kind])  # as SentencePiece, which leaves NORMAL out
  message = b'\x0a' + _varint(len(text)) + text + b'\x15' + struct.pack('<f', piece.score) + kind
  return b'\x0a' + _varint(len(message)) + message


def _piece(message: bytes) -> Piece:
  text, score, kind = '', 0.0, NORMAL
  for field, _, value in _fields(message):
    if field == 1:
      text = value.decode()
    elif field == 2:
      (score,) = struct.unpack('<f', value)
    elif field == 3:
      kind = value
  return Piece(text, score, kind)


def _sub_message(model: bytes, wanted: int) -> bytes:
  return b''.join(value for field, _, value in _fields(model) if field == wanted)


def _last(message: bytes, wanted: int, default: Any) -> Any:
  return next((value for field, _, value in reversed(list(_fields(message))) if field == wanted), default)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, Any]]:
  """Number, bytes as they stand, and value of each field. Raises `ValueError` on what is no protocol buffer."""
  position = 0
  while position < len(message):
    start = position
    key, position = _read_varint(message, position)
    kind = key & 7
    value: Any
    if kind == _VARINT:
      value, position = _read_varint(message, position)
    elif kind in (_BYTES, _FIXED32, _FIXED64):
      length = {_FIXED32: 4, _FIXED64: 8}.get(kind)
      if length is None:
        length, position = _read_varint(message, position)
      value, position = message[position : position + length], position + length
    else:
      raise ValueError(f'wire type {kind}')
    if position > len(message):
      raise ValueError('truncated')
    yield key >> 3, message[start:position], value


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    if position >= len(message):
      raise ValueError('truncated')
    byte = message[position]
    value |= (byte & 0x7F) << shift
    position, shift = position + 1, shift + 7
    if byte < 0x80:
      return value, position


def _varint(value: int) -> bytes:
  encoded = bytearray()
  while value >= 0x80:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*encoded, value])
