"""What differs between configurations, and what of it has an effect."""

from __future__ import annotations

import pytest

from t5x_lite.cli.record import may_change
from t5x_lite.reporting import differences
from t5x_lite.reporting.facts import Facts


def facts(values, **bindings):
  return Facts(values, bindings, '', {}, None, (), {})


def kinds(*runs):
  return {line.name: line.kind for line in differences.compare(runs, may_change)}


def test_values_that_differ_come_first_and_are_told_by_what_they_are():
  one = {'Learner.z_loss': '0.0', 'LoopConfig.log_period': '10', 'train.random_seed': '0', 'Same.one': '1'}
  other = {'Learner.z_loss': '0.1', 'LoopConfig.log_period': '20', 'train.random_seed': '1', 'Same.one': '1'}
  assert list(kinds(facts(one), facts(other)).items()) == [
    ('Learner.z_loss', 'differs'),
    ('LoopConfig.log_period', 'how'),
    ('train.random_seed', 'seed'),
    ('Same.one', 'same'),
  ]


def test_scopes_are_told_only_where_they_differ():
  agree = {'train/D.a': '1', 'eval/D.a': '1', 'train/D.b': '1', 'eval/D.b': '1'}
  assert kinds(facts(agree), facts(agree | {'eval/D.b': '2'})) == {
    'D.a': 'same', 'train/D.b': 'same', 'eval/D.b': 'differs'
  }  # fmt: skip


def test_a_parameter_that_only_one_run_has_differs():
  lines = differences.compare([facts({'A.x': '1'}), facts({'B.y': '2'})], may_change)
  assert {(line.name, line.values, line.kind) for line in lines} == {
    ('A.x', ('1', None), 'differs'), ('B.y', (None, '2'), 'differs')
  }  # fmt: skip


@pytest.mark.parametrize(
  ('parameter', 'switch', 'off', 'on'),
  [
    ('T5Config.capacity_factor', 'T5Config.num_experts', '0', '8'),
    ('T5Config.rotary_base', 'T5Config.positions', "'relative'", "'rotary'"),
    ('T5Config.relative_attention_num_buckets', 'T5Config.positions', "'rotary'", "'relative'"),
    ('BertConfig.num_labels', 'BertConfig.heads', "('lm',)", "('lm', 'classifier')"),
    ('train/DatasetConfig.seed', 'train/DatasetConfig.shuffle', 'False', 'True'),
  ],
)
def test_a_parameter_is_inert_only_if_it_is_so_in_every_run(parameter, switch, off, on):
  def kind(first, second):
    runs = facts({parameter: '1', switch: first}), facts({parameter: '2', switch: second})
    return {line.name.rpartition('/')[2]: line.kind for line in differences.compare(runs, may_change)}[
      parameter.rpartition('/')[2]
    ]

  assert kind(off, off) == 'inert'
  assert kind(off, on) != 'inert' and kind(on, on) != 'inert'


def test_a_macro_that_changes_no_resolved_value_is_inert():
  values = {'A.x': '1'}
  assert kinds(facts(values, RATE='0.1'), facts(values, RATE='0.2')) == {'RATE': 'inert', 'A.x': 'same'}
  assert 'RATE' not in kinds(facts(values, RATE='0.1'), facts({'A.x': '2'}, RATE='0.2'))


def test_a_run_before_its_first_checkpoint_makes_no_difference():
  assert kinds(facts({'A.x': '1'}), facts({}, RATE='1')) == {'A.x': 'same'}


def test_runs_that_differ_in_seeds_and_folders_are_one_arm():
  base = {'A.x': '1', 'train.random_seed': '0', 'LoopConfig.log_period': '5', 'train.model_dir': "'a'"}
  seed = base | {'train.random_seed': '1', 'train.model_dir': "'b'"}
  others = [base | {'A.x': '2'}, base | {'LoopConfig.log_period': '6'}]
  assert differences.arms([facts(values) for values in (base, others[0], seed, others[1], {}, {})]) == [
    0,
    1,
    0,
    2,
    3,
    4,
  ]


def test_a_seed_that_is_run_twice_is_no_second_sample():
  runs = [{'A.x': '1', 'train.random_seed': seed, 'train.model_dir': name} for name, seed in ('a0', 'b1', 'c0', 'd1')]
  assert differences.arms([facts(values) for values in runs]) == [0, 0, 1, 1]
