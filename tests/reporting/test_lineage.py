"""Where runs come from, by what was recorded and by the folders that are still there."""

from __future__ import annotations

import importlib.util
import json
import pathlib

from t5x_lite.reporting import facts, lineage

_PATH = pathlib.Path(__file__).with_name('folder_fakes.py')
_SPEC = importlib.util.spec_from_file_location('folder_fakes', _PATH)
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)


def record(parent, step, *older, changes=('Learner.z_loss: it was 0, is 1',)):
  kept = {'data': 'continue', 'schedule': 'continue', 'optimizer': 'kept'}
  return {'parent': str(parent), 'step': step, 'changes': list(changes), **kept, 'ancestors': list(older)}


def ancestors(folder):
  return [(own.path, own.step, own.is_there) for own in lineage.ancestors(folder, facts.read_facts(folder))]


def test_a_branch_of_a_branch_of_a_run_that_began_from_another(tmp_path):
  first = fakes.write_run(tmp_path / 'first', [1.0], values={'train.initial_checkpoint_path': "'published/model'"})
  second = fakes.write_run(tmp_path / 'second', [1.0], lineage=record(first, 10))
  third = fakes.write_run(tmp_path / 'third', [1.0], lineage=record(second, 5, record(first, 10)))
  chain = [(str(second), 5, True), (str(first), 10, True), ('published/model', None, False)]
  assert ancestors(third) == chain
  own = lineage.ancestors(third, facts.read_facts(third))
  assert own[1].metrics == {'loss': 1.5} and not own[0].metrics  # one checkpoint is there, the other is not
  assert own[0].changes == ('Learner.z_loss: it was 0, is 1',) and own[2].changes is None
  assert own[0].kept == {'data': 'continue', 'schedule': 'continue', 'optimizer': 'kept'}


def test_what_was_recorded_outlives_the_folders(tmp_path):
  run = fakes.write_run(tmp_path / 'run', [1.0], lineage=record('/gone/b', 5, record('/gone/a', 3)))
  assert ancestors(run) == [('/gone/b', 5, False), ('/gone/a', 3, False)]


def test_a_run_that_began_from_a_checkpoint_of_another(tmp_path):
  first = fakes.write_run(tmp_path / 'first', [1.0])
  for start in (f'{first}@20', f'{first}/checkpoint_20'):
    run = fakes.write_run(tmp_path / start.replace('/', '_'), [1.0], config=f'INITIAL_CHECKPOINT_PATH = {start!r}\n')
    assert ancestors(run) == [(str(first), 20, True)]


def test_folders_that_say_they_come_from_each_other_end(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  fakes.write_run(one, [1.0], lineage=record(two, 1))
  fakes.write_run(two, [1.0], lineage=record(one, 2))
  assert ancestors(one) == [(str(two), 1, True), (str(one), 2, True)]


def test_broken_records_are_left_out(tmp_path):
  run = fakes.write_run(tmp_path / 'run', [1.0])
  for told in ({'parent': 3}, {'parent': str(run), 'step': 'x', 'ancestors': [7, {'step': 1}], 'changes': 2}, []):
    (run / 'run-info.json').write_text(json.dumps({'lineage': told}))
    assert all(step is None for _, step, _ in ancestors(run))
