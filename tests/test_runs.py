"""Whole runs as a user starts them: real processes, real data, killed, resumed, moved and repeated."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from t5x_lite import infer, inspect_data, train

STEPS = 12

# Its schedule does not depend on TRAIN_STEPS, so that a run may be made longer.
SCHEDULE = 'schedules/rsqrt.gin'
# T5's own rate, 1.0, makes so small a model chaotic: another order of sums is another run after a few steps.
BASE_RATE = 'create_learning_rate_scheduler.base_learning_rate'

# A T5 that compiles in seconds. Dropout is on, so that a resumed run has to have the same keys.
OVERRIDES = {
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
  'TRAIN_STEPS': STEPS,
  'LOG_PERIOD': 1,
  'EVAL_PERIOD': 6,
  'EVAL_STEPS': 2,
  'CHECKPOINT_PERIOD': 3,
  'WARMUP_STEPS': 4,
  BASE_RATE: 0.1,
}


def command(model_dir, module='train', gin_file='t5_tiny.gin', flags=(), **overrides):
  bindings = {**OVERRIDES, 'MODEL_DIR': str(model_dir), **overrides}
  return [
    sys.executable, '-m', f't5x_lite.{module}', f'--gin_file={gin_file}', f'--gin_file={SCHEDULE}', *flags,
    *(f'--gin.{name}={value}' for name, value in bindings.items()),
  ]  # fmt: skip


def environment(devices=1):
  # Subprocesses compile with the flags of the tests and share one compilation cache.
  return {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), 'PYTHONWARNINGS': 'ignore'}


def run(args, *, devices=1, code=0, **kwargs):
  done = subprocess.run(args, capture_output=True, text=True, env=environment(devices), timeout=300, **kwargs)
  assert done.returncode == code, done.stdout + done.stderr
  return done


def refused(args, capsys, main=train.main):
  """What a command prints that is refused. It takes this process: none of its own is needed to read a line."""
  capsys.readouterr()
  assert main(args[2:]) == 2
  return capsys.readouterr().err


def start(args, *, devices=1):
  return subprocess.Popen(
    args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(devices), bufsize=1
  )


def params(model_dir, step=STEPS):
  """All arrays of a checkpoint by name."""
  import orbax.checkpoint as ocp

  from t5x_lite.core import tree

  with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
    warnings.simplefilter('ignore')  # it is told no sharding, and reads the stored one
    return tree.named_leaves(checkpointer.restore(pathlib.Path(model_dir) / f'checkpoint_{step}' / 'state'))


def assert_same_state(one, other):
  one, other = params(one), params(other)
  assert one.keys() == other.keys() and any(name.startswith('params/') for name in one)
  for name, leaf in one.items():
    np.testing.assert_array_equal(leaf, other[name], err_msg=name)


def rows(model_dir, split='train'):
  lines = (pathlib.Path(model_dir) / 'metrics.jsonl').read_text().splitlines()
  return [row for row in map(json.loads, lines) if row['split'] == split]


def losses(model_dir):
  return {row['step']: row['loss'] for row in rows(model_dir)}


@pytest.fixture(scope='session')
def reference(tmp_path_factory):
  """The uninterrupted run that the others are held against."""
  folder = tmp_path_factory.mktemp('runs') / 'reference'
  done = run(command(folder))
  return folder, done.stdout


def first_batches(model_dir):
  return json.loads((pathlib.Path(model_dir) / 'run-info.json').read_text())['data']['first_batches']


def test_a_run_leaves_what_it_promises(reference, capsys):
  folder, printed = reference
  assert {'config.gin', 'model-info.txt', 'run-info.json', 'metrics.jsonl', 'samples.jsonl'} <= {
    path.name for path in folder.iterdir()
  }
  assert [row['step'] for row in rows(folder)] == list(range(1, STEPS + 1))
  assert [row['step'] for row in rows(folder, 'validation')] == [0, 6, 12]
  assert all({'loss', 'tokens_per_second', 'mfu', 'useful_token_fraction'} <= row.keys() for row in rows(folder))
  for text in (f'MODEL_DIR {folder}', 'fingerprint', f'step {STEPS}/{STEPS}', 'prediction', '<extra_id_0>', 'finished'):
    assert text in printed
  order = json.loads((folder / 'run-info.json').read_text())['data']['document_order']
  assert len(order) == 64 and f'document order {order[:16]}' in printed
  arguments = [f'--gin_file={folder}/config.gin', '--hash=4', '--num=1', '--json']
  assert inspect_data.main(['inspect_data', *arguments]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert order == shown['document_order_hash']
  assert first_batches(folder) == {'batches': 4, 'hash': shown['batch_hashes']['hash']}
  samples = [json.loads(line) for line in (folder / 'samples.jsonl').read_text().splitlines()]
  assert {sample['step'] for sample in samples} == {6, 12}
  assert all('<extra_id_0>' in sample['input'] and '<extra_id_0>' in sample['target'] for sample in samples)
  assert sorted(path.name for path in folder.glob('checkpoint_*'))[0] == 'checkpoint_12'
  assert list((folder / 'train').glob('events.*')) and list((folder / 'embedded_text_eval').glob('events.*'))


@pytest.mark.parametrize(
  ('overrides', 'told'),
  [
    ({'EVAL_STEPS': 0}, 'eval_steps=0'),
    ({'EVAL_STEPS': -1}, 'eval_steps=-1'),
    ({'train.num_samples': -1}, 'num_samples=-1'),
    ({'MODEL_DIR': 'gs://bucket/run'}, 'expected a local folder'),
    ({'MODEL_DIR': "''"}, 'MODEL_DIR is empty'),
    ({'MIXTURE_OR_TASK_NAME': 'embedded_txt'}, "did you mean 'embedded_text'?"),
    ({'TASK_FEATURE_LENGTHS': "{'inputs': 512, 'targets': 3}"}, 'expected at least 114'),
    ({'LoopConfig.best_by': 'score', 'EVAL_METRICS': True}, 'embedded_text has no metrics of its own'),
  ],
)
def test_what_could_only_fail_later_is_refused_by_a_dry_run(capsys, tmp_path, overrides, told):
  assert train.main(command(tmp_path, flags=('--dry_run',), **overrides)[2:]) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('error: ') and told in error


def test_a_finished_run_says_so_and_changes_nothing(reference):
  folder, _ = reference
  before = (folder / 'metrics.jsonl').read_bytes()
  done = run(command(folder))
  assert 'has finished' in done.stdout and f'{STEPS} steps' in done.stdout
  assert (folder / 'metrics.jsonl').read_bytes() == before


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_bit_identical(reference, tmp_path):
  """SIGKILL after each of these steps was logged, most of them between two checkpoints or during one."""
  for last in (1, 3, 4, 8, 10):
    with start(command(tmp_path / 'run')) as process:
      for line in process.stdout:
        if line.startswith(f'step {last:>2}/{STEPS}'):
          time.sleep(0.02 * last)
          process.kill()
          break
    assert process.returncode == -signal.SIGKILL
  run(command(tmp_path / 'run'))
  assert_same_state(reference[0], tmp_path / 'run')
  assert losses(reference[0]) == losses(tmp_path / 'run')  # and each step once
  assert [row['step'] for row in rows(tmp_path / 'run')] == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_resume(reference, tmp_path, number, code):
  printed = ''
  with start(command(tmp_path / 'run')) as process:
    for line in process.stdout:
      printed += line
      if line.startswith(f'step  4/{STEPS}'):
        process.send_signal(number)
  assert process.returncode == code, printed
  assert 'to resume: run the same command again' in printed and 'Traceback' not in printed
  run(command(tmp_path / 'run'))
  assert_same_state(reference[0], tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize(
  ('number', 'code', 'told'), [(signal.SIGTERM, 143, 'SIGTERM'), (signal.SIGINT, 130, 'interru')]
)
def test_a_signal_before_the_first_step_ends_the_run_with_one_line_and_no_folder(tmp_path, number, code, told):
  with start(command(tmp_path / 'runs' / 'run')) as process:
    printed = ''
    for line in process.stdout:
      printed += line
      if line.startswith('compiling'):
        process.send_signal(number)
  assert process.returncode == code, printed
  assert told in printed.splitlines()[-1] and 'Traceback' not in printed
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_its_own_config_repeats_it_bit_by_bit(reference, tmp_path):
  args = [sys.executable, '-m', 't5x_lite.train', f'--gin_file={reference[0]}/config.gin']
  run([*args, f'--gin.MODEL_DIR={tmp_path}/again'])
  assert_same_state(reference[0], tmp_path / 'again')


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(reference, tmp_path):
  run(command(tmp_path, TRAIN_STEPS=9))
  arrays = [path for path in (tmp_path / 'checkpoint_9' / 'state').rglob('*') if path.is_file()]
  largest = max(arrays, key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  done = run(command(tmp_path))
  assert 'checkpoint_9' in done.stderr and 'damaged' in done.stderr
  assert 'resuming after step 6' in done.stdout
  assert_same_state(reference[0], tmp_path)


@pytest.mark.slow
def test_it_goes_on_with_other_devices_and_another_mesh(reference, tmp_path):
  """Started on 8 devices with all mesh axes in use, finished on 2; the losses are those of one device."""
  run(command(tmp_path, TRAIN_STEPS=6, **{'MeshShape.data': 2, 'MeshShape.fsdp': 2, 'MeshShape.tensor': 2}), devices=8)
  run(command(tmp_path), devices=2)
  assert losses(tmp_path).keys() == losses(reference[0]).keys()
  for step, loss in losses(reference[0]).items():
    assert losses(tmp_path)[step] == pytest.approx(loss, rel=2e-3)


@pytest.mark.slow
def test_two_processes_train_what_one_does(reference, tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  processes = [
    start(command(tmp_path, flags=(f'--coordinator_address={address}', '--num_processes=2', f'--process_id={i}')))
    for i in range(2)
  ]
  printed = [process.communicate(timeout=300)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], printed
  assert f'step {STEPS}/{STEPS}' in printed[0] and 'step' not in printed[1]
  for step, loss in losses(reference[0]).items():
    assert losses(tmp_path)[step] == pytest.approx(loss, rel=1e-3)
  # What two processes saved, one can go on from.
  run(command(tmp_path, TRAIN_STEPS=STEPS + 2))
  assert sorted(losses(tmp_path)) == list(range(1, STEPS + 3))


@pytest.mark.slow
def test_changed_settings_are_refused_unless_told_to_go_on(tmp_path, capsys):
  run(command(tmp_path, TRAIN_STEPS=3))
  for name, value, told in (
    ('BATCH_SIZE', 16, 'batch_size: 8 -> 16'),
    ('WARMUP_STEPS', 5, 'warmup_steps: 4 -> 5'),
    ('adafactor.decay_rate', 0.7, 'decay_rate: 0.8 -> 0.7'),
    ('RANDOM_SEED', 1, 'random_seed: 0 -> 1'),
  ):
    error = refused(command(tmp_path, **{name: value}), capsys)
    assert told in error and len(error.splitlines()) == 1
  allowed = ('--allow_config_change',)
  done = run(command(tmp_path, flags=allowed, BATCH_SIZE=4, TRAIN_STEPS=5))
  assert 'the new stream starts from its beginning' in done.stdout
  args = command(tmp_path, flags=('--gin_file=optimizers/adamw.gin', *allowed), BATCH_SIZE=4, TRAIN_STEPS=7)
  args = [arg for arg in args if BASE_RATE not in arg]  # adamw.gin has a schedule of its own
  assert 'the optimiser is another one and starts afresh' in run(args).stdout
  assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_another_architecture_is_refused_by_name(tmp_path, capsys):
  run(command(tmp_path, TRAIN_STEPS=3))
  error = refused(command(tmp_path, flags=('--allow_config_change',), **{'T5Config.mlp_dim': 48}), capsys)
  assert 'mlp' in error and '32' in error and '48' in error
  assert 'T5Config.mlp_dim = 32' in (tmp_path / 'config.gin').read_text()  # still that of its checkpoints


@pytest.mark.slow
def test_two_runs_in_one_folder_at_once_are_refused(tmp_path):
  with start(command(tmp_path, TRAIN_STEPS=2000)) as first:
    for line in first.stdout:
      if line.startswith('step'):
        break
    done = run(command(tmp_path, TRAIN_STEPS=2000), code=2)
    first.kill()
  assert 'another run is going on there' in done.stderr


@pytest.mark.slow
def test_fine_tuning_starts_from_a_checkpoint(reference, tmp_path, capsys):
  """T5X: the step goes on, the schedule is the fine-tuning's, the data is new."""
  tuning = {
    'MIXTURE_OR_TASK_NAME': 'embedded_summarize',
    'INITIAL_CHECKPOINT_PATH': str(reference[0]),
    'TRAIN_STEPS': STEPS + 4,
  }
  overrides = {**OVERRIDES, **tuning, 'MODEL_DIR': str(tmp_path)}
  del overrides['WARMUP_STEPS'], overrides[BASE_RATE]
  args = [sys.executable, '-m', 't5x_lite.train', '--gin_file=models/t5_tiny.gin', '--gin_file=runs/finetune.gin']
  done = run([*args, *(f'--gin.{name}={value}' for name, value in overrides.items())])
  assert f'starting from {reference[0]}/checkpoint_{STEPS}' in done.stdout
  assert sorted(losses(tmp_path)) == [13, 14, 15, 16]
  assert [row['learning_rate'] for row in rows(tmp_path)] == pytest.approx([1e-3] * 4)
  assert {row['task'] for row in rows(tmp_path, 'validation')} == {'embedded_summarize'}
  overrides |= {'MODEL_DIR': f'{tmp_path}/other', 'T5Config.mlp_activations': "('silu',)"}  # arrays of the same shapes
  error = refused([*args, *(f'--gin.{name}={value}' for name, value in overrides.items())], capsys)
  assert "mlp_activations is ('relu',) there and ('silu',) here" in error
  assert not (tmp_path / 'other').exists()


def branch(parent, model_dir, *flags, **overrides):
  bindings = {'MODEL_DIR': str(model_dir), **overrides}
  return [
    sys.executable, '-m', 't5x_lite.train', f'--branch_from={parent}',
    *(f'--gin.{name}={value}' for name, value in bindings.items()), *flags,
  ]  # fmt: skip


def lineage(model_dir):
  return json.loads((pathlib.Path(model_dir) / 'run-info.json').read_text())['lineage']


@pytest.mark.slow
def test_a_branch_with_nothing_changed_is_its_parent_killed_or_not(reference, tmp_path):
  args = branch(f'{reference[0]}@6', tmp_path / 'branch')
  with start(args) as process:
    for line in process.stdout:
      if line.startswith(f'step  8/{STEPS}'):  # before its first checkpoint
        process.kill()
        break
  assert process.returncode == -signal.SIGKILL
  run(args)
  assert_same_state(reference[0], tmp_path / 'branch')
  assert losses(tmp_path / 'branch') == {step: loss for step, loss in losses(reference[0]).items() if step > 6}
  only = lineage(tmp_path / 'branch')
  assert (only['parent'], only['step'], only['changes'], only['ancestors']) == (str(reference[0]), 6, [], [])
  assert (only['data'], only['schedule'], only['optimizer']) == ('continued', 'continue', 'kept')
  assert 'has finished' in run(args).stdout  # and does not branch again


@pytest.mark.slow
def test_branches_keep_what_is_the_same_and_remember_where_they_come_from(reference, tmp_path, capsys):
  """Another objective and schedule of the same optimiser; then, of that branch, another optimiser and mixture."""
  first = tmp_path / 'first'
  args = branch(
    f'{reference[0]}@9', first, '--branch_schedule=restart', '--gin_file=objectives/prefix_lm.gin',
    TASK_FEATURE_LENGTHS="{'inputs': 32, 'targets': 16}", **{'DatasetConfig.text_length': 16, BASE_RATE: 0.05},
  )  # fmt: skip
  done = run([*args, '--gin.TRAIN_STEPS=4'])
  assert 'optimiser: its state is kept' in done.stdout and 'data: documents continued' in done.stdout
  assert sorted(losses(first)) == [1, 2, 3, 4]
  rates = [[row['learning_rate'] for row in rows(run)[:4]] for run in (first, reference[0])]
  assert rates[0] == pytest.approx([rate / 2 for rate in rates[1]])  # of step 1, and half as high
  second = tmp_path / 'second'
  args = branch(
    first, second, '--gin_file=optimizers/adamw.gin',
    MIXTURE_OR_TASK_NAME='embedded_summarize', TRAIN_STEPS=7,
    **{'DatasetConfig.text_length': None, 'DatasetConfig.pack': True},
  )  # fmt: skip
  done = run(args)
  assert 'optimiser: begins afresh (it was @adafactor(), is @adamw())' in done.stdout
  assert 'data: restarted' in done.stdout and sorted(losses(second)) == [5, 6, 7]
  parent = lineage(second)
  (grandparent,) = parent['ancestors']
  assert (parent['parent'], parent['step'], parent['optimizer'], parent['data']) == (str(first), 4, 'new', 'restarted')
  assert (grandparent['parent'], grandparent['step'], grandparent['schedule']) == (str(reference[0]), 9, 'restart')
  assert any('objective' in change for change in grandparent['changes'])
  from t5x_lite.runs import branching

  assert branching.lineage_of(second) == parent  # of its checkpoint
  assert 'has finished' in run(args).stdout
  assert f'holds a branch of {first}@4, not of {reference[0]}@6' in refused(branch(f'{reference[0]}@6', second), capsys)


@pytest.mark.parametrize(
  ('which', 'flags', 'told'),
  [
    ('@7', (), 'has no checkpoint of step 7: it has 6, 9, 12'),
    ('@six', (), "'six' is no checkpoint: expected a step or best"),
    ('@all', (), 'a branch has one parent, expected RUN, RUN@STEP or RUN@best'),
    ('', (), 'the branch begins at step 12 and TRAIN_STEPS is 12: expected more'),
    ('@6', ('--gin.MODEL_DIR={parent}',), 'is the parent: expected a folder of its own'),
    ('@6', ('--gin.T5Config.emb_dim=32',), 'emb_dim is 16 there and 32 here'),
    ('@6', ("--gin.T5Config.mlp_activations=('silu',)",), "mlp_activations is ('relu',) there and ('silu',) here"),
    ('@6', ('--gin.INITIAL_CHECKPOINT_PATH=x',), 'a branch begins with its parent, expected None'),
    ('@6', ('--branch_schedule=restrat',), 'restrat'),
    ('_no', (), 'no config.gin there; expected the MODEL_DIR of a run'),
  ],
)
def test_what_is_no_branch_is_told_in_one_line(reference, tmp_path, capsys, which, flags, told):
  flags = [flag.format(parent=reference[0]) for flag in flags]
  code = train.main(branch(f'{reference[0]}{which}', tmp_path / 'branch', *flags)[2:])
  error = capsys.readouterr().err
  assert code == 2 and told in error and error.count('\n') == 1
  assert not (tmp_path / 'branch').exists()
  assert sorted(path.name for path in reference[0].glob('checkpoint_*')) == [f'checkpoint_{n}' for n in (12, 6, 9)]


@pytest.mark.slow
def test_infer_keeps_the_order_and_survives_a_bad_line(reference, tmp_path, capsys):
  lines = [b'A short line.', b'\xff not UTF-8', b'', b'word ' * 200, 'Überraschung <extra_id_0>!'.encode(), b'last']
  (tmp_path / 'in.txt').write_bytes(b'\n'.join(lines) + b'\n')
  args = [sys.executable, '-m', 't5x_lite.infer', f'--checkpoint={reference[0]}']
  done = run([*args, f'--input={tmp_path}/in.txt', f'--output={tmp_path}/out.jsonl'])
  out = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
  assert [row['line'] for row in out] == [1, 2, 3, 4, 5, 6]
  assert 'UTF-8' in out[1]['error'] and 'line 2' in done.stderr
  assert [row['inputs'] for row in out if 'inputs' in row] == [lines[i].decode() for i in (0, 2, 3, 4, 5)]
  assert [row['line'] for row in out if row.get('truncated')] == [4]
  error = refused([*args, f'--input={tmp_path}/in.txt', f'--output={tmp_path}/in.txt'], capsys, infer.main)
  assert 'is the file of --input' in error and (tmp_path / 'in.txt').read_bytes().startswith(lines[0])
  again = subprocess.run(
    [*args, '--input=-'], input=b'last\n', capture_output=True, env=environment(), timeout=300, check=True
  )
  assert json.loads(again.stdout)['prediction'] == out[5]['prediction']
