"""SentencePiece models in the layouts of T5, XLNet, ALBERT and XLM-RoBERTa, or dressed in any other family's.

T5's layout (Raffel et al. 2020; seqio's SentencePieceVocabulary): pad 0, end of sequence 1, unknown 2, then the pieces,
then the sentinels, counting down: `<extra_id_0>` has the last id of all.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import (
  charsmap,
  offsets,
  sentencepiece_layout,
  sentencepiece_model,
  token_layouts,
  tokenizer_files,
  word_marks,
)
from t5x_lite.data.vocabularies.tokenizers import SENTINEL_START, LayoutTokenizer

if TYPE_CHECKING:
  import sentencepiece

MODEL_FILE = 'spiece.model'

_DEFAULT_LAYOUT = 't5'


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer(LayoutTokenizer):
  """A SentencePiece model with a family's special tokens, opened at first use.

  Special tokens of the layout that the model lacks come after its pieces, sentinels after them, so that the ids of the
  pieces stay.

  Attributes:
    path: the model file, such as T5's `spiece.model`.
    extra_ids: number of sentinels to add after the pieces; None adds 100 in T5's layout and none in others. A model
      that already has sentinels keeps those.
    layout: the family whose special tokens and frames these are; see `token_layouts.LAYOUTS`.
    special_tokens_in_text: whether `</s>` and the like in a text become their ids, as in Hugging Face, or are text, as
      in seqio. Sentinels always become theirs.
    hugging_face_rules: whether white space and combining characters are taken as by Hugging Face's `tokenizers`, or as
      by SentencePiece, with which the models were trained; see `charsmap` for the few texts on which they differ.
  """

  path: str | os.PathLike[str]
  extra_ids: int | None = None
  layout: str | token_layouts.Layout = _DEFAULT_LAYOUT
  special_tokens_in_text: bool = False
  hugging_face_rules: bool = False

  def __str__(self) -> str:
    return str(self.path)

  @functools.cached_property
  def vocab_size(self) -> int:
    """Number of ids, sentinels included."""
    return self._processor.get_piece_size()

  def token_id(self, token: str) -> int | None:
    """Id of exactly this token, or None if the vocabulary does not have it."""
    return self._processor.piece_to_id(token) if sentencepiece_layout.has(self._processor, token) else None

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hex SHA-256 of the serialised model, sentinels included, and of what is done to a text before it sees it."""
    digest = hashlib.sha256(self._processor.serialized_model_proto())
    family, plain = self.family, self._ids_in_text.keys() - self._sentinel_names.keys()
    if plain or self.hugging_face_rules or family.name != _DEFAULT_LAYOUT:
      rules = (family.name, family.single, family.pair, family.cleaning, sorted(plain), self.hugging_face_rules)
      digest.update(repr(rules).encode())
    return digest.hexdigest()

  def encode(self, text: str) -> list[int]:
    """Ids of `text`, without an end of sequence; `<extra_id_3>` in the text becomes that sentinel's id.

    What stands between sentinels is encoded on its own, as in Hugging Face's T5: white space before a sentinel belongs
    to it, and what follows begins a word. So `a <extra_id_0> c` has the ids that span corruption makes of `a b c`.
    """
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text, on SentencePiece's own threads."""
    rows = [list(self._sections(text)) for text in texts]
    encoded = iter(self._processor.encode([part for row in rows for part in row if isinstance(part, str)]))
    found = [[next(encoded) if isinstance(part, str) else part for part in row] for row in rows]
    return [parts[0] if len(parts) == 1 else [i for part in parts for i in part] for parts in found]

  def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
    """`encode` of each text, int32, read-only: SentencePiece writes the arrays itself, and never a list."""
    if self._leaves_texts_alone and not any(map(self._tokens_in_text.search, texts)):
      return self._processor.encode(list(texts), out_type='numpy')
    rows = [list(self._sections(text)) for text in texts]
    parts = [part for row in rows for part in row if isinstance(part, str)]
    encoded = iter(self._processor.encode(parts, out_type='numpy'))
    found = [[next(encoded) if isinstance(part, str) else np.array(part, np.int32) for part in row] for row in rows]
    return [arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in found]

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[offsets.Span]]:
    """`encode`, and where in `text` each piece stands: all of a cluster that was normalised where the cluster does.

    Of a character without a piece of its own, spelt in bytes, the last byte stands for it, the others for nothing.
    """
    ids: list[int] = []
    spans: list[offsets.Span] = []
    for start, part, token_id in self._parts(text):
      if token_id is not None:
        ids.append(token_id)
        spans.append((start, start + len(part)))
        continue
      origins = offsets.Origins(part).changed(offsets.cleaned_units(part, self.family.cleaning))
      processor = self._processor
      if self.hugging_face_rules and charsmap.differs(origins.text):
        origins, processor = origins.changed(self._charsmap.units(origins.text)), self._plain_processor
      normal = origins.text.translate(self._charsmap.white_space) if self.hugging_face_rules else origins.text
      pieces = sentencepiece_model.spans_of(processor.encode(normal, out_type='serialized_proto'))
      ids += [piece_id for piece_id, _, _ in pieces]
      for begin, end in offsets.in_characters(normal, [(begin, end) for _, begin, end in pieces]):
        first, last = origins.span(begin, end)
        spans.append((start + first, start + last))
    return ids, offsets.trimmed(text, spans)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids` up to the first end of sequence, as seqio decodes: ids without a piece read as unknown."""
    return self._processor.decode(self._known(ids))

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes `spiece.model` as it is, and what `load_tokenizer` and transformers need to see in it what this does."""
    folder = tokenizer_files.make_folder(directory)
    options = {'extra_ids': self.num_sentinels} if self.num_sentinels else {}
    tokenizer_files.write_config(folder, self, generic=self._is_unpublished, **options)
    name = tokenizer_files.FAIRSEQ_MODEL_FILE if self.family.name == 'xlm-roberta' else MODEL_FILE
    (folder / name).write_bytes(self._model_file)
    model = self._processor.serialized_model_proto()
    if sentencepiece_model.is_unigram(model):
      tokenizer_files.write_unigram_json(folder, self, model)

  @functools.cached_property
  def unk_id(self) -> int:
    """Id of what the vocabulary cannot spell."""
    return self._processor.unk_id()

  @functools.cached_property
  def eos_id(self) -> int:
    """Id of the end of a sequence: the layout's, or else the model's own."""
    return self._own_id('eos') if self.family.eos is None and self._own_id('eos') >= 0 else super().eos_id

  @functools.cached_property
  def pad_id(self) -> int:
    """Id of padding: the layout's, or else the model's own."""
    return self._own_id('pad') if self.family.pad is None and self._own_id('pad') >= 0 else super().pad_id

  def role_tokens(self) -> dict[str, str]:
    """Texts of the special tokens by role, as the model has them."""
    return {role: self._processor.id_to_piece(self._id_of_role(role)) for role in self.family.roles}

  def _id_of_role(self, role: str) -> int:
    """Models may call pad, end and unknown what they like; what the layout calls alike is one here too."""
    token = getattr(self.family, role)
    if token is not None and self.token_id(token) is None:
      for own in sentencepiece_layout.OWN_ROLES:
        if getattr(self.family, own) == token:
          return self._own_id(own)
    return super()._id_of_role(role)

  def _own_id(self, role: str) -> int:
    """Id of pad, end or unknown by the model's own account, -1 if it has none."""
    return sentencepiece_layout.own_id(self._processor, role)

  def _continuing(self) -> np.ndarray:
    pieces = sentencepiece_model.pieces_of(self._processor.serialized_model_proto())
    continues = word_marks.without_prefix([piece.text for piece in pieces], word_marks.SENTENCEPIECE_SPACE)
    of_no_word = (sentencepiece_model.UNKNOWN, sentencepiece_model.CONTROL)
    return continues & np.array([piece.kind not in of_no_word for piece in pieces])

  @property
  def _is_unpublished(self) -> bool:
    """Whether transformers' class of this family would give other ids than `tokenizer.json`, which says it all."""
    family = self.family
    if family.name == 't5':
      return self.unk_id != 2
    if family.name == 'xlnet':
      return family.cleaning is not None and family.cleaning.keep_accents
    return family.name not in ('albert', 'xlm-roberta')

  def _sections(self, text: str) -> Iterator[str | list[int]]:
    """What SentencePiece is to encode, and ids where it must not: of tokens in the text, and of odd clusters."""
    for _, part, token_id in self._parts(text):
      yield self._section(part) if token_id is None else [token_id]

  def _parts(self, text: str) -> Iterator[tuple[int, str, int | None]]:
    """A text cut at the tokens in it: where each part begins, the part, and its id if it is a token."""
    start = 0
    for match in self._tokens_in_text.finditer(text):
      token_id = self._ids_in_text.get(match.group())
      if token_id is not None:
        yield start, text[start : match.start()], None
        yield match.start(), match.group(), token_id
        start = match.end()
    yield start, text[start:], None

  @functools.cached_property
  def _leaves_texts_alone(self) -> bool:
    return self.family.cleaning is None and not self.hugging_face_rules

  def _section(self, text: str) -> str | list[int]:
    text = sentencepiece_layout.clean(text, self.family.cleaning)
    if not self.hugging_face_rules:
      return text
    if charsmap.differs(text):
      return self._plain_processor.encode(self._charsmap.normalise(text).translate(self._charsmap.white_space))
    return text.translate(self._charsmap.white_space)

  @property
  def _sentinel_names(self) -> dict[str, int]:
    return {f'{SENTINEL_START}{index}>': token_id for index, token_id in enumerate(self._sentinels)}

  @functools.cached_property
  def _ids_in_text(self) -> dict[str, int]:
    found = dict(self._sentinel_names)
    special = self.special_tokens_in_text
    found |= {token.content: token.token_id for token in self.family.added_tokens if special or not token.special}
    return found | (self.special_ids() if special else {})

  @functools.cached_property
  def _tokens_in_text(self) -> re.Pattern[str]:
    """Finds the longest of the tokens; all sentinels, and some that do not exist, with one branch."""
    tokens = sorted((token for token in self._ids_in_text if not token.startswith(SENTINEL_START)), key=len)
    return re.compile('|'.join([rf'{SENTINEL_START}\d+>', *map(re.escape, reversed(tokens))]))

  @functools.cached_property
  def _model_file(self) -> bytes:
    try:
      return pathlib.Path(self.path).expanduser().read_bytes()
    except OSError as error:
      raise errors.UsageError(f'cannot read the SentencePiece model {self.path}: {error.strerror}') from error

  @functools.cached_property
  def _processor(self) -> sentencepiece.SentencePieceProcessor:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
      processor.load_from_serialized_proto(self._model_file)
      model = sentencepiece_layout.with_layout(self._model_file, processor, self.family, self.extra_ids)
      processor.load_from_serialized_proto(model)
    except errors.UsageError as error:
      raise errors.UsageError(f'{self.path}: {error}') from error
    except (RuntimeError, ValueError) as error:
      raise errors.UsageError(f'{self.path} is no SentencePiece model') from error
    return processor

  @functools.cached_property
  def _charsmap(self) -> charsmap.Charsmap:
    return charsmap.Charsmap(sentencepiece_model.charsmap_of(self._model_file))

  @functools.cached_property
  def _plain_processor(self) -> sentencepiece.SentencePieceProcessor:
    """The same pieces for texts that are normalised already."""
    import sentencepiece

    model = sentencepiece_model.without_charsmap(self._processor.serialized_model_proto())
    processor = sentencepiece.SentencePieceProcessor()
    processor.load_from_serialized_proto(model)
    return processor
