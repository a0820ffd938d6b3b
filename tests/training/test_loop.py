import collections
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.runs import located
from t5x_lite.training import checkpoints, evaluate, integrity, loop, optimizers, samples
from t5x_lite.training.job import LoopConfig, Status
from t5x_lite.training.learner import Learner
from t5x_lite.training.monitor import DivergenceRule, EarlyStopping, TrainingDiverged
from t5x_lite.training.steps import Trainer

_PATH = pathlib.Path(__file__).with_name('loop_fakes.py')
_SPEC = importlib.util.spec_from_file_location('loop_fakes', _PATH)
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)

SPEEDS = {'tokens_per_second', 'seconds_per_step', 'mfu', 'useful_mfu'} | {
  'peak_host_bytes',
  'peak_device_bytes',
  'data_seconds',
  'host_seconds',
  'device_seconds',
  'starved_steps',
}


def assert_same(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), found, expected)


def read_rows(directory):
  """The rows of metrics.jsonl without what depends on the clock or on which process did the step."""
  rows = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  return [{key: value for key, value in row.items() if key not in SPEEDS | {'useful_token_fraction'}} for row in rows]


def evaluator(trainer):
  def run(params):
    batches = [fakes.make_batch(1000 + i) for i in range(2)]
    return {'toy': evaluate.evaluate(trainer.eval_step, params, batches, trainer.shard_batch)}

  return run


class Crash(Exception):
  pass


class CrashingTrainer(fakes.FakeTrainer):
  """Stops answering at one step, as if the process had been killed there."""

  def __init__(self, at: int, **settings):
    super().__init__(**settings)
    self.at, self.calls = at, 0

  def train_step(self, state, batch):
    self.calls += 1
    if self.calls == self.at:
      raise Crash
    return super().train_step(state, batch)


# Checkpoints lie inside a logging period, and rows of training and evaluation lie beyond the last of them.
CONFIG = LoopConfig(25, log_period=3, eval_period=4, checkpoint_period=8)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  directory = tmp_path_factory.mktemp('uninterrupted')
  trainer = fakes.FakeTrainer()
  return directory, fakes.train(directory, CONFIG, trainer=trainer, evaluate=evaluator(trainer))


@pytest.mark.parametrize('crash_at', [1, 7, 9, 15, 25])
def test_a_crashed_run_started_again_ends_like_the_uninterrupted_one(uninterrupted, tmp_path, crash_at):
  trainer = CrashingTrainer(crash_at)
  with pytest.raises(Crash):
    fakes.train(tmp_path, CONFIG, trainer=trainer, evaluate=evaluator(trainer))
  again = fakes.FakeTrainer()
  outcome = fakes.train(tmp_path, CONFIG, trainer=again, evaluate=evaluator(again))
  assert_same(outcome.state, uninterrupted[1].state)
  assert outcome.eval_metrics == uninterrupted[1].eval_metrics
  rows = read_rows(tmp_path)
  assert rows == read_rows(uninterrupted[0])
  assert max(collections.Counter((row['split'], row['step']) for row in rows).values()) == 1


def test_rows_are_means_over_all_steps_of_their_period(uninterrupted):
  trainer, losses = fakes.FakeTrainer(), []
  state = trainer.init()
  for step in range(1, 26):
    state, metrics = trainer.train_step(state, trainer.shard_batch(fakes.make_batch(step)))
    losses.append(float(metrics['loss']))
  rows = {row['step']: row for row in read_rows(uninterrupted[0]) if row['split'] == 'train'}
  assert list(rows) == [3, 6, 9, 12, 15, 18, 21, 24, 25]
  assert rows[9]['loss'] == pytest.approx(np.mean(losses[6:9]), rel=1e-6)
  assert rows[25]['loss'] == pytest.approx(losses[24], rel=1e-6)
  assert rows[9]['share/a'] == 0.75
  assert rows[9]['token_share/a'] == 0.375
  assert [row['truncated/b'] for row in rows.values()] == list(rows)  # of the batches up to that step and no others
  assert not {'truncated/a', 'dropped/a', 'dropped/b'} & set(rows[9])
  assert_same(state, uninterrupted[1].state)  # So evaluation and saving changed nothing.


def test_a_finished_run_says_so_and_does_nothing(uninterrupted, capsys):
  trainer = fakes.FakeTrainer()
  before = sorted((path, path.stat().st_mtime_ns) for path in uninterrupted[0].rglob('*'))
  outcome = fakes.train(uninterrupted[0], CONFIG, trainer=trainer, init=lambda: pytest.fail('made a new state'))
  assert outcome.status is Status.ALREADY_FINISHED
  assert outcome.exit_code == 0
  assert 'has finished (25 steps)' in capsys.readouterr().out
  assert trainer.compiled == 0
  assert sorted((path, path.stat().st_mtime_ns) for path in uninterrupted[0].rglob('*')) == before


def test_the_device_always_has_a_step_queued_when_metrics_are_fetched(tmp_path, monkeypatch):
  dispatched, fetched_behind = [], []

  class Recording(fakes.FakeTrainer):
    def train_step(self, state, batch):
      dispatched.append(len(dispatched) + 1)
      state, metrics = super().train_step(state, batch)
      return state, metrics | {'number': np.float32(len(dispatched))}

  fetch = jax.device_get

  def recording_fetch(metrics):
    if 'number' in metrics:
      fetched_behind.append(len(dispatched) - int(metrics['number']))
    return fetch(metrics)

  monkeypatch.setattr(loop.jax, 'device_get', recording_fetch)
  config = LoopConfig(20, log_period=5, eval_period=0, checkpoint_period=0)
  fakes.train(tmp_path, config, trainer=Recording())
  # The first step is waited for, to time it; the last ones are, as the run is over.
  assert fetched_behind == [0] + [2] * 17 + [1, 0]


def test_the_best_checkpoint_is_of_those_that_were_saved(tmp_path):
  config = LoopConfig(8, log_period=4, eval_period=1, checkpoint_period=2)
  asked = iter([9.0, 7.0, 5.0, 1.0, 4.0, 2.0, 3.0, 2.5, 4.5])  # from step 0; those of even steps are saved
  fakes.train(tmp_path, config, evaluate=lambda params: {'toy': {'loss': next(asked)}}, keep=8)
  assert checkpoints.saved_metrics(tmp_path) == {2: {'loss': 5.0}, 4: {'loss': 4.0}, 6: {'loss': 3.0}, 8: {'loss': 4.5}}
  assert located.best_step(tmp_path) == 6
  (tmp_path / 'checkpoint_6' / 'integrity.json').write_text('{}')
  assert located.best_step(tmp_path) == 4


@pytest.mark.parametrize('gain', [math.nan, math.inf])
def test_divergence_keeps_the_last_good_checkpoint_and_names_it(tmp_path, gain):
  config = LoopConfig(16, log_period=5, eval_period=0, checkpoint_period=4)
  with pytest.raises(TrainingDiverged, match=r'diverged at step 12: the loss is .*checkpoint_8, is kept'):
    fakes.train(tmp_path, config, iterator=fakes.FakeIterator({12: gain}))
  assert integrity.steps(tmp_path) == [4, 8]
  outcome = fakes.train(tmp_path, config)  # With better data it goes on from there.
  clean = fakes.train(tmp_path / 'clean', config)
  assert_same(outcome.state, clean.state)


def test_a_loss_out_of_range_stops_the_run_and_none_of_its_states_is_saved(tmp_path):
  rule = DivergenceRule(patience=6, min_history=8)
  config = LoopConfig(100, log_period=50, eval_period=0, checkpoint_period=2, divergence=rule)
  gains = dict.fromkeys(range(13, 100), 50.0)
  with pytest.raises(TrainingDiverged, match=r'step 18: .* 6 steps; the last good checkpoint, .*checkpoint_12'):
    fakes.train(tmp_path, config, iterator=fakes.FakeIterator(gains))
  assert integrity.steps(tmp_path)[-1] == 12


def test_a_save_due_at_an_outlier_is_made_up_for_at_the_next_usual_step(tmp_path):
  config = LoopConfig(38, log_period=50, eval_period=0, checkpoint_period=32)
  fakes.train(tmp_path, config, iterator=fakes.FakeIterator({31: 50.0, 32: 50.0}))
  assert integrity.steps(tmp_path) == [33, 38]


def test_skipped_steps_are_counted_and_leave_the_means_alone(tmp_path):
  rule = DivergenceRule(max_nonfinite_steps=2)
  config = LoopConfig(12, log_period=6, eval_period=0, checkpoint_period=4, divergence=rule)
  bad = {3: math.nan, 4: math.nan, 8: math.nan}
  trainer = fakes.FakeTrainer(skip_nonfinite=True)
  outcome = fakes.train(tmp_path, config, trainer=trainer, iterator=fakes.FakeIterator(bad))
  assert outcome.status is Status.FINISHED
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome.state.params))
  rows = read_rows(tmp_path)
  assert [row['nonfinite_steps'] for row in rows] == [2, 1]
  assert all(math.isfinite(row['loss']) for row in rows)
  assert integrity.steps(tmp_path) == [5, 9, 12]  # Never at a step that was skipped.
  with pytest.raises(TrainingDiverged, match='step 5'):
    worse = fakes.FakeIterator(bad | {5: math.nan})
    fakes.train(tmp_path / 'worse', config, trainer=trainer, iterator=worse)


def scripted_evaluations(losses):
  """Evaluation losses in order; a new run takes its first one before its first step."""
  return lambda params: {'toy': {'loss': next(losses)}}


def test_early_stopping_ends_the_run_and_a_restart_leaves_it_ended(tmp_path, capsys):
  stopping = EarlyStopping(patience=2)
  config = LoopConfig(100, log_period=5, eval_period=3, checkpoint_period=3, early_stopping=stopping)
  losses = iter([0.5, 5.0, 4.0, 4.5, 4.0])  # The loss before the first step is of no checkpoint: not one to beat.
  outcome = fakes.train(tmp_path, config, evaluate=scripted_evaluations(losses))
  assert (outcome.status, outcome.step, outcome.exit_code) == (Status.STOPPED_EARLY, 12, 0)
  assert '2 evaluations without improvement (best 4.0000 at step 6)' in capsys.readouterr().out
  assert checkpoints.is_finished(tmp_path, 100)
  again = fakes.train(tmp_path, config, evaluate=lambda params: pytest.fail('evaluated'))
  assert again.status is Status.ALREADY_FINISHED
  longer = LoopConfig(15, log_period=5, eval_period=3, checkpoint_period=3)  # Told not to stop early, it goes on.
  resumed = fakes.train(tmp_path, longer, evaluate=scripted_evaluations(iter([9.0])))
  assert (resumed.status, resumed.step) == (Status.FINISHED, 15)


def test_a_run_out_of_time_is_evaluated_and_saved_and_a_restart_leaves_it_ended(tmp_path):
  config = LoopConfig(10_000, log_period=5, eval_period=0, checkpoint_period=0, eval_at_start=False, max_seconds=0.01)
  evaluated = []

  def evaluate(params):
    evaluated.append(params)
    return {'toy': {'loss': 1.0}}

  trainer = fakes.FakeTrainer(step_seconds=0.002)
  outcome = fakes.train(tmp_path, config, trainer=trainer, evaluate=evaluate)
  assert (outcome.status, outcome.exit_code, len(evaluated)) == (Status.OUT_OF_TIME, 0, 1)
  assert 1 < outcome.step < 10_000 and checkpoints.is_finished(tmp_path, 10_000)
  again = fakes.train(tmp_path, config, evaluate=evaluate)
  assert (again.status, again.step) == (Status.ALREADY_FINISHED, outcome.step)
  more_time = dataclasses.replace(config, total_steps=outcome.step + 2, max_seconds=1000.0)
  resumed = fakes.train(tmp_path, more_time, evaluate=evaluate)
  assert (resumed.status, resumed.step) == (Status.FINISHED, outcome.step + 2)


def test_early_stopping_counts_on_over_a_restart(tmp_path):
  stopping = EarlyStopping(patience=2)
  config = LoopConfig(100, log_period=5, eval_period=3, checkpoint_period=3, early_stopping=stopping)
  with pytest.raises(Crash):
    fakes.train(
      tmp_path, config, trainer=CrashingTrainer(11), evaluate=scripted_evaluations(iter([0.5, 4.0, 3.0, 3.5]))
    )
  outcome = fakes.train(tmp_path, config, evaluate=scripted_evaluations(iter([3.5, 1.0])))
  assert (outcome.status, outcome.step) == (Status.STOPPED_EARLY, 12)


def test_the_best_checkpoint_by_evaluation_loss_is_kept(tmp_path):
  losses = iter([0.5, 5.0, 1.0, 4.0, 3.0, 3.0, 3.0])
  config = LoopConfig(12, log_period=5, eval_period=2, checkpoint_period=2)
  fakes.train(tmp_path, config, keep=1, evaluate=scripted_evaluations(losses))
  assert integrity.steps(tmp_path) == [4, 12]


def test_a_new_run_is_evaluated_before_its_first_step_and_a_resumed_one_is_not(tmp_path, capsys):
  trainer, config = fakes.FakeTrainer(), LoopConfig(6, log_period=2, eval_period=2, checkpoint_period=2)
  sampled = []

  def train(trainer, steps=6):
    given = dataclasses.replace(config, total_steps=steps)
    fakes.train(
      tmp_path, given, trainer=trainer, evaluate=evaluator(trainer), predict=lambda p: sampled.append(p) or {}
    )

  with pytest.raises(Crash):
    train(CrashingTrainer(2))  # Before its first checkpoint: the next run is new too, and evaluates again.
  train(trainer, 4)
  train(fakes.FakeTrainer())
  rows = [row for row in read_rows(tmp_path) if row['split'] == 'validation']
  assert [row['step'] for row in rows] == [0, 2, 4, 6]
  expected = evaluator(trainer)(trainer.init().params)['toy']
  assert {key: rows[0][key] for key in expected} == expected
  assert len(sampled) == 3
  assert re.search(r'^eval 0/4 .*\n.*first step done', capsys.readouterr().out, re.MULTILINE)
  off = dataclasses.replace(config, eval_at_start=False)
  fakes.train(tmp_path / 'off', off, trainer=trainer, evaluate=evaluator(trainer))
  assert [row['step'] for row in read_rows(tmp_path / 'off') if row['split'] == 'validation'] == [2, 4, 6]


def test_a_run_that_starts_from_a_later_step_counts_from_there(tmp_path):
  trainer = fakes.FakeTrainer()
  warm = trainer.init()
  warm = warm.replace(step=warm.step + 1000)
  config = LoopConfig(1004, log_period=2, eval_period=0, checkpoint_period=2)
  outcome = fakes.train(tmp_path, config, trainer=trainer, init=lambda: warm)
  assert outcome.step == 1004
  assert [row['step'] for row in read_rows(tmp_path)] == [1002, 1004]
  with pytest.raises(UsageError, match=r'total_steps=900.*starts from step 1004'):
    fakes.train(tmp_path / 'less', LoopConfig(900), trainer=trainer, init=lambda: outcome.state)


def test_samples_are_printed_and_written(tmp_path, capsys):
  predicted = {'toy': [samples.Sample('fill <extra_id_0> in', '<extra_id_0> this', '<extra_id_0> that')]}
  config = LoopConfig(4, log_period=2, eval_period=2)
  fakes.train(tmp_path, config, predict=lambda params: predicted)
  rows = [json.loads(line) for line in (tmp_path / 'samples.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == [2, 4]
  assert rows[0]['prediction'] == '<extra_id_0> that'
  assert 'prediction  <extra_id_0> that' in capsys.readouterr().out


def test_data_that_end_too_soon_are_an_error(tmp_path):
  with pytest.raises(UsageError, match='training data ended after 3 of 5 steps'):
    fakes.train(tmp_path, LoopConfig(5), iterator=fakes.FakeIterator(length=3))


@pytest.mark.parametrize('field', ['total_steps', 'log_period', 'eval_period', 'checkpoint_period'])
@pytest.mark.parametrize('value', [-1, 1.5, '10', True])
def test_periods_must_be_whole_numbers(field, value):
  with pytest.raises(UsageError, match=field):
    LoopConfig(**({'total_steps': 1} | {field: value}))


class PackedIterator(fakes.FakeIterator):
  """Batches of the real key set, each a function of its number."""

  def __init__(self, packed_batch):
    super().__init__()
    self._make = packed_batch

  def __next__(self):
    self.position += 1
    return self._make(16, seed=self.position)


@pytest.mark.slow
@pytest.mark.parametrize('resumed_mesh', [None, MeshShape(data=2, fsdp=2, tensor=2), MeshShape(fsdp=4, tensor=2)])
def test_the_real_steps_resume_on_the_same_mesh_exactly_and_on_another_closely(
  tmp_path, tiny_lm, packed_batch, spec_of, resumed_mesh
):
  def make(shape):
    learner = Learner(tiny_lm(dropout_rate=0.1), optimizers.adafactor(0.1, min_dim_size_to_factor=8), 0.1)
    mesh = make_mesh(shape, jax.devices()[:1] if shape is None else None)
    return Trainer(learner, mesh, spec_of(packed_batch(16)))

  def train(directory, shape, steps):
    trainer = make(shape)
    config = LoopConfig(steps, log_period=2, eval_period=0, checkpoint_period=3)
    data = PackedIterator(packed_batch)
    return fakes.train(directory, config, trainer=trainer, iterator=data, init=lambda: trainer.init(0))

  train(tmp_path / 'cut', None, 3)
  resumed = jax.device_get(train(tmp_path / 'cut', resumed_mesh, 6).state)
  whole = jax.device_get(train(tmp_path / 'whole', None, 6).state)
  tolerance = {'rtol': 0, 'atol': 0} if resumed_mesh is None else {'rtol': 1e-4, 'atol': 1e-5}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), resumed, whole)


# What follows starts real processes.


@pytest.fixture
def start():
  """Starts `loop_fakes.main` in a process of its own; none outlives its test."""
  running = []

  def run(directory, steps, period, seconds, **environment):
    command = [sys.executable, str(_PATH), str(directory), str(steps), str(period), str(seconds)]
    env = os.environ | {'PYTHONPATH': str(_PATH.parents[2]), 'JAX_PLATFORMS': 'cpu', 'PYTHONUNBUFFERED': '1'}
    streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    running.append(subprocess.Popen(command, text=True, env=env | environment, **streams))
    return running[-1]

  yield run
  for process in running:
    process.kill()
    process.communicate()


def finish(process):
  """The rest of what a process prints, and its exit code."""
  rest, _ = process.communicate(timeout=90)
  return rest, process.returncode


def wait_for_step(process, step):
  """Reads the process's lines until it has logged `step`."""
  for line in process.stdout:
    if re.match(rf'step +{step}/', line):
      return
  pytest.fail(f'the process ended before step {step}')


def final_params(directory, step):
  return dict(np.load(directory / f'final_{step}.npz'))


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_how_to_resume_and_the_resumed_run_is_the_same(start, tmp_path, number):
  process = start(tmp_path, 40, 1000, 0.05)
  wait_for_step(process, 5)
  process.send_signal(number)
  rest, code = finish(process)
  assert code == 128 + number
  (step,) = integrity.steps(tmp_path)
  assert 5 <= step < 40
  assert f'stopped by {number.name} after step {step}; saved in {tmp_path}/checkpoint_{step}' in rest
  assert 'to resume: python -m again --please' in rest
  assert 'Traceback' not in rest
  assert finish(start(tmp_path, 40, 1000, 0))[1] == 0
  assert finish(start(tmp_path / 'whole', 40, 1000, 0))[1] == 0
  assert_same(final_params(tmp_path, 40), final_params(tmp_path / 'whole', 40))
  assert read_rows(tmp_path) == read_rows(tmp_path / 'whole')


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_process_at_once(start, tmp_path):
  process = start(tmp_path, 100, 1000, 5.0)
  wait_for_step(process, 1)
  time.sleep(2.0)  # Well inside the second step.
  process.send_signal(signal.SIGINT)
  time.sleep(0.7)
  process.send_signal(signal.SIGINT)
  assert process.wait(2.0) == 130
  assert integrity.steps(tmp_path) == []


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_like_the_uninterrupted_one(start, tmp_path):
  rng = np.random.default_rng(0)
  for _ in range(3):
    process = start(tmp_path, 60, 2, 0.02)
    wait_for_step(process, int(min((integrity.steps(tmp_path) or [0])[-1] + rng.integers(3, 12), 59)))
    time.sleep(rng.random() * 0.1)  # Anywhere in a step, a save, a rename or a deletion.
    process.kill()
    process.wait()
  rest, _ = finish(start(tmp_path, 60, 2, 0))
  assert 'resuming after step' in rest
  assert 'damaged' not in rest
  assert finish(start(tmp_path / 'whole', 60, 2, 0))[1] == 0
  assert_same(final_params(tmp_path, 60), final_params(tmp_path / 'whole', 60))
  assert read_rows(tmp_path) == read_rows(tmp_path / 'whole')


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_when_one_gets_a_signal_and_resume_as_two_or_as_one(start, tmp_path):
  def start_two(steps, seconds):
    with socket.socket() as free:
      free.bind(('localhost', 0))
      address = f'localhost:{free.getsockname()[1]}'
    return [start(tmp_path, steps, 1000, seconds, FAKE_PROCESS=f'{address},{i}') for i in range(2)]

  processes = start_two(400, 0.05)
  wait_for_step(processes[0], 5)
  processes[1].send_signal(signal.SIGTERM)
  outputs, codes = zip(*map(finish, processes), strict=True)
  assert codes == (143, 143), outputs
  (step,) = integrity.steps(tmp_path)
  assert f'stopped by SIGTERM after step {step}' in outputs[0]
  assert 'stopped by' not in outputs[1]  # Process 0 speaks for both.
  (first, code), (_, other_code) = map(finish, start_two(step + 3, 0))
  assert (code, other_code) == (0, 0)
  assert f'resuming after step {step}' in first
  alone, code = finish(start(tmp_path, step + 5, 1000, 0))
  assert code == 0
  assert f'resuming after step {step + 3}' in alone
  assert [row['step'] for row in read_rows(tmp_path)] == list(range(1, step + 6))
