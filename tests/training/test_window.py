import json
import math

import jax
import jax.numpy as jnp
import pytest

from t5x_lite.training import window as window_lib


def metrics(loss_sum, weight, **extra):
  return {'loss': loss_sum / weight, 'loss_sum': loss_sum, 'weight_sum': weight, 'tokens': weight, **extra}


@pytest.fixture
def clock(monkeypatch):
  """A clock that only the test moves."""
  now = [100.0]
  monkeypatch.setattr(window_lib.time, 'perf_counter', lambda: now[0])
  return now


def make(**workload):
  return window_lib.Window(window_lib.Workload(positions=20, **workload))


def test_losses_are_weighted_by_tokens_and_norms_by_steps(clock):
  window = make()
  window.add(metrics(30.0, 10.0, grad_norm=1.0, param_norm=5.0))
  window.add(metrics(2.0, 2.0, grad_norm=3.0, param_norm=7.0))
  row = window.take()
  assert row['loss'] == pytest.approx(32 / 12)
  assert (row['grad_norm'], row['param_norm']) == (2.0, 7.0)
  assert row['useful_token_fraction'] == pytest.approx(12 / 40)
  assert math.isnan(window.take()['loss'])  # The next period begins empty.


def test_speed_counts_neither_pauses_nor_what_came_before_the_clock_started(clock):
  window = make(flops=1e12, num_devices=2)
  window.add(metrics(3.0, 10.0))
  clock[0] += 50.0
  assert window.take()['tokens_per_second'] is None
  window.add(metrics(3.0, 10.0))
  window.start_clock(peak_flops=1e12)
  clock[0] += 1.0
  with window.paused():
    clock[0] += 30.0
  clock[0] += 1.0
  for _ in range(2):
    window.add(metrics(3.0, 10.0))
  row = window.take()
  assert row['tokens_per_second'] == pytest.approx(10.0)
  assert row['seconds_per_step'] == pytest.approx(1.0)
  assert row['mfu'] == pytest.approx(0.5)
  assert row['useful_mfu'] == pytest.approx(0.25)


def test_unknown_peak_or_flops_gives_no_mfu(clock):
  for workload, peak in (({}, 1e12), ({'flops': 1e12}, None)):
    window = make(**workload)
    window.start_clock(peak)
    clock[0] += 1.0
    window.add(metrics(3.0, 10.0))
    row = window.take()
    assert row['mfu'] is None
    assert row['useful_mfu'] is None
    assert row['tokens_per_second'] == pytest.approx(10.0)


def test_bad_steps_are_counted_and_poison_nothing(clock):
  window = make()
  window.add(metrics(4.0, 2.0))
  window.add(metrics(math.nan, 2.0))
  window.add(metrics(6.0, 2.0, nonfinite=1.0))
  row = window.take()
  assert row['loss'] == 2.0
  assert row['nonfinite_steps'] == 2


def test_a_period_cut_in_two_has_the_means_of_the_whole(clock):
  steps = [metrics(float(i), 3.0, grad_norm=0.1 * i) for i in range(1, 8)]
  whole, first, second = make(), make(), make()
  for step in steps:
    whole.add(step)
  for step in steps[:4]:
    first.add(step)
  second.set_state(json.loads(json.dumps(first.get_state())))
  for step in steps[4:]:
    second.add(step)
  expected, found = whole.take(), second.take()
  assert {name: found[name] for name in ('loss', 'grad_norm')} == {n: expected[n] for n in ('loss', 'grad_norm')}


def test_positions_are_those_of_both_sides():
  shape = jax.ShapeDtypeStruct
  spec = {
    'encoder_input_tokens': shape((4, 16), jnp.int32),
    'encoder_segment_ids': shape((4, 16), jnp.int32),
    'decoder_input_tokens': shape((4, 6), jnp.int32),
  }
  assert window_lib.count_positions(spec) == 4 * 22
