"""t5x_lite: BERT, GPT and T5 in JAX, on one set of blocks, one train step and one data pipeline."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from t5x_lite.pretrained import Pretrained, load_pretrained

__version__ = '0.1.0'
__all__ = ['Pretrained', '__version__', 'load_pretrained']


def __getattr__(name: str) -> Any:
  """Imports what loads models, and JAX with it, when it is first used: command lines start without."""
  if name in ('Pretrained', 'load_pretrained'):
    return getattr(importlib.import_module(f'{__name__}.pretrained'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
