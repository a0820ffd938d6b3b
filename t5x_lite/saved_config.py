"""The config.json and the generation_config.json of a model that is saved: as it is now, with what its files said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.interop import hf_families
from t5x_lite.stored_models import StoredModel

# Of a config.json that was read, what says how it was stored and not what it holds, and what `id2label` says, too.
_NOT_KEPT = ('torch_dtype', 'transformers_version', '_name_or_path', 'quantization_config', 'auto_map', 'num_labels')
_TOKEN_IDS = ('bos_token_id', 'eos_token_id', 'pad_token_id', 'decoder_start_token_id')
_LABELS = ('id2label', 'label2id')


def exported(module: Any, stored: StoredModel, tokenizer: Tokenizer | None) -> dict[str, Any]:
  """The config.json that transformers is to find.

  Args:
    module: as it is now.
    stored: what it was read from.
    tokenizer: its vocabulary.

  Raises:
    UsageError: transformers has no such model.
  """
  family = hf_families.family_of_module(module)
  own = family.config_to_hf(module)
  if hasattr(family, 'variant'):
    own = family.variant(own, stored.config.get('model_type'))
  not_kept = (*_NOT_KEPT, *getattr(family, 'ALIASES', ()))
  kept = {name: value for name, value in stored.config.items() if name not in not_kept}
  said = {name: value for name, value in kept.items() if name in _TOKEN_IDS}
  if stored.exported and tokenizer is not None:
    said = _token_ids(module, tokenizer, own)
  if len(kept.get('id2label') or ()) == len(own.get('id2label') or ()):  # the names of the labels, if not changed
    said |= {name: kept[name] for name in _LABELS if name in kept}
  if not stored.exported:
    # The one rate of the module stands for the others only where it is not the one that was read.
    changed = family.module_from_hf(stored.config).config.dropout_rate != module.config.dropout_rate
    superseded = kept if changed else own
    for name in family.DROPOUT_FIELDS:
      superseded.pop(name, None)
  return {**kept, **own, **said, 'dtype': 'float32'}


def described(module: Any, stored: StoredModel, tokenizer: Tokenizer | None) -> dict[str, Any]:
  """The config.json that goes into a MODEL_DIR, of which config.gin says what the model is: the kind of problem, ids
  and labels. Where transformers has no such model, it is what was read; empty where nothing was.

  Args:
    module: as it is now.
    stored: what it was read from.
    tokenizer: its vocabulary.
  """
  try:
    return exported(module, stored, tokenizer)
  except errors.UsageError:
    if stored.exported:
      return {}
  same = len(stored.config.get('id2label') or ()) == module.config.num_labels
  not_kept = _NOT_KEPT if same else (*_NOT_KEPT, *_LABELS)
  return {name: value for name, value in stored.config.items() if name not in not_kept}


def generation(module: Any, stored: StoredModel, config: Mapping[str, Any]) -> dict[str, Any]:
  """The generation_config.json: the one that was read, or else the ids in `config`; empty for no language model."""
  if 'lm' not in getattr(module.config, 'heads', ()):
    return {}
  return dict(stored.generation or {name: config[name] for name in _TOKEN_IDS if name in config})


def _token_ids(module: Any, tokenizer: Tokenizer, config: Mapping[str, Any]) -> dict[str, int]:
  """What a config.json says of the special tokens of a vocabulary.

  Raises:
    UsageError: the model is a RoBERTa, which finds its positions by the id of padding, and the vocabulary has another.
  """
  first = getattr(module.config, 'first_position', 0)
  if first and tokenizer.pad_id != first - 1:
    raise errors.UsageError(
      f'positions start at row {first} of their table, and padding is id {tokenizer.pad_id}: transformers expects the '
      f'row after that id, so train with BertConfig.first_position = {tokenizer.pad_id + 1} to export'
    )
  said = {'eos_token_id': tokenizer.eos_id, 'pad_token_id': tokenizer.pad_id}
  if 'bos_token_id' in config:
    try:
      said['bos_token_id'] = tokenizer.bos_id
    except errors.UsageError:  # as GPT-2 has it, which begins with the end of text
      said['bos_token_id'] = tokenizer.eos_id
  return said
