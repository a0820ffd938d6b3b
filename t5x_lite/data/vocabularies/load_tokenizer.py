"""Tokenizers from the files in which Hugging Face publishes them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import sentencepiece_model, token_layouts, tokenizer_files
from t5x_lite.data.vocabularies.published_tokenizers import ByteLevelBpeTokenizer, JsonTokenizer, WordPieceTokenizer
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import SentencePieceTokenizer
from t5x_lite.data.vocabularies.tokenizers import SENTINEL_START, LayoutTokenizer

# SentencePiece models first: they need no extra. The second name of a pair is that of the merges.
_SENTENCEPIECE = ('spiece.model', 'sentencepiece.bpe.model', 'sentencepiece.model')
_BYTE_LEVEL = (('vocab.json', 'merges.txt'), ('encoder.json', 'vocab.bpe'))
_EXPECTED = 'tokenizer.json, spiece.model, sentencepiece.bpe.model, vocab.txt, or vocab.json and merges.txt'

# Model types and tokenizer classes (without `Tokenizer`) that share a layout with the one of their family's name.
_RELATIVES = {
  'mt5': 't5', 'umt5': 't5', 'longt5': 't5', 'distilbert': 'bert', 'electra': 'bert', 'distilroberta': 'roberta',
  'longformer': 'roberta', 'xlmroberta': 'xlm-roberta', 'distilgpt2': 'gpt2', 'gpt': 'gpt2',
}  # fmt: skip
_CLASS_OPTIONS = (
  'tokenizer_class', 'do_lower_case', 'strip_accents', 'tokenize_chinese_chars', 'keep_accents', 'add_prefix_space',
  'clean_up_tokenization_spaces', 'extra_ids',
)  # fmt: skip
_NO_LIMIT = 10**9  # transformers writes int(1e30) where a model has no limit


def load_tokenizer(
  directory: str | os.PathLike[str], model_type: str | None = None, special_tokens_in_text: bool = True
) -> LayoutTokenizer:
  """The tokenizer of a Hugging Face directory, with the ids that transformers gives.

  The family is what `tokenizer_config.json` says, or else `model_type`, `config.json` or the look of the vocabulary.

  Args:
    directory: holds the published files.
    model_type: family of the model, such as 'bert', where the files do not say.
    special_tokens_in_text: whether special tokens in a text become their ids, as in transformers, or are text.

  Raises:
    UsageError: there is no such directory, no tokenizer in it, or a family that is not known; files cannot be read; the
      package `tokenizers` is needed and missing.
  """
  folder = pathlib.Path(directory).expanduser()
  if not folder.is_dir():
    raise errors.UsageError(f'no tokenizer at {folder}: there is no such directory')
  config = tokenizer_files.read_json(folder / tokenizer_files.TOKENS_FILE)
  config |= tokenizer_files.read_json(folder / tokenizer_files.CONFIG_FILE)
  path = next((str(folder / name) for name in _SENTENCEPIECE if (folder / name).is_file()), None)
  if path is not None:
    pieces = (piece.text for piece in _pieces(path))
    layout = _layout(folder, config, model_type, pieces)
    return SentencePieceTokenizer(path, _extra_ids(config), layout, special_tokens_in_text, hugging_face_rules=True)
  if (folder / tokenizer_files.JSON_FILE).is_file():
    return _from_json(folder, config, model_type, special_tokens_in_text)
  if (folder / 'vocab.txt').is_file():
    layout = _layout(folder, config, model_type, ('[CLS]', '[SEP]'))
    names = ('do_lower_case', 'strip_accents', 'tokenize_chinese_chars')
    options = {name: config[name] for name in names if name in config}
    return WordPieceTokenizer(str(folder / 'vocab.txt'), layout, special_tokens_in_text, **options)
  for vocabulary, merges in _BYTE_LEVEL:
    if (folder / vocabulary).is_file() and (folder / merges).is_file():
      layout = _layout(folder, config, model_type, tokenizer_files.read_json(folder / vocabulary))
      prefix = bool(config.get('add_prefix_space', False))
      files = {'path': str(folder / vocabulary), 'merges_path': str(folder / merges)}
      return ByteLevelBpeTokenizer(
        **files, layout=layout, special_tokens_in_text=special_tokens_in_text, add_prefix_space=prefix
      )
  raise errors.UsageError(f'no tokenizer in {folder}: expected {_EXPECTED}')


def _from_json(
  folder: pathlib.Path, config: dict[str, Any], model_type: str | None, special_tokens_in_text: bool
) -> JsonTokenizer:
  path = folder / tokenizer_files.JSON_FILE
  content = tokenizer_files.read_json(path)
  vocabulary = content.get('model', {}).get('vocab', ())
  tokens = vocabulary if isinstance(vocabulary, dict) else (piece for piece, _ in vocabulary)
  layout = _layout(folder, config, model_type, tokens, generic=True)
  templates = token_layouts.template_of_json(content.get('post_processor'))
  if templates is not None:
    layout = dataclasses.replace(layout, single=templates[0], pair=templates[1])
  layout = dataclasses.replace(layout, cleaning=None, added_tokens=())  # the file itself has both
  options = tuple((name, config[name]) for name in _CLASS_OPTIONS if name in config)
  return JsonTokenizer(str(path), layout, special_tokens_in_text, options)


def _pieces(path: str) -> list[sentencepiece_model.Piece]:
  try:
    return sentencepiece_model.pieces_of(pathlib.Path(path).read_bytes())
  except (OSError, ValueError) as error:
    raise errors.UsageError(f'{path} is no SentencePiece model') from error


def _layout(
  folder: pathlib.Path,
  config: dict[str, Any],
  model_type: str | None,
  vocabulary: Iterable[str],
  generic: bool = False,
) -> token_layouts.Layout:
  """The family's layout, with what the files of this directory say otherwise."""
  name = _family(folder, config, model_type, vocabulary)
  if name is None and not generic:
    raise errors.unknown('model type', model_type or '(none)', token_layouts.LAYOUTS)
  layout = token_layouts.LAYOUTS[name] if name is not None else token_layouts.Layout('generic')
  changes: dict[str, Any] = {}
  for role in token_layouts.ROLES:
    if f'{role}_token' in config:
      changes[role] = _text(config[f'{role}_token'])
  additional = config.get('additional_special_tokens') or config.get('extra_special_tokens')
  if additional:
    texts = map(_text, additional.values() if isinstance(additional, dict) else additional)
    changes['additional'] = tuple(text for text in texts if text and not text.startswith(SENTINEL_START))
  if 'model_max_length' in config:
    limit = config['model_max_length']
    changes['model_max_length'] = None if limit is None or limit >= _NO_LIMIT else int(limit)
  if config.get('padding_side') in ('left', 'right'):
    changes['padding_side'] = config['padding_side']
  if layout.cleaning is not None:
    names = [field.name for field in dataclasses.fields(token_layouts.Cleaning) if field.name in config]
    changes['cleaning'] = dataclasses.replace(layout.cleaning, **{name: bool(config[name]) for name in names})
  return dataclasses.replace(layout, added_tokens=_added_tokens(folder, config), **changes)


def _family(
  folder: pathlib.Path, config: dict[str, Any], model_type: str | None, vocabulary: Iterable[str]
) -> str | None:
  """Name of the layout by the first of the signs that says anything; None if none does."""
  own = config.get(tokenizer_files.OWN_KEY, {}).get('layout')
  if own in token_layouts.LAYOUTS:
    return own
  model = tokenizer_files.read_json(folder / 'config.json')
  for sign in (config.get('tokenizer_class'), model.get('tokenizer_class'), model_type, model.get('model_type')):
    if sign:
      name = sign.lower().removesuffix('fast').removesuffix('tokenizer')
      name = _RELATIVES.get(name.replace('-', ''), name)
      if name in token_layouts.LAYOUTS:
        return name
  if model_type is not None:
    return None
  return _guess(frozenset(vocabulary))


def _guess(vocabulary: frozenset[str]) -> str | None:
  if {'<sep>', '<cls>'} <= vocabulary:
    return 'xlnet'
  if {'[CLS]', '[SEP]'} <= vocabulary:
    return 'albert' if '\u2581' in vocabulary else 'bert'
  if {'<s>', '<mask>'} <= vocabulary:
    return 'roberta'
  if '<|endoftext|>' in vocabulary:
    return 'gpt2'
  if '\u2581' in vocabulary or '</s>' in vocabulary:
    return 'xlm-roberta' if '<s>' in vocabulary else 't5'
  return None


def _text(token: str | dict[str, Any] | None) -> str | None:
  return token['content'] if isinstance(token, dict) else token


def _extra_ids(config: dict[str, Any]) -> int | None:
  """Number of sentinels that the files name, None if they name none."""
  if config.get('extra_ids') is not None:
    return int(config['extra_ids'])
  additional = config.get('additional_special_tokens') or config.get('extra_special_tokens') or ()
  named = [text for text in map(_text, additional) if text and text.startswith(SENTINEL_START)]
  return len(named) or None


def _added_tokens(folder: pathlib.Path, config: dict[str, Any]) -> tuple[token_layouts.AddedToken, ...]:
  """Tokens added after the vocabulary was made; those that it has are known by then, and do no harm."""
  decoder = config.get('added_tokens_decoder')
  if decoder:
    flags = [field.name for field in dataclasses.fields(token_layouts.AddedToken) if field.name != 'token_id']
    return tuple(
      token_layouts.AddedToken(token_id=int(i), **{flag: token[flag] for flag in flags if flag in token})
      for i, token in decoder.items()
    )
  older = tokenizer_files.read_json(folder / 'added_tokens.json')
  return tuple(token_layouts.AddedToken(content, int(i), special=False) for content, i in older.items())
