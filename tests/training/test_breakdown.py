"""Where a step's time goes and what limits a run, with a clock that only the test moves; the trace of chosen steps."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pathlib

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.training import breakdown, profiling
from t5x_lite.training import window as window_lib
from t5x_lite.training.breakdown import DATA, DEVICE, HOST, STARVED, Bottleneck
from t5x_lite.training.job import LoopConfig

_SPEC = importlib.util.spec_from_file_location('loop_fakes', pathlib.Path(__file__).with_name('loop_fakes.py'))
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  for module in (window_lib, breakdown):
    monkeypatch.setattr(module.time, 'perf_counter', lambda: now[0])
  return now


def test_the_parts_add_up_to_the_time_of_a_step_without_pauses(clock):
  window = window_lib.Window(window_lib.Workload(positions=20))
  with window.breakdown.waiting(DATA):  # Before the clock: of no period.
    clock[0] += 50.0
  window.start_clock(None)
  for data, device, host in ((0.5, 2.0, 0.25), (1.5, 0.0, 0.75)):
    with window.breakdown.waiting(DATA):
      clock[0] += data
    clock[0] += host
    with window.breakdown.waiting(DEVICE):
      clock[0] += device
    window.add({'loss': 1.0, 'loss_sum': 1.0, 'weight_sum': 1.0})
  with window.paused():
    clock[0] += 30.0
  window.breakdown.starved()
  row = window.take()
  assert (row[DATA], row[HOST], row[DEVICE], row[STARVED]) == pytest.approx((1.0, 0.5, 1.0, 1))
  assert row[DATA] + row[HOST] + row[DEVICE] == pytest.approx(row['seconds_per_step'])
  window.add({'loss': 1.0, 'loss_sum': 1.0, 'weight_sum': 1.0})
  clock[0] += 1.0
  assert window.take()[DATA] == 0.0  # The next period begins empty.


def row(data, host, device, starved):
  return {DATA: data, HOST: host, DEVICE: device, STARVED: starved}


def test_what_limits_the_run_is_told_once_with_what_to_do():
  bottleneck = Bottleneck()
  slow = row(0.3, 0.01, 0.02, 10)
  assert bottleneck.update(slow, 10) is None  # Too few to judge by.
  told = bottleneck.update(slow, 10)
  assert told.startswith('the input pipeline limits this run: the device waits for it, 0.3 of the 0.33 s of a step; ')
  assert 'prepare tokenise' in told
  assert bottleneck.update(slow, 40) is None
  assert bottleneck.update(row(0.01, 0.3, 0.02, 30), 40).startswith('the host limits this run')


@pytest.mark.parametrize(
  'fast',
  [
    row(0.1, 0.02, 1.0, 3),  # Hidden behind the device, all but three times.
    row(0.01, 0.02, 1.0, 40),  # Not worth a word.
    {DATA: None, HOST: None, DEVICE: None, STARVED: None},  # Not timed.
  ],
)
def test_a_run_that_the_device_limits_needs_no_word(fast):
  assert Bottleneck().update(fast, 40) is None


def test_on_a_cpu_nothing_is_said_about_the_host():
  assert Bottleneck((DATA,)).update(row(0.01, 0.3, 0.02, 40), 40) is None


@pytest.mark.parametrize('text', ['10', '10-13', '10:', 'a:b', '10:13:2', '', '-1:3'])
def test_profile_steps_that_are_no_pair_are_refused(text, tmp_path):
  with pytest.raises(UsageError, match='expected FIRST:LAST, such as 10:13'):
    profiling.parse(text, 100, tmp_path)


@pytest.mark.parametrize(
  ('text', 'told'),
  [('5:4', 'expected 1 <= FIRST <= LAST'), ('0:4', 'counted from 1'), ('98:101', 'the run ends after step 100')],
)
def test_profile_steps_that_the_run_does_not_have_are_refused(text, told, tmp_path):
  with pytest.raises(UsageError, match=told):
    profiling.parse(text, 100, tmp_path)


def test_the_trace_holds_the_chosen_steps_and_no_others(tmp_path, capsys):
  profile = profiling.parse('3:4', 6, tmp_path)
  fakes.train(tmp_path, LoopConfig(6, log_period=2, eval_period=0), profile=profile)
  (trace,) = tmp_path.glob('profile/plugins/profile/*/*.trace.json.gz')
  assert list(tmp_path.glob('profile/plugins/profile/*/*.xplane.pb'))
  events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  steps = {
    event['args']['step_num'] for event in events if event.get('name') == 'train' and 'step_num' in event['args']
  }
  assert {int(step) for step in steps} == {3, 4}
  assert f'profile of the steps 3 to 4: tensorboard --logdir={tmp_path}/profile' in capsys.readouterr().out
  again = profiling.parse('3:4', 8, tmp_path)
  fakes.train(tmp_path, LoopConfig(8, log_period=2, eval_period=0), profile=again)
  assert 'nothing is profiled: step 3 is done already' in capsys.readouterr().out


def test_a_run_that_ends_inside_of_its_trace_leaves_it(tmp_path, capsys):
  class Ending(fakes.FakeTrainer):
    def train_step(self, state, batch):
      if int(state.step) == 4:
        raise KeyboardInterrupt
      return super().train_step(state, batch)

  profile = profiling.parse('3:6', 6, tmp_path)
  with pytest.raises(KeyboardInterrupt):
    fakes.train(tmp_path, LoopConfig(6, log_period=2, eval_period=0), trainer=Ending(), profile=profile)
  assert list(tmp_path.glob('profile/plugins/profile/*/*.xplane.pb'))
  assert f'tensorboard --logdir={tmp_path}/profile' in capsys.readouterr().out


def test_a_log_row_says_where_the_time_went(tmp_path):
  fakes.train(tmp_path, LoopConfig(8, log_period=4, eval_period=0))
  rows = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  last = rows[-1]
  assert last[DATA] + last[HOST] + last[DEVICE] == pytest.approx(last['seconds_per_step'], rel=1e-6)
  assert 0 <= last[STARVED] <= 4
