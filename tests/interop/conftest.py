"""Recorded models as directories, as transformers would have saved them."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest

from t5x_lite.interop import export

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'


class Recorded:
  """A golden file: `config`, `state`, and `cases` of `(inputs, outputs)`."""

  def __init__(self, path: pathlib.Path):
    with np.load(path) as file:
      arrays = dict(file)
    self.config = json.loads(str(arrays['config']))
    self.state = self._below(arrays, 'state/')
    self.gradient = self._below(arrays, 'gradient/')
    numbers = sorted({name.split('/')[0] for name in arrays if name.startswith('case')})
    self.cases = [(self._below(arrays, f'{n}/input/'), self._below(arrays, f'{n}/output/')) for n in numbers]

  @staticmethod
  def _below(arrays, prefix):
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

  def write(self, folder: pathlib.Path, *, state=None, config=None, **options) -> pathlib.Path:
    """The directory that transformers would have saved."""
    folder.mkdir(parents=True, exist_ok=True)
    state = self.state if state is None else state
    specs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in state.items()}
    export.write_weights(folder, specs, state.items(), **options)
    export.write_json(folder / 'config.json', self.config if config is None else config)
    return folder


@pytest.fixture(scope='session')
def recorded():
  """`recorded('t5_lm')`: a golden file."""
  return lambda name: Recorded(GOLDEN / f'{name}.npz')
