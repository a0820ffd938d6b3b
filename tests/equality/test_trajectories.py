"""A run is the same however it is arranged: losses of every family, over meshes, programs, processes and restarts.

All of it, two processes at a time:  python -m pytest tests/equality -n 2 --dist=load
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

import t5x_lite
from t5x_lite.training.checkpoints import Checkpointer

_PATH = pathlib.Path(__file__).with_name('trajectories.py')
_SPEC = importlib.util.spec_from_file_location('trajectories', _PATH)
runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(runs)

FAMILIES = ('t5', 'bert', 'gpt', 'xlnet')
STEPS = 20
ALL_AXES_OF_A_LAYER = runs.ARRANGEMENTS['tensor and sequence']


@functools.cache
def _alone(family, config, steps):
  return runs.losses(family, runs.Arrangement(config=dict(config)), steps)


def reference(family, arrangement, steps=STEPS):
  """The losses on one device, of what `arrangement` computes."""
  # Scanned or not, computed again or not, attention in blocks or not: that is part of the arrangement.
  config = {k: v for k, v in arrangement.config.items() if k not in ('scan_layers', 'remat_policy', 'attention')}
  return _alone(family, tuple(config.items()), steps)


def assert_same(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('family', ['t5', pytest.param('xlnet', marks=pytest.mark.slow)])
def test_tensor_and_sequence_change_nothing(family):
  """The arrangement that touches most of a layer, of the families whose attention is most their own."""
  found = runs.losses(family, ALL_AXES_OF_A_LAYER, 3)
  assert_same(found, reference(family, ALL_AXES_OF_A_LAYER, 3))
  assert found[2] < found[0] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'name'), runs.cross())
def test_a_run_is_the_same_however_it_is_arranged(family, name):
  expected = reference(family, runs.ARRANGEMENTS[name])
  assert expected[-1] < expected[0] - 0.5  # it learns: these are not twenty times the same numbers
  assert_same(runs.losses(family, runs.ARRANGEMENTS[name], STEPS), expected)


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 4])
def test_a_run_is_the_same_over_processes(count):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = str(probe.getsockname()[1])
  env = os.environ | {'PYTHONPATH': str(pathlib.Path(t5x_lite.__file__).parent.parent)}
  processes = [
    subprocess.Popen(
      [sys.executable, str(_PATH), ','.join(FAMILIES), 'mixed', str(STEPS), str(index), str(count), port],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]
  for process in processes:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    found = dict(re.findall(r'losses of (\w+): (.*)', out))
    assert found.keys() == set(FAMILIES)
    for family in FAMILIES:
      assert_same(json.loads(found[family]), reference(family, runs.ARRANGEMENTS['mixed']))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('family', 'saved', 'restored'),
  [
    ('t5', 'fsdp', 'tensor and sequence'),
    ('t5', 'tensor and sequence', 'one device'),
    ('bert', 'tensor', 'fsdp'),
    ('gpt', 'one device', 'mixed'),
    ('xlnet', 'mixed', 'sequence'),
    ('experts', 'experts', 'tensor'),
    ('experts', 'data', 'all but sequence'),
  ],
)
def test_what_one_mesh_saves_another_restores(tmp_path, family, saved, restored):
  """The run goes on as if nothing had been."""
  expected = reference(family, runs.ARRANGEMENTS[saved])
  trainer = runs.make_trainer(family, runs.ARRANGEMENTS[saved])
  state, found = runs.train(trainer, runs.placed_state(trainer, family), range(5))
  checkpointer = Checkpointer(tmp_path)
  checkpointer.save(5, state, data_state={}, config={})
  checkpointer.close()

  other = runs.make_trainer(family, runs.ARRANGEMENTS[restored])
  again = Checkpointer(tmp_path).restore(other.abstract_state)
  assert again.step == 5
  found += runs.train(other, again.state, range(5, 10))[1]
  assert_same(found, expected[:10])
