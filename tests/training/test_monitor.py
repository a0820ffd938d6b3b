import json
import math

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.training.monitor import (
  DivergenceMonitor,
  DivergenceRule,
  EarlyStopping,
  ImprovementTracker,
  TrainingDiverged,
)


def feed(monitor, losses, start=1, **extra):
  for step, loss in enumerate(losses, start):
    monitor.update(step, {'loss': loss, **extra})


@pytest.mark.parametrize('loss', [math.nan, math.inf, -math.inf])
def test_the_first_nonfinite_loss_stops_the_run(loss):
  monitor = DivergenceMonitor(DivergenceRule())
  feed(monitor, [5.0, 4.0])
  with pytest.raises(TrainingDiverged, match=r'step 3.*loss is (nan|-?inf)'):
    monitor.update(3, {'loss': loss})


def test_a_nonfinite_gradient_or_parameter_stops_the_run_although_the_loss_is_finite():
  with pytest.raises(TrainingDiverged, match='gradient is not finite'):
    DivergenceMonitor(DivergenceRule()).update(1, {'loss': 1.0, 'nonfinite': 1.0})
  tolerant = DivergenceMonitor(DivergenceRule(max_nonfinite_steps=5))
  with pytest.raises(TrainingDiverged, match='parameters are no longer finite'):
    tolerant.update(1, {'loss': 1.0, 'param_norm': math.nan})


def test_tolerated_nonfinite_steps_must_be_consecutive():
  monitor = DivergenceMonitor(DivergenceRule(max_nonfinite_steps=2))
  feed(monitor, [1.0, math.nan, math.nan, 1.0, math.nan, math.nan])
  assert monitor.suspicious
  with pytest.raises(TrainingDiverged, match='2 steps before'):
    monitor.update(7, {'loss': math.nan})


def test_a_loss_above_three_medians_stops_at_exactly_the_twentieth_step():
  monitor = DivergenceMonitor(DivergenceRule())
  feed(monitor, [2.0] * 50)
  feed(monitor, [6.01] * 19, start=51)
  assert monitor.suspicious
  with pytest.raises(TrainingDiverged, match=r'step 70.*3 times.*20 steps'):
    monitor.update(70, {'loss': 6.01})


def test_one_usual_loss_starts_the_count_afresh():
  monitor = DivergenceMonitor(DivergenceRule())
  feed(monitor, [2.0] * 50)
  for _ in range(10):
    feed(monitor, [6.01] * 19 + [5.99])
    assert not monitor.suspicious


def test_a_slowly_exploding_loss_does_not_take_its_median_along():
  monitor = DivergenceMonitor(DivergenceRule(window=30))
  feed(monitor, [1.0] * 40)
  with pytest.raises(TrainingDiverged):
    feed(monitor, [3.5 + 0.1 * i for i in range(100)], start=41)


def test_losses_of_the_beginning_and_negative_ones_are_no_divergence():
  monitor = DivergenceMonitor(DivergenceRule())
  feed(monitor, [1.0] * 5 + [100.0] * 14)  # Too few to have a median.
  negative = DivergenceMonitor(DivergenceRule())
  feed(negative, [-2.0] * 40 + [-1.0] * 40)
  assert not negative.suspicious


def test_a_resumed_monitor_stops_where_the_uninterrupted_one_does():
  losses = [2.0] * 50 + [7.0] * 19
  whole = DivergenceMonitor(DivergenceRule())
  feed(whole, losses)
  first, second = DivergenceMonitor(DivergenceRule()), DivergenceMonitor(DivergenceRule())
  feed(first, losses[:60])
  second.set_state(json.loads(json.dumps(first.get_state())))
  feed(second, losses[60:], start=61)
  assert second.get_state() == whole.get_state()
  with pytest.raises(TrainingDiverged):
    second.update(70, {'loss': 7.0})


def test_early_stopping_counts_evaluations_that_do_not_improve_by_min_delta():
  tracker = ImprovementTracker(EarlyStopping(patience=3, min_delta=0.1))
  for step, loss in enumerate([5.0, 4.0, 3.95, 3.91]):
    tracker.update(step, loss)
  assert not tracker.exhausted
  tracker.update(4, 3.89)  # An improvement of 0.11 on the best, though of 0.02 on the last.
  assert tracker.best == 3.89
  for step, loss in enumerate([3.85, math.nan, 3.85], 5):
    assert not tracker.exhausted
    tracker.update(step, loss)
  assert tracker.exhausted
  assert tracker.best_step == 4
  resumed = ImprovementTracker(EarlyStopping(patience=3))
  resumed.set_state(json.loads(json.dumps(tracker.get_state())))
  assert resumed.exhausted
  assert not ImprovementTracker(EarlyStopping()).exhausted


def test_early_stopping_is_off_by_default_and_refuses_nonsense():
  tracker = ImprovementTracker(EarlyStopping())
  for step in range(100):
    tracker.update(step, 1.0)
  assert not tracker.exhausted
  with pytest.raises(UsageError, match='patience'):
    EarlyStopping(patience=-1)


@pytest.mark.parametrize('bad', [{'window': 0}, {'max_nonfinite_steps': -1}, {'patience': -1}, {'factor': 0.5}])
def test_a_rule_that_makes_no_sense_is_refused(bad):
  with pytest.raises(UsageError, match='divergence rule: ' + next(iter(bad))):
    DivergenceRule(**bad)
