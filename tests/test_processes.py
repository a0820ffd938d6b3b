"""Several processes of one run, on this machine: they stop together, lose one another, and go on exactly."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.training import integrity

pytestmark = pytest.mark.slow

STEPS = 40
HEARTBEAT = 20  # Seconds; on a busy machine a process may well be silent for some.
SETTINGS = {
  'T5Config.emb_dim': 16,
  'T5Config.mlp_dim': 32,
  'T5Config.num_heads': 2,
  'T5Config.head_dim': 8,
  'T5Config.num_encoder_layers': 1,
  'T5Config.num_decoder_layers': 1,
  'embedded_vocabulary.size': 1000,
  'VOCAB_SIZE': 1100,
  'TASK_FEATURE_LENGTHS': "{'inputs': 32, 'targets': 16}",
  'DROPOUT_RATE': 0.1,
  'BATCH_SIZE': 8,
  'LOG_PERIOD': 1,
  'EVAL_PERIOD': 0,
  'EVAL_STEPS': 1,
  'train.num_samples': 0,
  'CHECKPOINT_PERIOD': 5,
  'WARMUP_STEPS': 4,
}


@pytest.fixture
def start():
  """Starts the processes of a run; none outlives its test."""
  running = []

  def run(folder, count, steps, *, last=(), every=(), heartbeat=HEARTBEAT):
    """`last`: flags of the last process alone; `every`: of all of them."""
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      address = f'127.0.0.1:{free.getsockname()[1]}'
    settings = SETTINGS | {'TRAIN_STEPS': steps, 'MODEL_DIR': folder}
    args = [sys.executable, '-m', 't5x_lite.train', '--gin_file=t5_tiny.gin', '--gin_file=schedules/rsqrt.gin']
    args += [f'--gin.{name}={value}' for name, value in settings.items()]
    args += every
    args += [f'--coordinator_address={address}', f'--num_processes={count}', f'--heartbeat_timeout={heartbeat}']
    environment = os.environ | {'JAX_NUM_CPU_DEVICES': '1', 'PYTHONWARNINGS': 'ignore'}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True, 'env': environment}
    for process in range(count):
      own = last if process == count - 1 else ()
      running.append(subprocess.Popen([*args, f'--process_id={process}', *own], **pipes))
    return running[-count:]

  yield run
  for process in running:
    process.kill()
    process.communicate()


def wait_for_step(processes, step):
  for line in processes[0].stdout:
    if line.startswith('step') and int(line.split()[1].split('/')[0]) >= step:
      return
  pytest.fail(processes[0].stderr.read())


def finish(processes):
  """What each process still prints to its two streams, and the exit codes."""
  outputs = [process.communicate(timeout=300) for process in processes]
  return outputs, [process.returncode for process in processes]


def assert_complete(processes):
  outputs, codes = finish(processes)
  assert codes == [0] * len(processes), outputs


def params(folder):
  """All arrays of the last checkpoint, which other devices have saved than there are here."""
  import orbax.checkpoint as ocp

  from t5x_lite.core import tree

  path = pathlib.Path(folder) / f'checkpoint_{STEPS}' / 'state'
  with ocp.PyTreeCheckpointer() as checkpointer:
    stored = checkpointer.metadata(path).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
    return tree.named_leaves(checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy)))


def assert_same_run(one, other):
  found, expected = params(one), params(other)
  assert found.keys() == expected.keys()
  for name, leaf in found.items():
    np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
  for folder in (one, other):
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows if row['split'] == 'train'] == list(range(1, STEPS + 1))


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """Makes uninterrupted runs of so many processes, each once."""
  made = {}

  def get(start, count):
    if count not in made:
      made[count] = tmp_path_factory.mktemp('uninterrupted')
      assert_complete(start(made[count], count, STEPS))
    return made[count]

  return get


def test_what_is_logged_and_recorded_of_the_data_is_of_all_processes(start, tmp_path):
  """Shares of a mixture, what was lost and the hash of the first batches, as one process has them."""
  mixture = ['--gin.MIXTURE_OR_TASK_NAME=embedded_mixture', '--gin.train/DatasetConfig.num_virtual_shards=4']
  rows, infos = [], []
  for count in (1, 2):
    folder = tmp_path / str(count)
    assert_complete(start(folder, count, 6, every=mixture))
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    rows.append(
      [
        {
          name: value
          for name, value in row.items()
          if name.split('/')[0] in ('share', 'token_share', 'truncated', 'dropped')
        }
        for row in lines
        if row['split'] == 'train'
      ]
    )
    infos.append(json.loads((folder / 'run-info.json').read_text())['data'])
  assert rows[0] == rows[1] and len(rows[0]) == 6
  assert {'share/embedded_text', 'token_share/embedded_module', 'truncated/embedded_summarize'} <= set(rows[0][-1])
  assert infos[0] == infos[1] and infos[0]['first_batches']['batches'] == 4


@pytest.mark.parametrize(('count', 'receivers'), [(2, [1]), (4, [0, 1, 2, 3])])
def test_sigterm_to_one_or_all_stops_all_at_one_step_with_one_checkpoint(
  start, uninterrupted, tmp_path, count, receivers
):
  folder = tmp_path / 'run'
  processes = start(folder, count, 100_000)
  wait_for_step(processes, 7)
  for process in receivers:
    processes[process].send_signal(signal.SIGTERM)
  outputs, codes = finish(processes)
  assert codes == [128 + signal.SIGTERM] * count, outputs
  stopped = integrity.steps(folder)[-1]
  assert f'stopped by SIGTERM after step {stopped}; saved in {folder}/checkpoint_{stopped}' in outputs[0][0]
  if stopped < STEPS:
    assert_complete(start(folder, count, STEPS))
    assert_same_run(folder, uninterrupted(start, count))


def test_a_killed_process_is_named_and_the_run_goes_on_exactly(start, uninterrupted, tmp_path):
  folder = tmp_path / 'run'
  processes = start(folder, 2, STEPS)
  wait_for_step(processes, 7)
  processes[1].kill()
  ((_, told), _), codes = finish(processes)
  assert codes == [errors.LOST, -signal.SIGKILL], told
  assert f'error: process 1 (host {socket.gethostname()}, pid {processes[1].pid}) has been silent for' in told
  assert 'started again, the run goes on from its last checkpoint' in told
  assert_complete(start(folder, 2, STEPS))
  assert_same_run(folder, uninterrupted(start, 2))


def test_a_process_that_hangs_is_named_by_all_others(start, tmp_path):
  processes = start(tmp_path / 'run', 4, 100_000)
  wait_for_step(processes, 3)
  processes[2].send_signal(signal.SIGSTOP)
  outputs, codes = finish([processes[i] for i in (0, 1, 3)])
  assert codes == [errors.LOST] * 3, outputs
  for _, told in outputs:
    assert f'error: process 2 (host {socket.gethostname()}, pid {processes[2].pid}) has been silent for' in told
  processes[2].send_signal(signal.SIGCONT)  # Once it runs again it ends too.
  (_, code) = finish([processes[2]])
  assert code != [0]


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_without_process_0_the_others_end_too(start, tmp_path, number):
  """Hanging, it is named; with its death its store is gone, and JAX ends the others with a report of its own."""
  processes = start(tmp_path / 'run', 2, 100_000)
  wait_for_step(processes, 3)
  processes[0].send_signal(number)
  ((_, told),), (code,) = finish([processes[1]])
  if number == signal.SIGSTOP:
    assert code == errors.LOST, told
    assert 'error: process 0 (the coordinator) has not answered for' in told
  else:
    assert code in (errors.LOST, -signal.SIGABRT), told
    assert 'leader' in told or 'process 0' in told


def test_a_process_that_fails_on_its_own_takes_the_others_along_and_says_why(start, tmp_path):
  missing = ['--gin_file=data/files.gin', f'--gin.files.path={tmp_path}/nothing.txt']
  processes = start(tmp_path / 'run', 2, STEPS, last=missing)
  ((_, first), (_, second)), codes = finish(processes)
  assert codes == [errors.LOST, 2], first + second
  assert 'nothing.txt' in second
  assert 'error: process 1 (host' in first and 'failed: UsageError' in first and 'nothing.txt' in first


def test_an_error_of_all_processes_is_the_one_of_each(start, tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'checkpoint_3').mkdir()  # Empty: damaged, and the only one.
  outputs, codes = finish(start(tmp_path / 'run', 2, STEPS))
  assert codes == [2, 2], outputs
