"""Which checkpoint a branch begins with, and which folder it has."""

import json

import jax
import numpy as np
import pytest

from t5x_lite import run_folder, train
from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.runs import branching
from t5x_lite.training import checkpoints, optimizers, schedules, warmstart


def _save(folder, steps, progress=None):
  checkpointer = checkpoints.Checkpointer(folder)
  for step in steps:
    checkpointer.save(
      step, {'step': np.int32(step)}, data_state={'at': step}, config={'a.b': '1'}, progress=progress or {}
    )
  checkpointer.close()


def _entry(parent, step, *ancestors):
  return {'parent': str(parent), 'step': step, 'config': '', 'changes': [], 'ancestors': list(ancestors)}


@pytest.fixture(scope='module')
def parent(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'parent'
  progress = {'improvement': {'best_step': 2}, 'lineage': _entry('/old', 7)}
  _save(folder, [2, 4], progress)
  (folder / 'config.gin').write_text('')
  return folder


@pytest.mark.parametrize('which, step', [('', 4), ('@2', 2), ('@best', 2), ('/checkpoint_2', 2)])
def test_the_parent_is_found(parent, tmp_path, which, step):
  found = branching.find(f'{parent}{which}', str(tmp_path))
  assert (found.run, found.step, found.folder) == (parent, step, parent / f'checkpoint_{step}')
  assert (found.data_state, found.config, found.lineage) == ({'at': step}, {'a.b': '1'}, _entry('/old', 7))


@pytest.mark.parametrize(
  'which, told',
  [('@3', 'has no checkpoint of step 3: it has 2, 4'), ('@all', 'one parent'), ('_no', 'no run there')],
)
def test_no_such_checkpoint(parent, tmp_path, which, told):
  with pytest.raises(UsageError, match=told):
    branching.find(f'{parent}{which}', str(tmp_path))
  with pytest.raises(UsageError, match='is the parent'):
    branching.find(str(parent), str(parent))


def test_a_branch_that_was_cut_off_before_its_first_checkpoint_begins_where_it_began(parent, tmp_path):
  (tmp_path / run_folder.RUN_INFO).write_text(json.dumps({'lineage': _entry(parent, 2)}))
  assert branching.find(str(parent), str(tmp_path)).step == 2  # though the newest is 4
  assert branching.find(f'{parent}@4', str(tmp_path)).step == 4  # said aloud, and nothing is lost


def test_a_branch_with_a_checkpoint_goes_on_with_it_and_is_no_other_branch(parent, tmp_path):
  _save(tmp_path / 'branch', [5], {'lineage': _entry(parent, 4, {'parent': '/old'})})
  for which in ('', '@4', '@best'):
    assert branching.find(f'{parent}{which}', str(tmp_path / 'branch')) is None
  assert branching.lineage_of(tmp_path / 'branch') == _entry(parent, 4, {'parent': '/old'})
  with pytest.raises(UsageError, match=f'holds a branch of {parent}@4, not of {parent}@2: choose another folder'):
    branching.find(f'{parent}@2', str(tmp_path / 'branch'))
  _save(tmp_path / 'run', [5])
  with pytest.raises(UsageError, match="holds a run that is no other's branch"):
    branching.find(str(parent), str(tmp_path / 'run'))


@pytest.mark.parametrize(
  'flags, told',
  [
    (['--branch_data=restart', '--gin_file=t5_tiny.gin'], 'expected --branch_from=RUN@STEP too'),
    (['--branch_from=nowhere@3'], 'no config.gin there; expected the MODEL_DIR of a run'),
  ],
)
def test_flags_that_are_no_branch(flags, told, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert train.main(['train', *flags]) == 2
  error = capsys.readouterr().err
  assert told in error and error.count('\n') == 1


@pytest.mark.parametrize(
  'schedule, origin_step, total, told',
  [('restarts', 2, 9, "did you mean 'restart'"), ('continue', 4, 4, 'expected more, such as --gin.TRAIN_STEPS=8')],
)
def test_rules_that_cannot_be(parent, tmp_path, schedule, origin_step, total, told):
  origin = branching.find(f'{parent}@{origin_step}', str(tmp_path))
  with pytest.raises(UsageError, match=told):
    branching.check_values(schedule, origin, total, None)
  branching.check_values('restart', origin, total, None)


def test_schedules_go_back_to_their_beginning_and_moments_stay():
  params = {'w': np.ones(3, np.float32)}
  optimizer = optimizers.adamw(schedules.create_learning_rate_scheduler('constant'))
  state = jax.tree.map(lambda leaf: leaf + 3, optimizer.init(params))
  before, after = tree.named_leaves(state), tree.named_leaves(warmstart.at_step(state, 0))
  changed = {name: int(leaf) for name, leaf in after.items() if not np.array_equal(leaf, before[name])}
  assert len(changed) == 1 and set(changed.values()) == {0}
  assert [int(leaf) for name, leaf in before.items() if name.endswith('count')] == [3, 3]
  state = optimizers.adamw(1e-3).init(params)  # a rate that is a number has no place in a schedule
  assert jax.tree.leaves(warmstart.at_step(state, 7)) == jax.tree.leaves(state)
