"""Cases recorded from transformers by `experiments/golden/record_generation.py`, and our models of them."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from t5x_lite import pretrained, stored_models
from t5x_lite.interop import hf_families
from t5x_lite.interop.loading import load
from t5x_lite.interop.tensors import ArraySource

FILE = pathlib.Path(__file__).parents[1] / 'golden' / 'generation.npz'


@dataclasses.dataclass(frozen=True)
class Case:
  """What transformers was asked and what it wrote."""

  model: str
  options: dict[str, Any]
  rows: int
  ids: np.ndarray
  scores: np.ndarray | None
  token_scores: np.ndarray | None

  def __str__(self) -> str:
    return f'{self.model}-{self.rows}-' + ','.join(f'{name}={value}' for name, value in self.options.items())


@functools.cache
def arrays() -> dict[str, np.ndarray]:
  with np.load(FILE) as file:
    return dict(file)


def cases() -> list[Case]:
  """All of them."""
  return [
    Case(
      **described,
      ids=arrays()[f'{number}/ids'],
      scores=arrays().get(f'{number}/scores'),
      token_scores=arrays().get(f'{number}/token_scores'),
    )
    for number, described in enumerate(json.loads(str(arrays()['cases'])))
  ]


def inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Ids and mask."""
  return arrays()[f'{name}/input_ids'], arrays()[f'{name}/attention_mask']


@functools.cache
def model(name: str, mesh: Any = None, **changes: Any) -> pretrained.Pretrained:
  """Our model of theirs, as `load_pretrained` would give it."""
  described = json.loads(str(arrays()['models']))[name]
  config = described['config']
  family = hf_families.family_of(config, name)
  module = family.module_from_hf(config)
  module = type(module)(dataclasses.replace(module.config, **changes))
  prefix = f'{name}/state/'
  state = {key.removeprefix(prefix): value for key, value in arrays().items() if key.startswith(prefix)}
  params, report = load(family.table(module), ArraySource(state), stored_models.placed(module, mesh))
  assert not report.fresh
  stored = stored_models.StoredModel(name, module, config, None, lambda: None, generation=described['generation'])
  return pretrained.Pretrained(module, params, stored, report, mesh)
