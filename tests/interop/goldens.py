"""Cases recorded from transformers by `experiments/golden/recording.py`, and our outputs for them."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from t5x_lite.interop import hf_call
from t5x_lite.interop.loading import load
from t5x_lite.interop.tensors import ArraySource

FOLDER = pathlib.Path(__file__).parents[1] / 'golden'


@dataclasses.dataclass(frozen=True)
class Case:
  """What transformers was given and what it returned.

  Attributes:
    config: its config.json.
    state: its weights.
    inputs: its arguments that are read.
    targets: those that are labels.
    outputs: what it returned.
  """

  config: dict[str, Any]
  state: dict[str, np.ndarray]
  inputs: dict[str, np.ndarray]
  targets: dict[str, np.ndarray]
  outputs: dict[str, np.ndarray]

  @property
  def real(self) -> np.ndarray:
    """bool: the positions that are no padding."""
    return self.inputs.get('attention_mask', np.ones_like(self.inputs['input_ids'])) > 0


def read(name: str) -> dict[str, Case]:
  """The cases of one file."""
  with np.load(FOLDER / name) as file:
    arrays = dict(file)

  def under(prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

  cases = {}
  for case, described in json.loads(str(arrays['cases'])).items():
    state = {key: arrays[f'tensor/{number}'] for key, number in described['state'].items()}
    arguments = under(f'{case}/in/')
    targets = {key: arguments.pop(key) for key in list(arguments) if 'label' in key or key.endswith('_positions')}
    cases[case] = Case(described['config'], state, arguments, targets, under(f'{case}/out/'))
  return cases


def abstract(module):
  """The shapes of a module's parameters."""
  names = ('input_tokens', 'segment_ids', 'positions')
  batch = {f'{side}_{name}': np.ones((2, 4), np.int32) for side in ('encoder', 'decoder') for name in names}
  return nn.unbox(jax.eval_shape(module.init, {'params': jax.random.key(0)}, batch))['params']


def with_changes(module, **changes):
  """The module with other fields in its config."""
  return type(module)(dataclasses.replace(module.config, **changes))


def load_state(family, module, state):
  """The parameters and the report of what was read."""
  return load(family.table(module), ArraySource(state), abstract(module))


def load_case(family, case, **changes):
  """A module and its parameters; all weights found their places."""
  module = with_changes(family.module_from_hf(case.config), **changes)
  params, report = load_state(family, module, case.state)
  assert not report.fresh and not report.ignored
  return module, params


def apply(module, params, batch, method='outputs'):
  """What a module makes of a batch, compiled."""
  return jax.jit(lambda params, batch: module.apply({'params': params}, batch, method=method))(params, batch)


def call(module, params, case):
  """Outputs, and the loss where there are targets, by the names of transformers."""
  inputs, targets = hf_call.split_arguments(module, {**case.inputs, **case.targets}, case.config)
  batch = hf_call.batch_of(module, case.config, inputs, targets)
  ids = case.inputs['input_ids']
  choices = ids.shape[1] if ids.ndim == 3 else None
  outputs = hf_call.named_outputs(module, apply(module, params, batch), choices)
  loss = hf_call.loss_of(module, case.config, outputs, targets)
  return outputs if loss is None else {**outputs, 'loss': loss}


def check(case, outputs, atol=1e-5, where=...):
  """All that transformers returned, at padding, too; `where` is the positions to look at, if not all."""
  for name, expected in case.outputs.items():
    found = np.asarray(outputs[name])
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(found[where], expected[where], atol=atol, rtol=1e-5, err_msg=name)
