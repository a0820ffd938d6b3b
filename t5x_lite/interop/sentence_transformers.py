"""The files that sentence-transformers keeps beside a model: how its hidden states become the vector of a text.

modules.json             the parts of the model in their order: Transformer, Pooling and, with it, Normalize
1_Pooling/config.json    which of the poolings
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from t5x_lite.interop import export

_MODULES = 'modules.json'
_POOLING = '1_Pooling'
_MODES = {'cls': 'pooling_mode_cls_token', 'mean': 'pooling_mode_mean_tokens', 'last': 'pooling_mode_lasttoken'}
_PARTS = {'': 'Transformer', _POOLING: 'Pooling', '2_Normalize': 'Normalize'}


def pooling_of(source: str | os.PathLike[str]) -> str | None:
  """How a folder says that it pools: 'mean', 'cls' or 'last'; None where it does not say."""
  for path in sorted(pathlib.Path(source).glob('*_Pooling/config.json')):
    said = json.loads(path.read_text(encoding='utf-8'))
    for pooling, name in _MODES.items():
      if said.get(name):
        return pooling
  return None


def normalises(source: str | os.PathLike[str]) -> bool:
  """Whether a folder says that its vectors have length 1."""
  path = pathlib.Path(source) / _MODULES
  modules = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []
  return any(str(module.get('type', '')).endswith('Normalize') for module in modules)


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
