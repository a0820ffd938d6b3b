"""Where things that can be rebuilt are kept between runs."""

from __future__ import annotations

import os
import pathlib
import sys

CACHE_VARIABLE = 'T5X_LITE_CACHE'


def cache_dir() -> pathlib.Path:
  """The cache folder: `$T5X_LITE_CACHE`, else `t5x_lite` in the user's cache folder. It may not exist yet."""
  chosen = os.environ.get(CACHE_VARIABLE)
  if chosen:
    return pathlib.Path(chosen).expanduser().absolute()
  if sys.platform == 'darwin':
    return pathlib.Path.home() / 'Library' / 'Caches' / 't5x_lite'
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 't5x_lite'
