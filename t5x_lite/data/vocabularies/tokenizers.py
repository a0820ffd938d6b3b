"""What the data pipeline, the objectives and the decoding need of a vocabulary, and what all of ours share.

Of a SentencePiece model: `sentencepiece_tokenizer`; trained on the embedded corpus: `embedded_vocabulary`; WordPiece,
byte-level BPE and tokenizer.json: `published_tokenizers`; whatever a Hugging Face directory holds: `load_tokenizer`.
"""

from __future__ import annotations

import abc
import functools
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import token_layouts

SENTINEL_START = '<extra_id_'


class Tokenizer(Protocol):
  """What the data pipeline, the objectives and the decoding need of a vocabulary."""

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
  def bos_id(self) -> int:
    """Id of the beginning of a sequence. Raises `UsageError` if the family has none, as do the next three."""

  @property
  def cls_id(self) -> int:
    """Id of the token that stands for the whole sequence."""

  @property
  def sep_id(self) -> int:
    """Id of what separates two texts."""

  @property
  def mask_id(self) -> int:
    """Id of what stands for a masked token."""

  @property
  def num_sentinels(self) -> int:
    """Number of sentinels."""

  @property
  def padding_side(self) -> str:
    """Where the family's models expect padding: 'left' or 'right'."""

  @property
  def model_max_length(self) -> int | None:
    """Tokens that the published model takes, special ones included; None if there is no limit."""

  @property
  def fingerprint(self) -> str:
    """Hex digest: equal fingerprints mean equal ids for every text."""

  @property
  def piece_continues(self) -> np.ndarray:
    """bool `[vocab_size]`: whether a piece goes on with a word (see `word_marks`); special tokens do not."""

  def sentinel_id(self, index: int) -> int:
    """Id of `<extra_id_{index}>`."""

  def encode(self, text: str) -> list[int]:
    """Ids of `text`, without special tokens around them."""

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """`encode`, and where in `text` each piece stands: from which character to before which (see `offsets`)."""

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of each text, faster than one by one."""

  def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
    """`encode` of each text, as arrays, int32, which need not be writeable."""

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids` up to the first end of sequence; ids beyond the vocabulary read as unknown."""

  def with_special_tokens(
    self, ids: Sequence[int], pair: Sequence[int] | None = None, max_length: int | None = None
  ) -> tuple[list[int], list[int]]:
    """Ids of one text or of two in the family's frame, and their token types."""

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes the files of Hugging Face, which `load_tokenizer` and transformers' `AutoTokenizer` read."""


class LayoutTokenizer(abc.ABC):
  """Special tokens by role, sentinels and frames, for a vocabulary that can look up a token.

  Subclasses are frozen dataclasses with a field `layout`, the family or its name. Ids are looked up once: objectives
  ask for them with every example.
  """

  layout: str | token_layouts.Layout

  @property
  @abc.abstractmethod
  def vocab_size(self) -> int:
    """Number of ids, sentinels included."""

  @abc.abstractmethod
  def token_id(self, token: str) -> int | None:
    """Id of exactly this token, or None if the vocabulary does not have it."""

  @abc.abstractmethod
  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens around them."""

  def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
    """`encode_batch` as arrays, int32, which need not be writeable."""
    return [np.array(ids, np.int32) for ids in self.encode_batch(texts)]

  @abc.abstractmethod
  def _continuing(self) -> np.ndarray:
    """bool `[vocab_size]`: which pieces go on with a word; of special tokens it need not be right."""

  @functools.cached_property
  def piece_continues(self) -> np.ndarray:
    """bool `[vocab_size]`, read-only: whether a piece goes on with a word; special tokens and sentinels do not.

    Raises:
      UsageError: a piece of this vocabulary does not tell; see `word_marks`.
    """
    continues = self._continuing()
    roles = (self._id_of_role(role) for role in self.family.roles)
    added = (token.token_id for token in self.family.added_tokens)
    continues[[*self.special_ids().values(), *self._sentinels, *roles, *added]] = False
    continues.flags.writeable = False
    return continues

  @property
  def family(self) -> token_layouts.Layout:
    """The names and frames of this tokenizer. Raises `UsageError` for the name of none."""
    return token_layouts.layout(self.layout)

  @functools.cached_property
  def pad_id(self) -> int:
    """Id of padding; the end of a sequence where there is none, as in GPT-2: no model looks at padding."""
    return self.eos_id if self.family.pad is None else self._id_of_role('pad')

  @functools.cached_property
  def eos_id(self) -> int:
    """Id of the end of a sequence: the separator where there is no other, as in BERT."""
    return self.sep_id if self.family.eos is None else self._id_of_role('eos')

  @functools.cached_property
  def unk_id(self) -> int:
    """Id of what the vocabulary cannot spell."""
    return self._id_of_role('unk')

  @functools.cached_property
  def bos_id(self) -> int:
    """Id of the beginning of a sequence. Raises `UsageError` if the family has none, as do the next three."""
    return self._id_of_role('bos')

  @functools.cached_property
  def cls_id(self) -> int:
    """Id of the token that stands for the whole sequence."""
    return self._id_of_role('cls')

  @functools.cached_property
  def sep_id(self) -> int:
    """Id of what separates two texts."""
    return self._id_of_role('sep')

  @functools.cached_property
  def mask_id(self) -> int:
    """Id of what stands for a masked token."""
    return self._id_of_role('mask')

  @property
  def padding_side(self) -> str:
    """Where the family's models expect padding: 'left' or 'right'."""
    return self.family.padding_side

  @property
  def model_max_length(self) -> int | None:
    """Tokens that the published model takes, special ones included; None if there is no limit."""
    return self.family.model_max_length

  @property
  def num_sentinels(self) -> int:
    """Number of sentinels."""
    return len(self._sentinels)

  def sentinel_id(self, index: int) -> int:
    """Id of `<extra_id_{index}>`. Raises `UsageError` where there are not so many."""
    if not 0 <= index < self.num_sentinels:
      raise errors.UsageError(
        f'got sentinel {index}, but {self} has {self.num_sentinels} sentinels: '
        'expected fewer noise spans in an example, or more extra_ids'
      )
    return self._sentinels[index]

  def with_special_tokens(
    self, ids: Sequence[int], pair: Sequence[int] | None = None, max_length: int | None = None
  ) -> tuple[list[int], list[int]]:
    """Ids of one text or of two in the family's frame, and their token types.

    Args:
      ids: of the text.
      pair: of the second text.
      max_length: largest number of ids to return, or None for any. The ends of the texts give way: of the longer one
        first, as by `longest_first` of Hugging Face.

    Raises:
      UsageError: the special tokens alone are more than `max_length`.
    """
    template = self.family.single if pair is None else self.family.pair
    first, second = list(ids), list(pair or ())
    if max_length is not None:
      special = sum(not name.startswith('$') for name, _ in template)
      if max_length < special:
        raise errors.UsageError(f'got max_length={max_length}, but {self} adds {special} special tokens')
      first, second = token_layouts.truncate_longest_first(first, second, max_length - special)
    texts = {token_layouts.FIRST: first, token_layouts.SECOND: second}
    framed: list[int] = []
    types: list[int] = []
    for name, type_id in template:
      part = texts[name] if name in texts else [self._id_in_template(name)]
      framed += part
      types += [type_id] * len(part)
    return framed, types

  def special_ids(self) -> dict[str, int]:
    """Ids of all special tokens of the family that the vocabulary has, sentinels not."""
    found = {token: self.token_id(token) for token in self.family.special_tokens}
    return {token: token_id for token, token_id in found.items() if token_id is not None}

  def role_tokens(self) -> dict[str, str]:
    """Texts of the special tokens by role, as the vocabulary has them."""
    return self.family.roles

  def template_ids(self) -> dict[str, int]:
    """Ids of the special tokens in the frames, by the names they have there."""
    names = dict.fromkeys(name for name, _ in (*self.family.single, *self.family.pair))
    return {name: self._id_in_template(name) for name in names if not name.startswith('$')}

  @functools.cached_property
  def _sentinels(self) -> list[int]:
    """Ids of `<extra_id_0>`, `<extra_id_1>`, ...; mT5 has them as words, with the space before them."""
    for start in (SENTINEL_START, f'\u2581{SENTINEL_START}'):
      found: list[int] = []
      while (token_id := self.token_id(f'{start}{len(found)}>')) is not None:
        found.append(token_id)
      if found:
        return found
    return []

  def _id_in_template(self, name: str) -> int:
    if name in token_layouts.ROLES:
      return self._id_of_role(name)
    token_id = self.token_id(name)
    if token_id is None:
      raise errors.UsageError(f'{self} has no token {name!r}, with which it frames its texts')
    return token_id

  def _id_of_role(self, role: str) -> int:
    token = getattr(self.family, role)
    if token is None:
      raise errors.UsageError(f'{self}: the layout {self.family.name!r} has no {role} token')
    token_id = self.token_id(token)
    if token_id is None:
      raise errors.UsageError(f'{self} has no {role} token {token!r}')
    return token_id

  def _known(self, ids: Iterable[int]) -> list[int]:
    """`ids` up to the first end of sequence, those beyond the vocabulary as unknown."""
    known, size, eos_id, unk_id = [], self.vocab_size, self.eos_id, self.unk_id
    for token_id in map(int, ids):
      if token_id == eos_id:
        break
      known.append(token_id if 0 <= token_id < size else unk_id)
    return known
