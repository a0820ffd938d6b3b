"""What the recorders share: weights that show, and cases written so that equal tensors are kept once.

A file holds

    transformers_version
    cases           JSON: by name, `class`, `config` (its config.json) and `state`: name of each weight -> its number
    tensor/NUMBER   a weight
    NAME/in/KEY     what a case was called with, int64 or float32
    NAME/out/KEY    what it returned, float32
"""

from __future__ import annotations

import json
import zlib

import numpy as np
import torch
import transformers


def randomise(model: torch.nn.Module, prefix: str, scale: float = 0.3) -> None:
  """Draws every parameter anew, far from zero; what has the same name and shape in two models is the same in both."""
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      seed = zlib.crc32(f'{name.removeprefix(prefix)} {tuple(parameter.shape)}'.encode())
      values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
      lowered = name.lower()
      is_scale = name.endswith('weight') and any(part in lowered for part in ('norm', 'ln_'))
      parameter.copy_(scale * values + float(is_scale))


class Recording:
  """Cases, gathered one by one and written at the end."""

  def __init__(self) -> None:
    self._arrays: dict[str, np.ndarray] = {}
    self._numbers: dict[bytes, int] = {}
    self._cases: dict[str, dict] = {}

  def add(self, name: str, model: torch.nn.Module, arguments: dict[str, torch.Tensor]) -> None:
    """Calls a model and keeps its weights, inputs and outputs."""
    with torch.no_grad():
      outputs = model.eval()(**arguments)
    self._arrays |= {f'{name}/in/{key}': value.numpy() for key, value in arguments.items()}
    tensors = {key: value for key, value in outputs.items() if isinstance(value, torch.Tensor)}
    self._arrays |= {f'{name}/out/{key}': value.numpy() for key, value in tensors.items()}
    config = model.config.to_dict() | {'architectures': [type(model).__name__]}
    state = {key: self._number(value.numpy()) for key, value in model.state_dict().items()}
    self._cases[name] = {'class': type(model).__name__, 'config': config, 'state': state}

  def _number(self, array: np.ndarray) -> int:
    content = repr(array.shape).encode() + array.tobytes()
    number = self._numbers.setdefault(content, len(self._numbers))
    self._arrays[f'tensor/{number}'] = array
    return number

  def save(self, target: str) -> None:
    """Writes all cases."""
    self._arrays['transformers_version'] = np.asarray(transformers.__version__)
    self._arrays['cases'] = np.asarray(json.dumps(self._cases, default=str))
    np.savez_compressed(target, **self._arrays)


def draw(seed: int, shape: tuple[int, ...], low: int, high: int) -> torch.Tensor:
  """Integers from `low` to `high` - 1."""
  return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def some(labels: torch.Tensor, seed: int, rows: dict[str, torch.Tensor]) -> torch.Tensor:
  """About half of the labels, and -100 for the others and for padding."""
  chosen = (draw(seed, tuple(labels.shape), 0, 2) > 0) & (rows['attention_mask'] > 0)
  return torch.where(chosen, labels, -100)
