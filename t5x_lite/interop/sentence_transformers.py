"""The files that sentence-transformers keeps beside a model: how its hidden states become the vector of a text.

modules.json             the parts of the model in their order: Transformer, Pooling and, with it, Normalize
1_Pooling/config.json    which of the poolings
sentence_bert_config.json    how long a text may be
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from t5x_lite.core import errors
from t5x_lite.interop import export

_MODULES = 'modules.json'
_LENGTH = 'sentence_bert_config.json'
_POOLING, _NORMALIZE = '1_Pooling', '2_Normalize'
_MODES = {'cls': 'pooling_mode_cls_token', 'mean': 'pooling_mode_mean_tokens', 'last': 'pooling_mode_lasttoken'}
_PARTS = {'': 'Transformer', _POOLING: 'Pooling', _NORMALIZE: 'Normalize'}


def pooling_of(source: str | os.PathLike[str]) -> str | None:
  """How a folder says that it pools: 'mean', 'cls' or 'last'; None where it does not say."""
  for path in sorted(pathlib.Path(source).glob('*_Pooling/config.json')):
    said = json.loads(path.read_text(encoding='utf-8'))
    for pooling, name in _MODES.items():
      if said.get(name):
        return pooling
  return None


def normalises(source: str | os.PathLike[str]) -> bool:
  """Whether a folder says that its vectors have length 1.

  Raises:
    UsageError: they come of a part that is not read here, such as a dense layer behind the pooling.
  """
  kinds = [str(module.get('type', '')).rpartition('.')[2] for module in _read(pathlib.Path(source) / _MODULES, [])]
  unknown = [kind for kind in kinds if kind not in _PARTS.values()]
  if unknown:
    raise errors.UsageError(
      f'{source}: its vectors go through {unknown[0]}, which is not read here: expected {", ".join(_PARTS.values())}'
    )
  return _PARTS[_NORMALIZE] in kinds


def max_length(source: str | os.PathLike[str]) -> int | None:
  """Tokens that a folder says a text may have, those around it counted; None where it does not say."""
  return _read(pathlib.Path(source) / _LENGTH, {}).get('max_seq_length')


def _read(path: pathlib.Path, default: Any) -> Any:
  return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else default


def write(folder: pathlib.Path, config: Any) -> None:
  """Writes them for a model whose head is 'embedding', into the folder of its weights.

  Args:
    folder: an existing one.
    config: the module's configuration: `emb_dim` and `pooling`.
  """
  modules = [
    {'idx': index, 'name': str(index), 'path': path, 'type': f'sentence_transformers.models.{kind}'}
    for index, (path, kind) in enumerate(_PARTS.items())
  ]
  export.write_json(folder / _MODULES, modules)
  for path in filter(None, _PARTS):
    (folder / path).mkdir()
  poolings = {name: pooling == config.pooling for pooling, name in _MODES.items()}
  export.write_json(folder / _POOLING / 'config.json', {'word_embedding_dimension': config.emb_dim, **poolings})
