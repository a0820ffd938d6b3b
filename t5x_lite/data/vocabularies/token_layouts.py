"""What each family calls its special tokens, and how it frames one text or a pair of them.

The names are those of the published vocabularies, the frames those of the papers: BERT (Devlin et al. 2019, section 3),
RoBERTa (Liu et al. 2019), XLNet (Yang et al. 2019, section 2.5), ALBERT (Lan et al. 2020), T5 (Raffel et al. 2020).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from t5x_lite.core import errors

ROLES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')
FIRST, SECOND = '$A', '$B'

# A role, FIRST, SECOND or the text of a token; and the token type of what it puts there.
Template = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Cleaning:
  """What XLNet and ALBERT do to a text before SentencePiece sees it: two quotes in a row become one double quote, and

  Attributes:
    do_lower_case: lower-cases.
    keep_accents: leaves accents and compatibility characters as they are; else NFKD, less all marks.
  """

  do_lower_case: bool = False
  keep_accents: bool = False


@dataclasses.dataclass(frozen=True)
class AddedToken:
  """A token added to a vocabulary after it was made, as in Hugging Face's `added_tokens_decoder`.

  Attributes:
    content: its text.
    token_id: its id.
    lstrip: takes the white space on its left with it.
    rstrip: takes the white space on its right with it.
    single_word: is no part of a longer word.
    normalized: is looked for in the normalised text.
    special: is left alone where special tokens in a text are read as text.
  """

  content: str
  token_id: int
  lstrip: bool = False
  rstrip: bool = False
  single_word: bool = False
  normalized: bool = False
  special: bool = True


@dataclasses.dataclass(frozen=True)
class Layout:
  """Special tokens and frames of one family.

  Attributes:
    name: of the family; see `LAYOUTS`.
    bos, eos, unk, sep, pad, cls, mask: special tokens by role, None for those that the family does not have.
    additional: further special tokens.
    single: frame of one text.
    pair: frame of two.
    padding_side: where padding goes.
    model_max_length: tokens that the published models take, or None if there is no limit.
    cleaning: what is done to a text before SentencePiece sees it.
    added_tokens: tokens beyond the published vocabulary.
  """

  name: str
  bos: str | None = None
  eos: str | None = None
  unk: str | None = None
  sep: str | None = None
  pad: str | None = None
  cls: str | None = None
  mask: str | None = None
  additional: tuple[str, ...] = ()
  single: Template = ((FIRST, 0),)
  pair: Template = ((FIRST, 0), (SECOND, 1))
  padding_side: Literal['left', 'right'] = 'right'
  model_max_length: int | None = None
  cleaning: Cleaning | None = None
  added_tokens: tuple[AddedToken, ...] = ()

  @property
  def roles(self) -> dict[str, str]:
    """The special tokens that the family has, by role."""
    tokens = {role: getattr(self, role) for role in ROLES}
    return {role: token for role, token in tokens.items() if token is not None}

  @property
  def special_tokens(self) -> tuple[str, ...]:
    """All special tokens, each once."""
    return tuple(dict.fromkeys([*self.roles.values(), *self.additional]))


def template(parts: str) -> Template:
  """`'cls $A sep $B:1 sep:1'` as a template: roles or texts, and token types where they are not 0."""
  split = (part.partition(':') for part in parts.split())
  return tuple((name, int(type_id or 0)) for name, _, type_id in split)


_BERT = Layout(
  'bert',
  unk='[UNK]',
  sep='[SEP]',
  pad='[PAD]',
  cls='[CLS]',
  mask='[MASK]',
  single=template('cls $A sep'),
  pair=template('cls $A sep $B:1 sep:1'),
)
_ROBERTA = Layout(
  'roberta',
  bos='<s>',
  eos='</s>',
  unk='<unk>',
  sep='</s>',
  pad='<pad>',
  cls='<s>',
  mask='<mask>',
  single=template('cls $A sep'),
  pair=template('cls $A sep sep $B sep'),
)

LAYOUTS = {
  't5': Layout('t5', eos='</s>', unk='<unk>', pad='<pad>', single=template('$A eos'), pair=template('$A eos $B eos')),
  'bert': _BERT,
  'roberta': _ROBERTA,
  'xlm-roberta': dataclasses.replace(_ROBERTA, name='xlm-roberta'),
  'gpt2': Layout('gpt2', bos='<|endoftext|>', eos='<|endoftext|>', unk='<|endoftext|>'),
  'albert': dataclasses.replace(
    _BERT, name='albert', bos='[CLS]', eos='[SEP]', unk='<unk>', pad='<pad>', cleaning=Cleaning(do_lower_case=True)
  ),
  'xlnet': dataclasses.replace(
    _ROBERTA,
    name='xlnet',
    sep='<sep>',
    cls='<cls>',
    additional=('<eop>', '<eod>'),
    single=template('$A sep cls:2'),
    pair=template('$A sep $B:1 sep:1 cls:2'),
    padding_side='left',
    cleaning=Cleaning(),
  ),
}


def layout(name: str | Layout) -> Layout:
  """The layout of that name. Raises `UsageError` if there is none."""
  if isinstance(name, Layout):
    return name
  if name not in LAYOUTS:
    raise errors.unknown('token layout', name, LAYOUTS)
  return LAYOUTS[name]


def truncate_longest_first(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
  """`first` and `second` without their ends, `room` ids in all: the longer one gives first, then both in turn.

  Where both give and `room` is odd, the longer one keeps one more, and `second` where they are equal: the rule
  `longest_first` of Hugging Face's tokenizers.
  """
  if len(first) + len(second) <= room:
    return first, second
  shorter = min(len(first), len(second), room // 2)
  if len(first) > len(second):
    return first[: room - shorter], second[:shorter]
  return first[:shorter], second[: room - shorter]


def template_of_json(processor: dict[str, Any] | None) -> tuple[Template, Template] | None:
  """Frames of one text and of two from the `post_processor` of a `tokenizer.json`; None if it does not frame."""
  match processor:
    case {'type': 'TemplateProcessing', 'single': single, 'pair': pair}:
      return _parts(single), _parts(pair)
    case {'type': 'RobertaProcessing', 'sep': [sep, _], 'cls': [cls, _]}:
      return template(f'{cls} $A {sep}'), template(f'{cls} $A {sep} {sep} $B {sep}')
    case {'type': 'BertProcessing', 'sep': [sep, _], 'cls': [cls, _]}:
      return template(f'{cls} $A {sep}'), template(f'{cls} $A {sep} $B:1 {sep}:1')
    case {'type': 'Sequence', 'processors': processors}:
      return next(filter(None, map(template_of_json, processors)), None)
  return None


def _parts(pieces: list[dict[str, Any]]) -> Template:
  parts = []
  for piece in pieces:
    ((kind, value),) = piece.items()
    parts.append((value['id'] if kind == 'SpecialToken' else f'${value["id"]}', value['type_id']))
  return tuple(parts)
