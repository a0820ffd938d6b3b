"""The files in which Hugging Face publishes tokenizers, as they are written here.

`tokenizer_config.json` names the class and the special tokens, `special_tokens_map.json` the latter once more for older
readers, and `tokenizer.json` holds all that the package `tokenizers` must know. SentencePiece models get theirs without
that package, and transformers needs neither protobuf nor a conversion to read it.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import sentencepiece_model, token_layouts
from t5x_lite.data.vocabularies.tokenizers import LayoutTokenizer

CONFIG_FILE = 'tokenizer_config.json'
TOKENS_FILE = 'special_tokens_map.json'
JSON_FILE = 'tokenizer.json'
FAIRSEQ_MODEL_FILE = 'sentencepiece.bpe.model'
OWN_KEY = 't5x_lite'  # In tokenizer_config.json: what no class of transformers has.

CLASSES = {
  't5': 'T5Tokenizer',
  'bert': 'BertTokenizer',
  'roberta': 'RobertaTokenizer',
  'xlm-roberta': 'XLMRobertaTokenizer',
  'gpt2': 'GPT2Tokenizer',
  'albert': 'AlbertTokenizer',
  'xlnet': 'XLNetTokenizer',
}
# Reads tokenizer.json as it stands, where the classes of families build their own steps around its vocabulary.
GENERIC_CLASS = 'PreTrainedTokenizerFast'

_SPACE = '\u2581'


def make_folder(directory: str | os.PathLike[str]) -> pathlib.Path:
  """The folder, made if need be. Raises `UsageError` where there can be none."""
  folder = pathlib.Path(directory).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UsageError(f'cannot write a tokenizer to {folder}: {error.strerror}') from error
  return folder


def write_config(folder: pathlib.Path, tokenizer: LayoutTokenizer, generic: bool = False, **options: Any) -> None:
  """Writes `tokenizer_config.json` and `special_tokens_map.json`.

  Args:
    folder: where to.
    tokenizer: whose.
    generic: whether the class of its family would not give its ids.
    **options: arguments of that class.
  """
  family = tokenizer.family
  tokens: dict[str, Any] = {f'{role}_token': token for role, token in tokenizer.role_tokens().items()}
  if family.additional:
    tokens['additional_special_tokens'] = list(family.additional)
  config: dict[str, Any] = {
    'tokenizer_class': GENERIC_CLASS if generic else CLASSES.get(family.name, GENERIC_CLASS),
    'padding_side': family.padding_side,
    **tokens,
    **options,
  }
  if family.model_max_length is not None:
    config['model_max_length'] = family.model_max_length
  if family.cleaning is not None:
    config |= {'do_lower_case': family.cleaning.do_lower_case, 'keep_accents': family.cleaning.keep_accents}
  if generic:
    config[OWN_KEY] = {'layout': family.name}
  write_json(folder / CONFIG_FILE, config)
  write_json(folder / TOKENS_FILE, tokens)


def write_unigram_json(folder: pathlib.Path, tokenizer: LayoutTokenizer, model: bytes) -> None:
  """Writes the `tokenizer.json` of a SentencePiece model that chooses its pieces by score.

  Args:
    folder: where to.
    tokenizer: around the model.
    model: serialised, with everything that was added to it.
  """
  pieces = sentencepiece_model.pieces_of(model)
  special = set(tokenizer.special_ids().values()) | set(tokenizer.template_ids().values())
  special |= {tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id}
  special |= {tokenizer.sentinel_id(index) for index in range(tokenizer.num_sentinels)}
  metaspace = {'type': 'Metaspace', 'replacement': _SPACE, 'prepend_scheme': 'always', 'split': True}
  added = [_added_token(token_id, pieces[token_id].text) for token_id in sorted(special)]
  plain = [_added_token(token.token_id, token.content) for token in tokenizer.family.added_tokens if not token.special]
  content = {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [*added, *({**token, 'special': False} for token in plain)],
    'normalizer': _normalizer(tokenizer.family.cleaning, sentencepiece_model.charsmap_of(model)),
    'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'WhitespaceSplit'}, metaspace]},
    'post_processor': post_processor(tokenizer),
    'decoder': metaspace,
    'model': {
      'type': 'Unigram',
      'unk_id': tokenizer.unk_id,
      'vocab': [[piece.text, piece.score] for piece in pieces],
      'byte_fallback': False,
    },
  }
  write_json(folder / JSON_FILE, content)


def post_processor(tokenizer: LayoutTokenizer) -> dict[str, Any]:
  """The frames of a tokenizer as in `tokenizer.json`."""
  ids, names = tokenizer.template_ids(), tokenizer.role_tokens()
  texts = {name: names.get(name, name) for name in ids}

  def parts(template: token_layouts.Template) -> list[dict[str, Any]]:
    return [
      {'SpecialToken': {'id': texts[name], 'type_id': type_id}}
      if name in texts
      else {'Sequence': {'id': name.removeprefix('$'), 'type_id': type_id}}
      for name, type_id in template
    ]

  return {
    'type': 'TemplateProcessing',
    'single': parts(tokenizer.family.single),
    'pair': parts(tokenizer.family.pair),
    'special_tokens': {
      texts[name]: {'id': texts[name], 'ids': [token_id], 'tokens': [texts[name]]} for name, token_id in ids.items()
    },
  }


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """An object of a JSON file, empty if there is no such file. Raises `UsageError` on anything else."""
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return {}
  except OSError as error:
    raise errors.UsageError(f'cannot read {path}: {error.strerror}') from error
  except ValueError as error:
    raise errors.UsageError(f'{path} is no JSON: {error}') from error
  if not isinstance(content, dict):
    raise errors.UsageError(f'{path}: got a {type(content).__name__}, expected an object')
  return content


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes an object as Hugging Face does: two spaces, and characters as they are."""
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')


def _added_token(token_id: int, content: str) -> dict[str, Any]:
  flags = dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False)
  return {'id': token_id, 'content': content, **flags, 'special': True}


def _normalizer(cleaning: token_layouts.Cleaning | None, charsmap: bytes) -> dict[str, Any] | None:
  steps: list[dict[str, Any]] = []
  if cleaning is not None:
    steps += [{'type': 'Replace', 'pattern': {'String': quotes}, 'content': '"'} for quotes in ('``', "''")]
    if not cleaning.keep_accents:
      steps += [{'type': 'NFKD'}, {'type': 'StripAccents'}]
    if cleaning.do_lower_case:
      steps.append({'type': 'Lowercase'})
  if charsmap:
    steps.append({'type': 'Precompiled', 'precompiled_charsmap': base64.b64encode(charsmap).decode()})
  return {'type': 'Sequence', 'normalizers': steps} if steps else None
