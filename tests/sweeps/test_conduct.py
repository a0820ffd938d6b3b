"""Nothing is done twice and nothing is lost, whatever is killed and whenever."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import outcomes, supervise


def values(ended):
  """What of the outcomes does not depend on the clock."""
  return [
    (each.arm, each.seed, each.status, dict(each.metrics), {**each.costs, 'seconds': 0}, each.note) for each in ended
  ]


def test_all_runs_end_and_the_table_is_in_the_order_of_arms_and_seeds(sweep, conducted, stub, starts):
  ended, told = conducted(sweep(command=stub()))
  assert [(each.arm, each.seed, each.status) for each in ended] == [
    ('low', 0, 'complete'),
    ('low', 1, 'complete'),
    ('high', 0, 'complete'),
    ('high', 1, 'complete'),
  ]
  assert [each.metrics['text/loss'] for each in ended] == [1.0, 2.0, 2.0, 3.0]
  assert {name: ended[0].costs[name] for name in ('steps', 'tokens', 'flops', 'parameters')} == {
    'steps': 10,
    'tokens': 320,
    'flops': 6000.0,
    'parameters': 100,
  }
  assert len(told) == 4 and outcomes.read(conducted.folder) == ended
  again, told = conducted(sweep(command=stub()))
  assert again == ended and told == [] and set(starts(conducted.folder).values()) == {1}


def test_arms_and_seeds_may_be_added(sweep, conducted, stub, starts):
  conducted(sweep(command=stub(), seeds=(0,)))
  axes = {'rate': {'low': 'RATE=1', 'high': 'RATE=2', 'higher': 'RATE=3'}}
  ended, told = conducted(sweep(command=stub(), axes=axes))
  assert len(ended) == 6 and len(told) == 4 and set(starts(conducted.folder).values()) == {1}


def test_a_run_that_dies_is_begun_again_so_often_and_the_sweep_goes_on(sweep, conducted, stub, starts):
  do = 'if rate == 1 and starts < 3: os.kill(os.getpid(), signal.SIGKILL)\nif rate == 2: sys.exit("error: no luck")'
  ended, told = conducted(sweep(command=stub(do), seeds=(0,)))
  assert [(each.status, each.note) for each in ended] == [('complete', ''), ('failed', 'no luck')]
  assert starts(conducted.folder) == {'high/0': 3, 'low/0': 3}
  assert sum('begun again' in line for line in told) == 4
  stub()
  assert conducted(sweep(command=stub(), seeds=(0,)))[0] == ended
  ended, _ = conducted(sweep(command=stub(), seeds=(0,)), again=True)
  assert [each.status for each in ended] == ['complete', 'complete']
  assert starts(conducted.folder) == {'high/0': 4, 'low/0': 3}


def test_divergence_is_an_outcome_and_bad_input_is_not_tried_again(sweep, conducted, stub, starts):
  do = 'if rate == 1: print("error: diverged at step 3", flush=True); sys.exit(3)\nif rate == 2: sys.exit(2)'
  ended, told = conducted(sweep(command=stub(do), seeds=(0,)))
  assert [each.status for each in ended] == ['diverged', 'failed']
  assert ended[0].note == 'diverged at step 3' and any('low seed 0: diverged' in line for line in told)
  assert set(starts(conducted.folder).values()) == {1}


def test_a_metric_that_some_runs_do_not_have_is_told(sweep, conducted, stub):
  do = "if rate == 2: out = 'score'"
  ended, _ = conducted(sweep(command=stub(do), seeds=(0,), metrics=('text/loss', 'text/score')))
  assert [each.status for each in ended] == ['complete', 'complete']
  assert ended[0].metrics == {'text/loss': 1.0} and ended[0].note == 'no text/score (it has loss)'
  assert ended[1].metrics == {'text/score': 2.0} and ended[1].note == 'no text/loss (it has score)'


def test_a_metric_that_no_arm_has_ends_the_sweep_with_the_first_seeds(sweep, conducted, stub, starts):
  with pytest.raises(UsageError) as caught:
    conducted(sweep(command=stub(), seeds=(0, 1, 2), metrics=('text/loss', 'text/losss')))
  assert "metric 'text/losss'" in str(caught.value) and 'it has loss; did you mean loss?' in str(caught.value)
  assert len(starts(conducted.folder)) < 6
  done = [f'{each.arm}/{each.seed}' for each in outcomes.read(conducted.folder)]
  ended, _ = conducted(sweep(command=stub(), seeds=(0, 1, 2)))  # the name is mended, and nothing is done twice
  begun = starts(conducted.folder)
  assert [each.status for each in ended] == ['complete'] * 6 and done and {begun[name] for name in done} == {1}


def test_a_metric_that_is_no_number_is_no_metric_and_said(sweep, conducted, stub):
  ended, _ = conducted(sweep(command=stub("if rate == 2: seed = float('nan')"), seeds=(0,), same_data=False))
  assert [each.not_finite for each in ended] == [(), ('text/loss',)]
  assert ended[1].note == 'text/loss is not finite' and not ended[1].metrics
  assert outcomes.read(conducted.folder) == ended


def test_what_is_begun_again_is_run_where_the_folder_is_now_and_as_it_is_asked_for_now(sweep, conducted, stub, starts):
  broken = sweep(command=stub('if rate == 2: sys.exit(2)'), seeds=(0,))
  assert [each.status for each in conducted(broken)[0]] == ['complete', 'failed']
  moved = conducted.folder.with_name('moved')
  conducted.folder.rename(moved)
  conducted.folder = moved
  ended, _ = conducted(sweep(command=(*stub(), '--extra=1'), seeds=(0,)), again=True)
  assert [each.status for each in ended] == ['complete', 'complete'] and starts(moved) == {'high/0': 2, 'low/0': 1}
  argv = json.loads((moved / 'jobs' / 'high' / '0' / supervise.JOB).read_text())['commands'][0]['argv']
  assert '--extra=1' in argv and f'--gin.MODEL_DIR={moved}/arms/high/0' in argv


def test_what_training_took_is_of_its_rows(sweep, conducted, stub):
  rows = [
    {'split': 'train', 'step': step, 'loss': 1.0, 'useful_token_fraction': share, 'seconds_per_step': pace}
    # The first pace was not measured, step 6 was made again, and no row is of the last two steps.
    for step, share, pace in ((4, 0.5, None), (6, 0.0, 0.5), (6, 1.0, 0.5), (8, 0.25, 1.0))
  ]
  ended, _ = conducted(sweep(command=stub(f'more = {rows!r}'), seeds=(0,)))
  costs = ended[0].costs
  assert costs['tokens'] == 10 * 32 and costs['train_seconds'] == 4 * 0.5 + 2 * 0.5 + 4 * 1.0
  assert costs['useful_tokens'] == 32 * (4 * 0.5 + 2 * 1.0 + 4 * 0.25)


def test_a_run_that_read_other_documents_than_the_baseline_is_not_compared(sweep, conducted, stub):
  do = 'if rate == 2: seed = 5'
  ended, _ = conducted(sweep(command=stub(do), seeds=(0,)))
  assert [each.status for each in ended] == ['complete', 'failed'] and 'other documents' in ended[1].note
  assert not ended[1].metrics


SWEEP = """
import pathlib, sys, importlib.util
spec = importlib.util.spec_from_file_location('own', {conftest!r})
own = importlib.util.module_from_spec(spec); sys.modules['own'] = own; spec.loader.exec_module(own)
from t5x_lite.sweeps import conduct, local, plan
made = plan.make(own.sweep(command=tuple({command!r})), own.FakeResolver())
folder = pathlib.Path({folder!r}); folder.mkdir(exist_ok=True)
conduct.prepare(made, folder)
conduct.conduct(made, folder, local.Local(), 2, conduct.Hooks())
"""


def _started(folder, command):
  conftest = str(pathlib.Path(__file__).with_name('conftest.py'))
  code = SWEEP.format(conftest=conftest, command=list(command), folder=str(folder))
  return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _wait_for(found):
  end = time.monotonic() + 20
  while not found():
    assert time.monotonic() < end, 'it never came'
    time.sleep(0.002)


@pytest.mark.parametrize('victim', ['sweep', 'supervisor', 'arm'])
def test_kill_9_leaves_the_table_as_it_would_have_been(sweep, conducted, stub, starts, tmp_path, victim):
  slow = stub('(folder / "pid").write_text(str(os.getpid())); time.sleep(0.1)')
  process = _started(conducted.folder, slow)
  pid = conducted.folder / 'arms' / 'high' / '1' / 'pid'
  lock = conducted.folder / 'jobs' / 'high' / '1' / supervise.LOCK
  _wait_for(lambda: pid.exists() and pid.read_text() and lock.read_text())
  os.kill({'sweep': process.pid, 'supervisor': int(lock.read_text()), 'arm': int(pid.read_text())}[victim], 9)
  process.wait()
  process.stdout.close()
  ended, _ = conducted(sweep(command=slow))
  begun = starts(conducted.folder)
  twice = {name for name, count in begun.items() if count > 1}
  assert len(begun) == 4 and twice <= ({'high/1'} if victim != 'sweep' else set())
  fresh = tmp_path / 'fresh'
  fresh.mkdir()
  _started(fresh, stub()).communicate()
  assert values(ended) == values(outcomes.read(fresh)) and len(ended) == 4


def test_runs_are_stopped_gently_and_go_on_later(sweep, conducted, stub):
  do = """
def save(*_):
  (folder / 'saved').write_text('x'); sys.exit(143)
signal.signal(signal.SIGTERM, save)
if starts == 1 and rate == 2: (folder / 'ready').write_text(''); time.sleep(60)
"""
  command = stub(do)
  process = _started(conducted.folder, command)
  _wait_for((conducted.folder / 'arms' / 'high' / '0' / 'ready').exists)
  process.send_signal(signal.SIGINT)
  process.communicate()
  assert (conducted.folder / 'arms' / 'high' / '0' / 'saved').exists()
  ended, _ = conducted(sweep(command=command, seeds=(0,)))
  assert [each.status for each in ended] == ['complete', 'complete']
  attempts = supervise.attempts(conducted.folder / 'jobs' / 'high' / '0')
  assert [each['stopped'] for each in attempts] == [True, False]


def test_a_line_that_was_cut_off_in_the_notes_is_mended(tmp_path):
  (tmp_path / supervise.ATTEMPTS).write_text('{"codes": {}, "seconds": 1.0, "stopped": false}\n{"codes": {"tr')
  assert len(supervise.attempts(tmp_path)) == 1
  supervise.note(tmp_path, {'codes': {'train': 0}, 'seconds': 2.0, 'stopped': False})
  assert [each['seconds'] for each in supervise.attempts(tmp_path)] == [1.0, 2.0]
  (tmp_path / supervise.ATTEMPTS).write_text('{"co')
  supervise.note(tmp_path, {'codes': {}, 'seconds': 3.0, 'stopped': False})
  assert json.loads((tmp_path / supervise.ATTEMPTS).read_text())['seconds'] == 3.0


def test_a_run_that_looks_bad_is_ended_where_that_is_asked_for(sweep, conducted, stub, monkeypatch):
  from t5x_lite.sweeps import conduct

  monkeypatch.setattr(conduct, '_PRUNE_SECONDS', 0.0)
  do = """
if rate == 2:
  row = {'split': 'validation', 'task': 'text', 'step': 5, 'loss': 9.0}
  (folder / 'metrics.jsonl').write_text(json.dumps(row) + '\\n')
  time.sleep(60)
"""
  asked = sweep(command=stub(do), seeds=(0,), pruner='median')
  ended, _ = conducted(asked, {'prunes': lambda steps: steps == {5: 9.0}})
  assert [(each.status, each.note) for each in ended] == [('complete', ''), ('failed', 'pruned at step 5 (median)')]
  assert conducted(asked)[0] == ended


def test_arms_are_added_while_a_sweep_goes_on(sweep, conducted, stub, resolver):
  from t5x_lite.sweeps import conduct, plan, spec

  asked, told = sweep(command=stub(), seeds=(0,)), []

  def more(ended):
    if len(ended) < 2 or told:
      return None
    told.append('asked')
    made = plan.make(asked, resolver, [spec.Arm('third', {}, spec.Settings((), ('RATE=7',)))])
    conduct.prepare(made, conducted.folder)
    return made

  ended, _ = conducted(asked, {'more': more})
  assert [each.arm for each in ended] == ['low', 'high', 'third'] and ended[2].metrics == {'text/loss': 7.0}
