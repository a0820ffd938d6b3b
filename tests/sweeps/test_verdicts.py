import json

import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import outcomes, statistics, verdicts
from t5x_lite.sweeps.outcomes import COMPLETE, DIVERGED, FAILED, Outcome
from t5x_lite.sweeps.verdicts import ALL_METRICS, BETTER, CANNOT_TELL, WORSE, Plan

_SEEDS = (0, 1, 2)


def _plan(*arms, metrics=('loss',), seeds=_SEEDS, baseline='base'):
  return Plan('sweep', ('base', *arms), baseline, seeds, metrics)


def _rows(arm, values, metric='loss', seeds=_SEEDS):
  return [Outcome(arm, seed, COMPLETE, {metric: value}) for seed, value in zip(seeds, values, strict=True)]


def _of(plan, rows, arm, metric='loss', **options):
  return next(each for each in verdicts.judge(plan, rows, **options)[metric] if each.arm == arm)


@pytest.mark.parametrize('metric, of_less', [('loss', BETTER), ('accuracy', WORSE)])
def test_direction(metric, of_less):
  plan = _plan('less', 'same', metrics=(metric,))
  rows = _rows('base', [1.0, 1.2, 1.4], metric)
  rows += _rows('less', [0.5, 0.71, 0.9], metric) + _rows('same', [1.1, 1.0, 1.45], metric)
  assert _of(plan, rows, 'less', metric).verdict == of_less
  assert _of(plan, rows, 'same', metric).verdict == CANNOT_TELL
  assert _of(plan, rows, 'base', metric).verdict is None


def test_runs_are_paired_by_seed_whatever_their_order():
  plan = _plan('arm')
  rows = _rows('base', [1.0, 2.0, 3.0]) + _rows('arm', [2.91, 1.9, 0.89], seeds=(2, 1, 0))
  found = _of(plan, rows, 'arm')
  assert found.difference.mean == pytest.approx(-0.1)
  assert found.verdict == BETTER  # which unpaired nobody could tell


def test_seeds_that_are_not_shared_are_compared_all_the_same():
  plan = _plan('arm', seeds=(0, 1, 2, 5, 6, 7))
  rows = _rows('base', [1.0, 1.1, 0.9]) + _rows('arm', [2.0, 2.1, 1.9], seeds=(5, 6, 7))
  found = _of(plan, rows, 'arm')
  assert (found.difference.kind, found.verdict) == ('unpaired', WORSE)
  assert 'seeds are not shared: not paired (Welch)' in found.notes


def test_a_seed_without_a_partner_is_left_out_and_said():
  plan = _plan('arm')
  rows = _rows('base', [1.0, 1.1, 0.9]) + _rows('arm', [2.0, 2.1], seeds=(0, 1))
  found = _of(plan, rows, 'arm')
  assert found.difference.runs == (2,)
  assert '2 seeds are shared; 1 run without a partner' in found.notes
  assert found.missing == ('1 of 3 not done yet',)


def test_one_seed_cannot_tell():
  plan = _plan('arm', seeds=(0,))
  found = _of(plan, [*_rows('base', [1.0], seeds=(0,)), *_rows('arm', [0.1], seeds=(0,))], 'arm')
  assert (found.verdict, found.difference.interval, found.seeds_needed) == (CANNOT_TELL, None, None)
  assert found.notes == ('one seed tells nothing of the spread',)


def test_identical_runs_cannot_tell_and_neither_can_three_equal_differences():
  plan = _plan('same', 'less')
  rows = [row for arm, less in (('base', 0), ('same', 0), ('less', 1)) for row in _rows(arm, [2.0 - less] * 3)]
  assert _of(plan, rows, 'same').verdict == CANNOT_TELL
  assert _of(plan, rows, 'same').notes == ('no difference at all',)
  assert _of(plan, rows, 'less').verdict == CANNOT_TELL
  assert _of(plan, rows, 'less').notes == ('all differences are the same: exact test, no interval',)


def test_what_diverged_or_failed_has_no_value_and_is_said():
  plan = _plan('arm')
  rows = [*_rows('base', [1.0, 1.1, 1.2])[:2], Outcome('base', 2, FAILED)]
  rows += [*_rows('arm', [0.5, 0.6, 0.7])[:2], Outcome('arm', 2, DIVERGED, {'loss': 1e9})]
  found = _of(plan, rows, 'arm')
  assert found.summary.mean == pytest.approx(0.55)
  assert found.missing == ('1 of 3 diverged', 'baseline: 1 of 3 failed')


def test_without_a_baseline_to_compare_with():
  plan = _plan('arm')
  found = _of(plan, _rows('arm', [1.0, 2.0, 3.0]), 'arm')
  assert (found.difference, found.verdict) == (None, CANNOT_TELL)
  assert found.missing == ('baseline: 3 of 3 not done yet',)
  nothing = _of(_plan('arm', baseline=None), _rows('arm', [1.0, 2.0, 3.0]), 'arm')
  assert (nothing.verdict, nothing.notes, nothing.best) == (None, (), True)


def test_a_run_without_the_metric():
  rows = [*_rows('base', [1.0, 1.1, 1.2]), *_rows('arm', [1.0, 1.1], seeds=(0, 1)), Outcome('arm', 2, COMPLETE)]
  assert _of(_plan('arm'), rows, 'arm').missing == ('1 of 3 without this metric',)
  rows[-1] = Outcome('arm', 2, COMPLETE, not_finite=('loss',))
  assert _of(_plan('arm'), rows, 'arm').missing == ('1 of 3 not finite',)


def test_bold_is_within_two_deviations_of_the_best():
  plan = _plan('near', 'far')
  rows = _rows('base', [1.0, 1.1, 1.2])  # a standard deviation of 0.1
  rows += _rows('near', [1.29, 1.29, 1.29]) + _rows('far', [1.31, 1.31, 1.31])
  assert [_of(plan, rows, arm).best for arm in ('base', 'near', 'far')] == [True, True, False]


def test_the_family_is_the_arms_of_a_metric_or_everything():
  plan = _plan('a', 'b', metrics=('loss', 'accuracy'))
  rows = []
  for arm, values in {'base': [1.0, 1.2, 1.4], 'a': [0.9, 1.105, 1.3], 'b': [1.1, 1.2, 1.4]}.items():
    rows += [Outcome(arm, seed, COMPLETE, {'loss': v, 'accuracy': v}) for seed, v in enumerate(values)]
  alone = _of(plan, rows, 'a')
  assert alone.adjusted == pytest.approx(2 * alone.difference.p)
  together = _of(plan, rows, 'a', family=ALL_METRICS)
  assert together.adjusted == pytest.approx(4 * alone.difference.p)


@pytest.mark.parametrize('seeds', [2, 5])
def test_without_a_true_difference_it_is_seldom_said(seeds, monkeypatch):
  """Whole sweeps, of which no arm differs: how often any arm is called better, or either (see test_statistics.py)."""
  monkeypatch.setattr(statistics, 'seeds_needed', lambda *_: None)  # No verdict rests on these two, which take longest.
  monkeypatch.setattr(statistics, '_percentiles', lambda means, alpha: (0.0, 0.0))
  sweeps, arms, alpha = 300, 2, 0.1
  rng = np.random.default_rng(seeds)
  plan = _plan(*(f'arm{index}' for index in range(arms)), seeds=tuple(range(seeds)))
  wrong = better = 0
  for values in rng.normal(size=(sweeps, arms + 1, seeds)) + rng.normal(size=(sweeps, 1, seeds)):
    rows = [row for arm, own in zip(plan.arms, values, strict=True) for row in _rows(arm, own, seeds=plan.seeds)]
    said = {result.verdict for result in verdicts.judge(plan, rows, alpha=alpha)['loss']}
    wrong += bool(said & {BETTER, WORSE})
    better += BETTER in said
  error = 3 * (alpha * (1 - alpha) / sweeps) ** 0.5
  assert wrong / sweeps <= alpha + error
  assert better / sweeps <= alpha / 2 + error
  assert wrong  # nor is it never said


def test_wrong_plans_are_refused(tmp_path):
  with pytest.raises(UsageError, match='no folder of a sweep: it has no sweep'):
    verdicts.read_plan(tmp_path)
  (tmp_path / outcomes.SWEEP).write_text('{"name": "a"}')
  with pytest.raises(UsageError, match='not the plan of a sweep'):
    verdicts.read_plan(tmp_path)
  with pytest.raises(UsageError, match="did you mean 'base'"):
    _plan('arm', baseline='base_')
  with pytest.raises(UsageError, match='alpha=1'):
    verdicts.judge(_plan('arm'), [], alpha=1.5)
  with pytest.raises(UsageError, match="did you mean 'metric'"):
    verdicts.judge(_plan('arm'), [], family='metrics')


def test_a_plan_is_read(tmp_path):
  written = {'name': 'n', 'arms': [{'name': 'a'}, {'name': 'b'}], 'baseline': 'b', 'seeds': [3], 'metrics': ['loss']}
  (tmp_path / outcomes.SWEEP).write_text(json.dumps(written))
  assert verdicts.read_plan(tmp_path) == Plan('n', ('a', 'b'), 'b', (3,), ('loss',))
