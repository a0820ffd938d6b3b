"""The vocabulary of the embedded corpus, for every family of models, made without any extra installed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
from collections.abc import Iterator

from t5x_lite.core import errors, paths
from t5x_lite.data import build_lock, embedded, sources
from t5x_lite.data.vocabularies import token_layouts, training
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import MODEL_FILE, SentencePieceTokenizer

DEFAULT_SIZE = 8000

_log = logging.getLogger(__name__)


def embedded_vocabulary(
  size: int = DEFAULT_SIZE, extra_ids: int | None = None, layout: str = 't5'
) -> SentencePieceTokenizer:
  """The vocabulary of the embedded corpus, trained on its training documents (some seconds) when it is first read.

  The same corpus, size and release of SentencePiece give the same vocabulary. As in T5's own, a character that it does
  not have is one unknown id: byte fallback would spend 256 ids on text that hardly occurs here.

  Args:
    size: number of pieces: pad, end of sequence and unknown included, other special tokens and sentinels not.
    extra_ids: number of sentinels, which come on top, last of all; None is 100 in T5's layout and none in others.
    layout: family of the model; its special tokens (`[CLS]`, `[SEP]` and `[MASK]` for 'bert') come on top, right after
      the pieces, and its frames are used. The ids of the pieces are those of T5's layout: see `token_layouts.LAYOUTS`.
  """
  if size < 1 or (extra_ids or 0) < 0:
    raise errors.UsageError(f'embedded_vocabulary: got size={size} and extra_ids={extra_ids}, expected size >= 1')
  token_layouts.layout(layout)
  return SentencePieceTokenizer(ModelPath(size), extra_ids, layout)


@dataclasses.dataclass(frozen=True)
class ModelPath(os.PathLike[str]):
  """The path of the model, which is made when somebody asks for it: a run that is refused makes none.

  Attributes:
    size: number of pieces.
  """

  size: int

  def __str__(self) -> str:
    return f'the embedded vocabulary of {self.size} pieces'

  def __fspath__(self) -> str:
    """The path of the file, which is there by then. Raises `UsageError` where it cannot be trained."""
    import sentencepiece

    key = hashlib.sha256(f'{embedded.fingerprint()} {self.size} {sentencepiece.__version__}'.encode()).hexdigest()[:16]
    folder = build_lock.build_once(paths.cache_dir() / 'vocabularies' / key, functools.partial(_train, self.size))
    return os.fspath(folder / MODEL_FILE)


def _train(size: int, folder: pathlib.Path) -> None:
  """Trains `folder/spiece.model`."""
  _log.info('training a vocabulary of %d pieces on the embedded corpus', size)
  (folder / MODEL_FILE).write_bytes(training.train_sentencepiece(_training_lines(), size, 'the embedded corpus'))


def _training_lines() -> Iterator[str]:
  records = sources.EmbeddedSource('text').random_access('train')
  for index in range(len(records)):
    yield from records[index]['text'].splitlines()
