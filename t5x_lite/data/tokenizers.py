"""Text to ids and back: SentencePiece models in T5's layout, and the vocabulary of the embedded corpus.

T5's layout (Raffel et al. 2020; seqio's SentencePieceVocabulary): pad 0, end of sequence 1, unknown 2, then the pieces,
then the sentinels, counting down: `<extra_id_0>` has the last id of all.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import logging
import os
import pathlib
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from t5x_lite.core import errors, paths
from t5x_lite.data import build_lock, embedded, sources

if TYPE_CHECKING:
  import sentencepiece

DEFAULT_SIZE = 8000
EXTRA_IDS = 100
MODEL_FILE = 'spiece.model'

_SENTINEL_START = '<extra_id_'
_USER_DEFINED = 4  # of sentencepiece_model.proto's SentencePiece.Type
_log = logging.getLogger(__name__)


class Tokenizer(Protocol):
  """What the data pipeline and the decoding need of a vocabulary."""

  @property
  def vocab_size(self) -> int:
    """Number of ids, sentinels included; embedding tables may have more rows."""

  @property
  def pad_id(self) -> int:
    """Id of padding."""

  @property
  def eos_id(self) -> int:
    """Id of the end of a sequence."""

  @property
  def unk_id(self) -> int:
    """Id of what the vocabulary cannot spell."""

  @property
  def num_sentinels(self) -> int:
    """Number of sentinels."""

  @property
  def fingerprint(self) -> str:
    """Hex digest: equal fingerprints mean equal ids for every text."""

  def sentinel_id(self, index: int) -> int:
    """Id of `<extra_id_{index}>`."""

  def encode(self, text: str) -> list[int]:
    """Ids of `text`, without an end of sequence."""

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text, faster than one by one."""

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids` up to the first end of sequence; ids beyond the vocabulary read as unknown."""


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
  """A SentencePiece model with T5's sentinels, opened at first use.

  Attributes:
    path: the model file, such as T5's `spiece.model`.
    extra_ids: number of sentinels to add after the pieces. A model that already has sentinels is used as it is.
  """

  path: str
  extra_ids: int = EXTRA_IDS

  @property
  def vocab_size(self) -> int:
    """Number of ids, sentinels included."""
    return self._processor.get_piece_size()

  @property
  def pad_id(self) -> int:
    """Id of padding: 0 in T5's layout."""
    return self._processor.pad_id()

  @property
  def eos_id(self) -> int:
    """Id of the end of a sequence: 1 in T5's layout."""
    return self._processor.eos_id()

  @property
  def unk_id(self) -> int:
    """Id of what the vocabulary cannot spell: 2 in T5's layout."""
    return self._processor.unk_id()

  @property
  def num_sentinels(self) -> int:
    """Number of sentinels."""
    return len(self._sentinels)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hex SHA-256 of the serialised model, sentinels included."""
    return hashlib.sha256(self._processor.serialized_model_proto()).hexdigest()

  def sentinel_id(self, index: int) -> int:
    """Id of `<extra_id_{index}>`. Raises `UsageError` where there are not so many."""
    if not 0 <= index < self.num_sentinels:
      raise errors.UsageError(
        f'got sentinel {index}, but {self.path} has {self.num_sentinels} sentinels: '
        'expected fewer noise spans in an example, or more extra_ids'
      )
    return self._sentinels[index]

  def encode(self, text: str) -> list[int]:
    """Ids of `text`, without an end of sequence; `<extra_id_3>` in the text becomes that sentinel's id.

    White space before a sentinel belongs to it, as in Hugging Face's T5: `a <extra_id_0> c` has the ids that span
    corruption makes of `a b c`, where seqio has one more, for the space.
    """
    ids = self._processor.encode(text)
    return self._without_spaces(ids) if _SENTINEL_START in text else ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text, on SentencePiece's own threads."""
    encoded = self._processor.encode(list(texts))
    for row, text in enumerate(texts):
      if _SENTINEL_START in text:
        encoded[row] = self._without_spaces(encoded[row])
    return encoded

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids` up to the first end of sequence, as seqio decodes: ids without a piece read as unknown."""
    known = []
    for token in map(int, ids):
      if token == self.eos_id:
        break
      known.append(token if 0 <= token < self.vocab_size else self.unk_id)
    return self._processor.decode(known)

  def _without_spaces(self, ids: list[int]) -> list[int]:
    """`ids` less every lone space that stands before a sentinel."""
    space, sentinels = self._processor.piece_to_id('\u2581'), frozenset(self._sentinels)
    following = [*ids[1:], self.pad_id]
    return [token for token, after in zip(ids, following, strict=True) if token != space or after not in sentinels]

  @functools.cached_property
  def _processor(self) -> sentencepiece.SentencePieceProcessor:
    import sentencepiece

    try:
      model = pathlib.Path(self.path).expanduser().read_bytes()
      processor = sentencepiece.SentencePieceProcessor()
      processor.load_from_serialized_proto(model)
      if processor.piece_to_id(_sentinel(0)) == processor.unk_id():
        processor.load_from_serialized_proto(with_sentinels(model, self.extra_ids))
    except OSError as error:
      raise errors.UsageError(f'cannot read the SentencePiece model {self.path}: {error.strerror}') from error
    except RuntimeError as error:
      raise errors.UsageError(f'{self.path} is no SentencePiece model') from error
    missing = [name for name in ('pad_id', 'eos_id', 'unk_id') if getattr(processor, name)() < 0]
    if missing:
      raise errors.UsageError(f'{self.path} has no {" and no ".join(missing)}: expected a model in the layout of T5')
    return processor

  @functools.cached_property
  def _sentinels(self) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, ..."""
    found: list[int] = []
    while (token := self._processor.piece_to_id(_sentinel(len(found)))) != self.unk_id:
      found.append(token)
    return found


def with_sentinels(model: bytes, extra_ids: int) -> bytes:
  """A serialised SentencePiece model with `<extra_id_{extra_ids - 1}>` ... `<extra_id_0>` after its pieces.

  `user_defined_symbols` of the trainer would put them first. Concatenated protocol buffers are merged: appended entries
  of the repeated field `pieces` become its last ones. So neither the model's schema nor the protobuf package, whose
  version must suit generated code, is needed.
  """
  return model + b''.join(_piece(_sentinel(index).encode()) for index in reversed(range(extra_ids)))


def embedded_vocabulary(size: int = DEFAULT_SIZE, extra_ids: int = EXTRA_IDS) -> SentencePieceTokenizer:
  """The vocabulary of the embedded corpus, trained on first use (some seconds) on its training documents.

  The same corpus, size and release of SentencePiece give the same vocabulary. As in T5's own, a character that it does
  not have is one unknown id: byte fallback would spend 256 ids on text that hardly occurs here.

  Args:
    size: number of pieces: pad, end of sequence and unknown included, sentinels not.
    extra_ids: number of sentinels, which come on top: `vocab_size = size + extra_ids`.
  """
  import sentencepiece

  if size < 1 or extra_ids < 0:
    raise errors.UsageError(f'embedded_vocabulary: got size={size} and extra_ids={extra_ids}, expected size >= 1')
  key = hashlib.sha256(f'{embedded.fingerprint()} {size} {sentencepiece.__version__}'.encode()).hexdigest()[:16]
  folder = build_lock.build_once(paths.cache_dir() / 'vocabularies' / key, functools.partial(_train, size))
  return SentencePieceTokenizer(os.fspath(folder / MODEL_FILE), extra_ids)


def _train(size: int, folder: pathlib.Path) -> None:
  """Trains `folder/spiece.model` as T5's was: unigram pieces, NFKC, no beginning of sequence (Kudo 2018)."""
  import sentencepiece

  _log.info('training a vocabulary of %d pieces on the embedded corpus', size)
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_training_lines(),
      model_writer=model,
      model_type='unigram',
      vocab_size=size,
      character_coverage=0.9999,
      required_chars=string.ascii_letters + string.digits + string.punctuation,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      shuffle_input_sentence=False,
      num_threads=1,  # the sums of several threads, and so the pieces, depend on their number
      minloglevel=2,
    )
  except RuntimeError as error:
    reason = str(error).rpartition('] ')[2]  # behind the source line and the condition that failed
    raise errors.UsageError(f'cannot train a vocabulary of {size} pieces on the embedded corpus: {reason}') from error
  (folder / MODEL_FILE).write_bytes(model.getvalue())


def _training_lines() -> Iterator[str]:
  records = sources.EmbeddedSource('text').random_access('train')
  for index in range(len(records)):
    yield from records[index]['text'].splitlines()


def _sentinel(index: int) -> str:
  return f'{_SENTINEL_START}{index}>'


def _piece(text: bytes) -> bytes:
  """Field 1 of a ModelProto: a SentencePiece of `text` (field 1), score 0 (field 2) and type USER_DEFINED (field 3)."""
  message = b'\x0a' + bytes([len(text)]) + text + b'\x15' + bytes(4) + b'\x18' + bytes([_USER_DEFINED])
  return b'\x0a' + bytes([len(message)]) + message
