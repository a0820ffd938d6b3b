"""WordPiece (BERT), byte-level BPE (GPT-2, RoBERTa) and tokenizer.json, by the package `tokenizers` (extra `hf`).

WordPiece: Wu et al. 2016, in BERT's form (Devlin et al. 2019). Byte-level BPE: Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import offsets, token_layouts, tokenizer_files, word_marks
from t5x_lite.data.vocabularies.tokenizers import LayoutTokenizer

if TYPE_CHECKING:
  import tokenizers


@dataclasses.dataclass(frozen=True)
class _PublishedTokenizer(LayoutTokenizer):
  """What the three below share: a `tokenizers.Tokenizer`, opened at first use.

  Attributes:
    path: its first file.
    layout: the family whose special tokens and frames these are; see `token_layouts.LAYOUTS`.
    special_tokens_in_text: whether `[SEP]` and the like in a text become their ids, as in Hugging Face, or are text.
  """

  path: str
  layout: str | token_layouts.Layout = 'bert'
  special_tokens_in_text: bool = False

  def __str__(self) -> str:
    return self.path

  @functools.cached_property
  def vocab_size(self) -> int:
    """Number of ids, added tokens included."""
    return self._backend.get_vocab_size()

  def token_id(self, token: str) -> int | None:
    """Id of exactly this token, or None if the vocabulary does not have it."""
    return self._backend.token_to_id(token)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hex SHA-256 of the files, and of all else that ids depend on."""
    digest = hashlib.sha256(repr((type(self).__name__, self._options(), self.special_tokens_in_text)).encode())
    family = self.family
    digest.update(repr((family.roles, family.single, family.pair, family.added_tokens)).encode())
    for path in self._paths():
      digest.update(hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()

  def encode(self, text: str) -> list[int]:
    """Ids of `text`, without special tokens around them."""
    return self._backend.encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text, on the package's own threads."""
    return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[offsets.Span]]:
    """`encode`, and where in `text` each piece stands; pieces of one character (bytes) all stand where it does."""
    encoding = self._backend.encode(text, add_special_tokens=False)
    return encoding.ids, offsets.trimmed(text, encoding.offsets)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids` up to the first end of sequence, less what frames it; ids beyond the vocabulary read as unknown."""
    frame = {*self.template_ids().values(), self.pad_id} - {self.unk_id}
    return self._backend.decode([i for i in self._known(ids) if i not in frame], skip_special_tokens=False)

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes the vocabulary's own files, `tokenizer.json` and what transformers needs beside them."""
    folder = tokenizer_files.make_folder(directory)
    content = json.loads(self._backend.to_str())
    if content['model']['type'] != 'Unigram':  # whose file transformers does not know
      self._backend.model.save(os.fspath(folder))
    tokenizer_files.write_json(folder / tokenizer_files.JSON_FILE, self._framed(content))
    tokenizer_files.write_config(folder, self, **self._options())

  @functools.cached_property
  def _backend(self) -> tokenizers.Tokenizer:
    library = _library(self.path)
    for path in self._paths():
      _read(path)
    try:
      backend = self._open(library)
    except errors.UsageError:
      raise
    except Exception as error:  # the package raises nothing narrower
      raise errors.UsageError(f'{self.path} is no vocabulary of this kind: {" ".join(str(error).split())}') from error
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = not self.special_tokens_in_text
    _add_tokens(library, backend, self.family)
    return backend

  def _continuing(self) -> np.ndarray:
    pieces = [self._backend.id_to_token(token_id) or '' for token_id in range(self.vocab_size)]
    return word_marks.of_json(pieces, json.loads(self._backend.to_str()))

  @abc.abstractmethod
  def _open(self, library: ModuleType) -> tokenizers.Tokenizer:
    """The vocabulary with its own rules, without special tokens."""

  def _paths(self) -> tuple[str, ...]:
    return (self.path,)

  def _options(self) -> dict[str, Any]:
    """Arguments of transformers' class."""
    return {}

  def _framed(self, content: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizer.json` with the family's frames."""
    return {**content, 'post_processor': tokenizer_files.post_processor(self)}


@dataclasses.dataclass(frozen=True)
class WordPieceTokenizer(_PublishedTokenizer):
  """BERT's WordPiece.

  Attributes:
    path: `vocab.txt`, one piece a line.
    layout: as 'bert', whose special tokens these are.
    special_tokens_in_text: whether `[SEP]` and the like in a text become their ids, as in Hugging Face, or are text.
    do_lower_case: lower-cases, as the uncased models were trained.
    strip_accents: drops accents; None does so where `do_lower_case` does its part.
    tokenize_chinese_chars: makes every CJK ideograph a word of its own.
  """

  do_lower_case: bool = True
  strip_accents: bool | None = None
  tokenize_chinese_chars: bool = True

  def _open(self, library: ModuleType) -> tokenizers.Tokenizer:
    lines = _read(self.path).decode('utf-8').split('\n')
    vocabulary = {line.removesuffix('\r'): index for index, line in enumerate(lines[:-1] if not lines[-1] else lines)}
    unknown = self.family.roles['unk']
    if unknown not in vocabulary:
      raise errors.UsageError(f'{self.path} has no {unknown!r}: expected the vocab.txt of a WordPiece model')
    backend = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = library.normalizers.BertNormalizer(
      clean_text=True,
      handle_chinese_chars=self.tokenize_chinese_chars,
      strip_accents=self.strip_accents,
      lowercase=self.do_lower_case,
    )
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    backend.decoder = library.decoders.WordPiece(prefix='##')
    return backend

  def _options(self) -> dict[str, Any]:
    names = ('do_lower_case', 'strip_accents', 'tokenize_chinese_chars')
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class ByteLevelBpeTokenizer(_PublishedTokenizer):
  """GPT-2's byte-level BPE, RoBERTa's too.

  Attributes:
    path: `vocab.json`, from piece to id.
    layout: 'gpt2' or 'roberta', whose special tokens these are.
    special_tokens_in_text: whether `<|endoftext|>` and the like in a text become their ids, as in Hugging Face.
    merges_path: `merges.txt`, two pieces a line; None looks for it beside the vocabulary.
    add_prefix_space: puts a space before a text that has none, so that its first word is as any other.
  """

  layout: str | token_layouts.Layout = 'gpt2'
  merges_path: str | None = None
  add_prefix_space: bool = False

  def _open(self, library: ModuleType) -> tokenizers.Tokenizer:
    vocabulary, merges = library.models.BPE.read_file(*self._paths())
    model = library.models.BPE(vocabulary, merges, continuing_subword_prefix='', end_of_word_suffix='', fuse_unk=False)
    backend = library.Tokenizer(model)
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=self.add_prefix_space)
    backend.decoder = library.decoders.ByteLevel()
    return backend

  def _paths(self) -> tuple[str, ...]:
    merges = self.merges_path or os.fspath(pathlib.Path(self.path).with_name('merges.txt'))
    return self.path, merges

  def _options(self) -> dict[str, Any]:
    return {'add_prefix_space': self.add_prefix_space}


@dataclasses.dataclass(frozen=True)
class JsonTokenizer(_PublishedTokenizer):
  """Whatever a `tokenizer.json` describes, as it stands.

  Attributes:
    path: `tokenizer.json`.
    layout: the family whose special tokens and frames these are.
    special_tokens_in_text: whether `[SEP]` and the like in a text become their ids, as in Hugging Face, or are text.
    options: arguments of transformers' class, to be saved with it.
  """

  options: tuple[tuple[str, Any], ...] = ()

  def _open(self, library: ModuleType) -> tokenizers.Tokenizer:
    return library.Tokenizer.from_str(_read(self.path).decode('utf-8'))

  def _options(self) -> dict[str, Any]:
    return dict(self.options)

  def _framed(self, content: dict[str, Any]) -> dict[str, Any]:
    return content


def _library(path: str) -> ModuleType:
  try:
    import tokenizers
  except ImportError as error:
    raise errors.UsageError(f"{path} needs the package tokenizers: pip install 't5x_lite[hf]'") from error
  return tokenizers


def _read(path: str) -> bytes:
  try:
    return pathlib.Path(path).expanduser().read_bytes()
  except OSError as error:
    raise errors.UsageError(f'cannot read the vocabulary {path}: {error.strerror}') from error


def _add_tokens(library: ModuleType, backend: tokenizers.Tokenizer, family: token_layouts.Layout) -> None:
  """Makes the family's special tokens special, and adds the added ones. Raises `UsageError` if an id is not theirs."""
  known = {token.content for token in backend.get_added_tokens_decoder().values()}
  added = {token.content for token in family.added_tokens}
  for token in family.special_tokens:
    if token not in known | added and backend.token_to_id(token) is not None:
      strip = token == family.mask and family.name == 'roberta'  # as fairseq: the space before it is its own
      backend.add_special_tokens([library.AddedToken(token, special=True, normalized=False, lstrip=strip)])
  for new in sorted(family.added_tokens, key=lambda new: new.token_id):
    flags = dataclasses.asdict(new)
    content, token_id = flags.pop('content'), flags.pop('token_id')
    backend.add_tokens([library.AddedToken(content, **flags)])
    if backend.token_to_id(content) != token_id:
      raise errors.UsageError(f'the added token {content!r} has id {token_id}, expected {backend.token_to_id(content)}')
