"""`python -m t5x_lite.sweep`: what it refuses, and a whole ablation that is killed on its way."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from t5x_lite import sweep as command
from t5x_lite.cli import environment
from t5x_lite.core.errors import UsageError
from t5x_lite.runs import sweep as runs_sweep
from t5x_lite.sweeps import conduct, outcomes, plan

SHORT = (
  "'TRAIN_STEPS=6', 'WARMUP_STEPS=2', 'EVAL_PERIOD=0', 'EVAL_STEPS=1', 'EVAL_AT_START=False', 'CHECKPOINT_PERIOD=1', "
  "'train.num_samples=0', 'BATCH_SIZE=1', 'LOG_PERIOD=2'"
)
FILE = f"""
Sweep:
  base = ('t5_tiny.gin',)
  bindings = ({SHORT})
  axes = {{'dropout': {{'none': 'DROPOUT_RATE=0.0', 'some': 'DROPOUT_RATE=0.1'}}}}
  metrics = ('embedded_text/loss',)
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  """`run(text, *flags)`: the exit code of a sweep file, and its lines on stderr."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)

  def run(text, *flags):
    pathlib.Path('sweep.gin').write_text(text)
    code = command.main(['sweep', '--gin_file=sweep.gin', *(flags or ('--output=out',))])
    return code, capsys.readouterr().err.splitlines()

  return run


@pytest.mark.parametrize(
  ('old', 'new', 'told'),
  [
    (
      'DROPOUT_RATE=0.1',
      'DROPUOT_RATE=0.1',
      "arm 'some': --gin.DROPUOT_RATE: unknown macro 'DROPUOT_RATE'",
    ),
    ('DROPOUT_RATE=0.1', 'DROPOUT_RATE=0.0', "axis 'dropout': 'none' and 'some' come to the same resolved values"),
    ('DROPOUT_RATE=0.1', 'adamw.b1=0.5', "arm 'some': --gin.adamw.b1: has no effect"),
    ('DROPOUT_RATE=0.1', 'no_such.gin', "unknown gin file 'no_such.gin'"),
    ('WARMUP_STEPS=2', 'WARMUP_STEPS=9', "arm 'none': warmup_steps=9"),
    ('metrics', 'metric', "has no parameter 'metric': did you mean 'metrics'"),
    ("'embedded_text/loss'", 'embedded_text', 'syntax error'),
    ('  metrics', '  budget = 3\n  metrics', 'expected str, got 3 (int) (for'),
  ],
)
def test_a_bad_sweep_file_is_refused_in_one_line_before_anything_runs(run, old, new, told):
  code, lines = run(FILE.replace(old, new))
  assert code == 2 and len(lines) == 1 and (told in lines[0] or told.partition(' (for')[0] in lines[0])
  assert not pathlib.Path('out').exists()


def test_it_wants_a_folder(run):
  assert run(FILE, '--dry_run') == (2, ['error: no folder: choose one with --output, such as --output=sweeps/dropout'])


def test_a_second_sweep_in_a_folder_is_refused_before_it_plans_anything(sweep, tmp_path):
  with runs_sweep._hold(tmp_path), pytest.raises(UsageError, match='another sweep is going on there'):
    runs_sweep.sweep(plan=sweep(), variants=None, output=str(tmp_path))


def test_another_sweep_in_a_folder_is_refused_once_a_run_has_begun(sweep, resolver, tmp_path):
  def check(**given):
    runs_sweep._check_known(plan.make(sweep(**given), resolver), tmp_path, 'own')

  known = plan.make(sweep(), resolver)
  (tmp_path / outcomes.SWEEP).write_text(json.dumps(known.as_json('own')))
  other = {'axes': {'size': {'small': 'SIZE=50', 'large': 'SIZE=200'}}}
  check(**other)
  (tmp_path / conduct.JOBS).mkdir()
  check(seeds=(0, 1, 2), arms={'higher': 'RATE=3'}, metrics=('text/loss', 'text/accuracy'))
  for given, told in (
    (other, "the sweep there has arm 'low', and this one has not"),
    ({'seeds': (0, 2)}, 'the sweep there has seed 1, and this one has not'),
    ({'seeds': (2, 0, 1)}, 'the first seed there is 0, behind which others may be added'),
    ({'bindings': ('SIZE=50',)}, "arm 'low' was begun with other values"),
    ({'evaluations': {'frozen': ()}}, 'was begun with other evaluations'),
  ):
    with pytest.raises(UsageError, match=told):
      check(**given)


@pytest.mark.slow
def test_an_arm_that_is_refused_is_not_proposed_again(sweep, resolver, tmp_path, capsys):
  pytest.importorskip('optuna')
  axes = {'rate': {'low': 'RATE=1', 'high': 'RATE=2'}, 'data': {'a': 'DATA=a', 'b': 'DATA=b'}}
  asked = sweep(axes=axes, sampler='tpe', num_arms=3, seeds=(0,))
  made, prepared = plan.make(asked, resolver), []
  hooks = runs_sweep._hooks(made, resolver, None, prepared.append)
  grown = hooks.more([])
  assert [each.arm.axes['data'] for each in grown.arms] == ['a', 'a'] and prepared == [grown]
  assert hooks.more([]) is None  # the two that are left read other documents
  assert capsys.readouterr().out.count('not taken: ') == 2


def test_arms_of_values_that_are_gone_are_told_in_one_line(sweep, tmp_path):
  asked = sweep(sampler='tpe', num_arms=3, seeds=(0,))
  arm = {'name': 'middle', 'axes': {'rate': 'middle'}}
  (tmp_path / outcomes.SWEEP).write_text(json.dumps({'arms': [arm]}))
  with pytest.raises(UsageError, match='the sweep there has an arm with rate middle, and this one has not'):
    runs_sweep._chosen(asked, tmp_path)


def _start(folder):
  argv = [sys.executable, '-m', 't5x_lite.sweep', '--gin_file=sweep.gin', f'--output={folder}', '--parallel=2']
  return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _rows(folder):
  rows = [json.loads(line) for line in (folder / 'outcomes.jsonl').read_text().splitlines()]
  for row in rows:
    del row['costs']['seconds'], row['costs']['train_seconds']
  return rows


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_table(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('sweep.gin').write_text(FILE)
  whole = _start('whole')
  while not pathlib.Path('whole', 'outcomes.jsonl').exists() and whole.poll() is None:
    time.sleep(0.05)
  second = _start('whole')
  assert 'another sweep is going on there' in second.communicate()[0] and second.returncode == 2
  told = whole.communicate()[0]
  assert whole.returncode == 0 and 'T5Config.dropout_rate: 0.0 -> 0.1' in told and 'verdict' in told
  cut = pathlib.Path('cut')
  for victim, step in (('sweep', 1), ('arm', 2), ('interrupt', 4)):
    process = _start(cut)
    checkpoint = cut / 'arms' / 'none' / '0' / f'checkpoint_{step}'
    while not checkpoint.exists() and process.poll() is None:
      time.sleep(0.05)
    if victim == 'arm':
      supervisor = int((cut / 'jobs' / 'none' / '0' / 'lock').read_text() or 0)
      children = pathlib.Path(f'/proc/{supervisor}/task/{supervisor}/children')
      for child in children.read_text().split() if children.exists() else ():
        os.kill(int(child), signal.SIGKILL)
      process.send_signal(signal.SIGKILL)
    else:
      process.send_signal(signal.SIGKILL if victim == 'sweep' else signal.SIGTERM)
    process.communicate()
    # -15: the run was so far already that the signal came before the command had begun.
    assert process.returncode in ((143, 0, -15) if victim == 'interrupt' else (-9, 0))
  last = _start(cut)
  told = last.communicate()[0]
  assert last.returncode == 0, told
  assert _rows(cut) == _rows(pathlib.Path('whole'))
  again = _start(cut)
  assert again.communicate()[0].count('complete') <= told.count('complete') and again.returncode == 0
