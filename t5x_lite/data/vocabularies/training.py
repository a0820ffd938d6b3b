"""Training of a SentencePiece vocabulary in T5's layout of ids: padding 0, end of sequence 1, unknown 2."""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Sequence

from t5x_lite.core import errors


def train_sentencepiece(
  lines: Iterable[str], size: int, whose: str, *, symbols: Sequence[str] = (), byte_fallback: bool = False
) -> bytes:
  """A model trained as T5's was: unigram pieces, NFKC, no beginning of sequence (Kudo 2018; Raffel et al. 2020).

  The same lines, size and release of SentencePiece give the same model.

  Args:
    lines: the text. SentencePiece leaves out those of more than 4192 bytes.
    size: number of pieces.
    whose: what the text is, for the message of an error.
    symbols: texts that are one piece each, such as the tags of languages.
    byte_fallback: whether characters without a piece are written as bytes, with 256 of the pieces, as in mT5; without,
      they are one unknown id, as in T5.

  Returns:
    The serialised model, what `spiece.model` holds.

  Raises:
    UsageError: the text has too few different pieces for this size, or too many characters.
  """
  import sentencepiece

  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines),
      model_writer=model,
      model_type='unigram',
      vocab_size=size,
      character_coverage=0.9999,
      required_chars=string.ascii_letters + string.digits + string.punctuation,
      user_defined_symbols=list(symbols),
      byte_fallback=byte_fallback,
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
    raise errors.UsageError(f'cannot train a vocabulary of {size} pieces on {whose}: {reason}') from error
  return model.getvalue()
