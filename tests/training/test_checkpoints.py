import importlib.util
import json
import logging
import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.training import checkpoints, integrity, orbax_store

_SPEC = importlib.util.spec_from_file_location('loop_fakes', pathlib.Path(__file__).with_name('loop_fakes.py'))
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)


def train_some(trainer, state, first, last):
  for step in range(first, last + 1):
    state, _ = trainer.train_step(state, trainer.shard_batch(fakes.make_batch(step)))
  return state


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, expected)


def save_all(directory, steps, *, losses=None, keep=3, trainer=None, close=True):
  """Trains and saves at every one of `steps`; returns the states by step, on the host."""
  trainer = trainer or fakes.FakeTrainer()
  checkpointer = checkpoints.Checkpointer(directory, keep=keep)
  state, done, states = trainer.init(), 0, {}
  for step in steps:
    state = train_some(trainer, state, done + 1, step)
    done, states[step] = step, jax.tree.map(np.array, jax.device_get(state))
    metrics = {'loss': losses[step]} if losses and step in losses else None
    data_state = {'position': step, 'shards': {'0': {'epoch': 1}}}
    checkpointer.save(step, state, data_state=data_state, config={'a.b': '1'}, progress={'n': step}, metrics=metrics)
  if close:
    checkpointer.close()
  return states


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A directory with good checkpoints 1, 2 and 3, never changed, and their states."""
  directory = tmp_path_factory.mktemp('saved')
  return directory, save_all(directory, [1, 2, 3])


@pytest.fixture
def copied(saved, tmp_path):
  """A copy of it to damage."""
  shutil.copytree(saved[0], tmp_path / 'run')
  return tmp_path / 'run', saved[1]


def test_everything_is_restored_exactly(saved):
  directory, states = saved
  restored = checkpoints.Checkpointer(directory).restore(fakes.FakeTrainer().abstract_state)
  assert_same(restored.state, states[3])
  assert restored.step == int(restored.state.step) == 3
  assert restored.data_state == {'position': 3, 'shards': {'0': {'epoch': 1}}}
  assert (restored.config, restored.progress) == ({'a.b': '1'}, {'n': 3})


def test_a_save_under_way_does_not_see_the_steps_after_it_although_they_donate_the_state(tmp_path):
  trainer = fakes.FakeTrainer(devices=2, width=4096)  # Large enough to be still on its way to the disk.
  checkpointer = checkpoints.Checkpointer(tmp_path)
  state = train_some(trainer, trainer.init(), 1, 1)
  expected = jax.tree.map(np.array, jax.device_get(state))
  checkpointer.save(1, state, data_state={}, config={})
  train_some(trainer, state, 2, 6)
  checkpointer.close()
  assert_same(checkpoints.Checkpointer(tmp_path).restore(trainer.abstract_state).state, expected)


@pytest.mark.parametrize('devices', [4, 1])
def test_restoring_onto_fewer_devices_and_back(tmp_path, devices):
  states = save_all(tmp_path, [2], trainer=fakes.FakeTrainer(devices=8))
  fewer = fakes.FakeTrainer(devices=devices)
  restored = checkpoints.Checkpointer(tmp_path).restore(fewer.abstract_state)
  assert_same(restored.state, states[2])
  placed = jax.tree.map(lambda x: x.sharding, (restored.state, fewer.abstract_state))
  assert placed[0] == placed[1]
  assert len(restored.state.params['table'].addressable_shards) == devices
  checkpointer = checkpoints.Checkpointer(tmp_path)
  checkpointer.save(3, restored.state, data_state={}, config={})
  checkpointer.close()
  assert_same(checkpoints.Checkpointer(tmp_path).restore(fakes.FakeTrainer(devices=8).abstract_state).state, states[2])


def largest_file(folder):
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def delete_array(folder):
  largest_file(folder / 'state').unlink()


def truncate_array(folder):
  path = largest_file(folder / 'state')
  path.write_bytes(path.read_bytes()[:-1])


def flip_bit_of_array(folder):
  path = largest_file(folder / 'state')
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


def delete_record(folder):
  (folder / integrity.RECORD).unlink()


def truncate_record(folder):
  path = folder / integrity.RECORD
  path.write_bytes(path.read_bytes()[:-7])


def delete_data_state(folder):
  shutil.rmtree(folder / 'data')


def empty_everything(folder):
  for path in folder.rglob('*'):
    if path.is_file():
      path.write_bytes(b'')


DAMAGES = [
  delete_array,
  truncate_array,
  flip_bit_of_array,
  delete_record,
  truncate_record,
  delete_data_state,
  empty_everything,
]


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(copied, caplog, damage):
  directory, states = copied
  damage(directory / 'checkpoint_3')
  checkpointer = checkpoints.Checkpointer(directory)
  restored = checkpointer.restore(fakes.FakeTrainer().abstract_state)
  assert restored.step == restored.data_state['position'] == 2
  assert_same(restored.state, states[2])
  (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
  assert 'checkpoint_3 is damaged' in warning
  assert 'using checkpoint_2' in warning
  assert '\n' not in warning
  assert (directory / 'checkpoint_3.damaged').is_dir()
  checkpointer.save(3, restored.state, data_state={}, config={})  # Its step can be saved again.
  checkpointer.close()
  assert checkpoints.Checkpointer(directory).latest_step() == 3


def test_any_changed_byte_of_any_file_is_found(saved, tmp_path):
  rng = random.Random(0)
  recorded = json.loads((saved[0] / 'checkpoint_3' / integrity.RECORD).read_text())['files']
  assert len(recorded) > 10
  folder = tmp_path / 'checkpoint_3'
  shutil.copytree(saved[0] / 'checkpoint_3', folder)
  assert integrity.find_damage(folder) is None
  for name in recorded:
    path = folder / name
    good = path.read_bytes()
    bad = bytearray(good)
    bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    path.write_bytes(bad)
    assert name in integrity.find_damage(folder)
    path.write_bytes(good)
  assert integrity.find_damage(folder) is None


def test_two_damaged_ones_are_both_passed_over(copied, caplog):
  directory, states = copied
  flip_bit_of_array(directory / 'checkpoint_3')
  delete_array(directory / 'checkpoint_2')
  restored = checkpoints.Checkpointer(directory).restore(fakes.FakeTrainer().abstract_state)
  assert_same(restored.state, states[1])
  assert len([r for r in caplog.records if 'is damaged' in r.getMessage()]) == 2


def test_no_undamaged_checkpoint_is_an_error_never_a_start_from_scratch(copied):
  directory, _ = copied
  for step in (1, 2, 3):
    truncate_array(directory / f'checkpoint_{step}')
  for _ in range(2):  # Nor is it one at the second attempt.
    with pytest.raises(UsageError, match='all 3 checkpoints'):
      checkpoints.Checkpointer(directory).restore(fakes.FakeTrainer().abstract_state)


def test_a_damaged_older_checkpoint_does_not_stand_in_the_way(copied, caplog):
  directory, _ = copied
  empty_everything(directory / 'checkpoint_1')
  checkpointer = checkpoints.Checkpointer(directory)
  restored = checkpointer.restore(fakes.FakeTrainer().abstract_state)
  checkpointer.save(4, restored.state, data_state={}, config={}, metrics={'loss': 1.0})
  checkpointer.close()
  assert restored.step == 3
  assert 'checkpoint_1 is damaged' in caplog.text


def test_what_a_killed_save_leaves_is_no_checkpoint(copied):
  directory, _ = copied
  (directory / 'checkpoint_3').rename(directory / 'checkpoint_3.orbax-checkpoint-tmp')
  assert checkpoints.Checkpointer(directory).restore(fakes.FakeTrainer().abstract_state).step == 2
  for step in (1, 2):
    shutil.rmtree(directory / f'checkpoint_{step}')
  assert checkpoints.Checkpointer(directory).restore(fakes.FakeTrainer().abstract_state) is None


def test_the_latest_are_kept_and_the_best_also_over_restarts(tmp_path):
  losses = {1: 5.0, 2: 1.0, 3: float('nan'), 4: 3.0, 6: 2.0}
  save_all(tmp_path, range(1, 7), losses=losses, keep=2)
  assert integrity.steps(tmp_path) == [2, 5, 6]
  checkpointer = checkpoints.Checkpointer(tmp_path, keep=2)
  state = checkpointer.restore(fakes.FakeTrainer().abstract_state).state
  for step, loss in ((7, 4.0), (8, 4.0)):
    checkpointer.save(step, state, data_state={}, config={}, metrics={'loss': loss})
  checkpointer.wait()
  assert integrity.steps(tmp_path) == [2, 7, 8]
  for step, loss in ((9, 0.5), (10, 4.0), (11, 4.0)):
    checkpointer.save(step, state, data_state={}, config={}, metrics={'loss': loss})
  checkpointer.close()
  assert integrity.steps(tmp_path) == [9, 10, 11]
  assert not (tmp_path / '.trash').exists()


def test_the_old_checkpoint_outlives_a_save_that_fails(tmp_path, monkeypatch):
  save_all(tmp_path, [1], keep=1)

  def disk_full(folder):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(integrity, 'write_record', disk_full)
  checkpointer = checkpoints.Checkpointer(tmp_path, keep=1)
  state = checkpointer.restore(fakes.FakeTrainer().abstract_state).state
  checkpointer.save(2, state, data_state={}, config={})
  with pytest.raises(UsageError, match=r'No space left on device\); the last good one is .*checkpoint_1'):
    checkpointer.wait()
  monkeypatch.undo()
  assert checkpoints.Checkpointer(tmp_path).latest_step() == 1


def test_another_architecture_is_refused_before_any_array_is_read(saved, monkeypatch):
  monkeypatch.setattr(orbax_store, 'read_arrays', lambda *_, **__: pytest.fail('read an array'))
  with pytest.raises(UsageError) as caught:
    checkpoints.Checkpointer(saved[0]).restore(fakes.FakeTrainer(width=4).abstract_state)
  message = str(caught.value)
  assert 'holds another model' in message
  assert 'params/table is [16, 8] there and [16, 4] here' in message
  assert 'opt_state' not in message
  assert '\n' not in message


def test_missing_and_unexpected_parameters_are_named_and_counted(saved):
  abstract = fakes.FakeTrainer().abstract_state
  extra = {f'more{i}': jax.ShapeDtypeStruct((3,), jnp.float32) for i in range(7)}
  other = abstract.replace(params={'table': abstract.params['table'], **extra})
  with pytest.raises(UsageError) as caught:
    checkpoints.Checkpointer(saved[0]).restore(other)
  assert 'params/more0 [3] is missing there' in str(caught.value)
  assert str(caught.value).endswith('and 4 more')
  with pytest.raises(UsageError, match=r'params/out \[8, 16\] is only there'):
    checkpoints.Checkpointer(saved[0]).restore(abstract.replace(params={'table': abstract.params['table']}))


def test_another_optimizer_and_another_dtype_are_told_apart_from_another_model(saved):
  abstract = fakes.FakeTrainer().abstract_state
  with pytest.raises(UsageError, match='state of another optimizer: opt_state'):
    checkpoints.Checkpointer(saved[0]).restore(abstract.replace(opt_state={'other': abstract.step}))
  half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), abstract.params)
  with pytest.raises(UsageError, match='params/out is float32 there and bfloat16 here'):
    checkpoints.Checkpointer(saved[0]).restore(abstract.replace(params=half))


def test_parameters_alone_from_a_run_or_from_a_step(copied, caplog):
  directory, states = copied
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fakes.FakeTrainer().abstract_state.params)
  assert_same(checkpoints.restore_params(directory, abstract), states[3].params)
  assert_same(checkpoints.restore_params(directory / 'checkpoint_1', abstract), states[1].params)
  flip_bit_of_array(directory / 'checkpoint_3')
  assert_same(checkpoints.restore_params(directory, abstract), states[2].params)
  assert 'checkpoint_3 is damaged' in caplog.text
  assert (directory / 'checkpoint_3').is_dir()  # A reader renames nothing.
  with pytest.raises(UsageError, match='checkpoint_3 is damaged'):
    checkpoints.restore_params(directory / 'checkpoint_3', abstract)
  with pytest.raises(UsageError, match='another model'):
    checkpoints.restore_params(directory, {'table': abstract['table']})


def test_what_a_run_directory_says_about_itself(saved, tmp_path):
  directory, _ = saved
  assert checkpoints.read_config(directory) == {'a.b': '1'}
  assert checkpoints.latest_step(directory) == 3
  assert checkpoints.is_finished(directory, 3)
  assert not checkpoints.is_finished(directory, 4)
  assert not checkpoints.is_finished(tmp_path, 1)
  assert checkpoints.latest_step(tmp_path / 'none') is None
  assert checkpoints.Checkpointer(tmp_path / 'none').read_config() is None
  with pytest.raises(UsageError, match=r'expected a folder checkpoint_<step>'):
    checkpoints.read_config(tmp_path)


def test_saving_and_restoring_print_and_log_nothing(tmp_path, caplog, capfd):
  with caplog.at_level(logging.DEBUG, logger='absl'):
    save_all(tmp_path, [1, 2], losses={1: 1.0})
    checkpoints.Checkpointer(tmp_path).restore(fakes.FakeTrainer().abstract_state)
  assert [record.pathname for record in caplog.records if 'orbax' in record.pathname] == []
  assert capfd.readouterr() == ('', '')


def test_numbers_of_checkpoints_to_keep_must_make_sense(tmp_path):
  with pytest.raises(UsageError, match='keep >= 1'):
    checkpoints.Checkpointer(tmp_path, keep=0)
  with pytest.raises(UsageError, match='keep_best >= 0'):
    checkpoints.CheckpointConfig(keep_best=-1)


def test_two_runs_in_one_directory_are_told_so(copied):
  directory, _ = copied
  first, second = checkpoints.Checkpointer(directory), checkpoints.Checkpointer(directory)
  state = first.restore(fakes.FakeTrainer().abstract_state).state
  for checkpointer in (first, second):
    checkpointer.latest_step()
  first.save(4, state, data_state={}, config={})
  first.close()
  with pytest.raises(UsageError, match='is another run writing'):
    second.save(4, state, data_state={}, config={})
  second.close()
