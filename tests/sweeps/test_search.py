"""Samplers and pruners of Optuna: what is chosen follows from the outcomes so far, and from nothing else."""

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import outcomes, search, spec, study

pytest.importorskip('optuna')


def make(**given):
  values = {
    'base': ('base.gin',),
    'metrics': ('text/loss',),
    'axes': {'size': {'small': 'SIZE=1', 'large': 'SIZE=2'}},
    'ranges': {'rate': ('RATE', 0.0, 1.0)},
    'sampler': 'tpe',
    'num_arms': 25,
  }
  return spec.Sweep(**values | given)


def searched(sweep, loss):
  """The arms of a whole search, and their outcomes."""
  arms, ended = list(spec.arms(sweep)), []
  while True:
    for arm in arms[len(ended) :]:
      ended.append(outcomes.Outcome(arm.name, 0, 'complete', {'text/loss': loss(arm)}))
    arm = search.propose(sweep, arms, ended)
    if arm is None:
      return arms, ended
    arms.append(arm)


def loss_of(arm):
  return (float(arm.axes['rate']) - 0.8) ** 2 + (arm.axes['size'] == 'small')


def test_tpe_finds_what_is_good_and_does_so_again_after_any_interruption():
  arms, ended = searched(make(), loss_of)
  assert len({arm.name for arm in arms}) == 25
  late = arms[-8:]
  assert sum(loss_of(arm) < 0.1 for arm in late) >= 5 > sum(loss_of(arm) < 0.1 for arm in arms[:8])
  for cut in (3, 17):
    again = search.propose(make(), arms[:cut], ended[:cut])
    assert again == arms[cut]


def test_a_space_of_few_combinations_is_searched_to_its_end():
  arms, _ = searched(make(ranges={}), lambda arm: 1.0)
  assert sorted(arm.name for arm in arms) == ['large', 'small']


def test_runs_without_the_metric_are_failed_trials(tmp_path):
  sweep = make()
  kept = study.open_study(sweep, tmp_path, None, 'demo')
  arm = spec.arms(sweep)[0]
  kept.note(arm, [outcomes.Outcome(arm.name, 0, 'diverged')], {})
  again = study.open_study(sweep, tmp_path, None, 'demo')
  again.note(arm, [outcomes.Outcome(arm.name, 0, 'diverged')], {})
  import optuna

  trials = optuna.load_study(study_name='demo', storage=f'sqlite:///{tmp_path / study.DATABASE}').trials
  assert [(trial.state.name, trial.user_attrs['arm']) for trial in trials] == [('FAIL', arm.name)]


def test_the_median_ends_what_is_worse_than_most_and_nothing_is_pruned_unasked(tmp_path):
  values = {f'v{n}': f'RATE={n}' for n in range(6)}
  for pruner in ('median', None):
    sweep = make(axes={'rate': values}, ranges={}, sampler='grid', pruner=pruner)
    folder = tmp_path / str(pruner)
    kept = study.open_study(sweep, folder, None, 'demo')
    for n, arm in enumerate(spec.arms(sweep)[:5]):
      kept.note(arm, [outcomes.Outcome(arm.name, 0, 'complete', {'text/loss': n})], {10: 5.0 + n, 20: float(n)})
    assert kept.prunes({10: 9.5}) == (pruner == 'median')
    assert not kept.prunes({10: 5.5}) and not kept.prunes({})


def test_a_database_that_does_not_answer_is_told_in_one_line(tmp_path):
  with pytest.raises(UsageError, match='--storage=') as caught:
    study.open_study(make(), tmp_path, f'sqlite:///{tmp_path}/no/such/folder/study.db', 'demo')
  assert '\n' not in str(caught.value)
