"""A run's configuration, kept: it repeats the run, and it tells a rerun that continues from one that changes."""

from __future__ import annotations

import pytest

from t5x_lite.cli import record
from t5x_lite.core import errors


@pytest.mark.parametrize(
  'flags',
  [
    [],
    ['--gin.STEPS=3', '--gin.MODEL_DIR=/x'],
    ["--gin.MODEL_DIR=it's", '--gin.RATE=1e-30', '--gin.test/Reader.sizes=(5,)'],
    ['--gin.go.train=None', '--gin.go.shuffle=False'],
    ['--gin.OPTIM=@other/Optim()', '--gin.other/Optim.rate=0.5'],
  ],
)
def test_config_gin_alone_repeats_the_run(run, folder, flags):
  first = run(*flags)
  first.record.write(folder / 'kept')
  assert (folder / 'kept' / 'config.gin').read_text() == first.record.text
  again = run('--gin_file=kept/config.gin')
  assert again.got == first.got and again.record == first.record
  elsewhere = run('--gin_file=kept/config.gin', '--gin.MODEL_DIR=/new')
  assert elsewhere.got == {**first.got, 'folder': '/new'}
  assert record.compare(first.record.values, elsewhere.record.values) == [
    f"go.folder: {first.record.values['go.folder']} -> '/new'"
  ]


def test_macros_that_no_binding_uses_any_more_are_left_out(run, folder):
  first = run('--gin.go.optim=@Optim()')
  assert 'OPTIM =' not in first.record.text and 'RATE =' in first.record.text
  first.record.write(folder)
  assert run('--gin_file=config.gin').got == first.got


def test_values_are_resolved_and_include_defaults(run):
  values = run('--gin.RATE=2').record.values
  assert values['go.steps'] == '10' and values['go.lengths'] == "{'inputs': 5, 'targets': 10}"
  assert values['go.optim'] == '@Optim()' and values['go.shuffle'] == 'True'
  assert values['train/Reader.batch'] == '4' and values['test/Reader.batch'] == '2'
  assert values['OPTIM/Optim.rate'] == '2.0' and values['OPTIM/Optim.momentum'] == 'None'


def test_how_a_value_was_written_makes_no_difference(run):
  """An int for a float, a default said aloud, a macro by another name: the run is the same."""
  one = run().record.values
  two = run('--gin.RATE=1.0', '--gin.go.shuffle=True', '--gin.Optim.momentum=None').record.values
  assert record.compare(one, two) == []


def test_summary_names_what_scopes_share_once():
  values = {'train/D.batch': '8', 'eval/D.batch': '8', 'train/D.split': "'a'", 'eval/D.split': "'b'"}
  assert record.summary(values) == ['D.batch = 8', "train/D.split = 'a'", "eval/D.split = 'b'"]


BEFORE = {
  'train.model_dir': "'/a'",
  'LoopConfig.total_steps': '100',
  'LoopConfig.eval_period': '10',
  'MESH/MeshShape.data': '-1',
  'train/DatasetConfig.batch_size': '8',
  'eval/DatasetConfig.batch_size': '8',
  'train/DatasetConfig.prefetch': '2',
  'OPTIMIZER/adafactor.decay_rate': '0.8',
}


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('train.model_dir', "'/b'"),
    ('LoopConfig.total_steps', '200'),
    ('LoopConfig.eval_period', '20'),
    ('MESH/MeshShape.data', '4'),
    ('train/DatasetConfig.prefetch', '0'),
    ('Learner.num_microbatches', '4'),
  ],
)
def test_how_far_how_often_and_on_what_a_run_goes_may_change(key, value):
  record.ConfigRecord('', {**BEFORE, key: value}).check(BEFORE)


def test_what_it_computes_may_not_change_and_is_named_once():
  after = {**BEFORE, 'train/DatasetConfig.batch_size': '16', 'eval/DatasetConfig.batch_size': '16'}
  del after['OPTIMIZER/adafactor.decay_rate']
  after['OPTIMIZER/adamw.b1'] = '0.9'
  with pytest.raises(errors.UsageError) as error:
    record.ConfigRecord('', after).check(BEFORE)
  assert '\n' not in str(error.value) and '--allow_config_change' in str(error.value)
  assert record.compare(BEFORE, after) == [
    'adafactor.decay_rate: 0.8 -> not set',
    'adamw.b1: not set -> 0.9',
    'DatasetConfig.batch_size: 8 -> 16',
  ]
  record.ConfigRecord('', after, allow_change=True).check(BEFORE)


def test_the_flag_allows_a_change(run):
  assert not run().record.allow_change
  assert run('--allow_config_change').record.allow_change


def test_writing_replaces_the_file_as_a_whole(tmp_path):
  record.ConfigRecord('X = 1\n', {}).write(tmp_path)
  record.ConfigRecord('X = 2\n', {}).write(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['config.gin']
  assert (tmp_path / 'config.gin').read_text() == 'X = 2\n'
