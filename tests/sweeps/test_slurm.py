"""Arms as jobs of Slurm, by submitit, before a scheduler that is four scripts: what real ones do, on one machine."""

from __future__ import annotations

import os
import pathlib
import signal
import time

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import conduct, engines, plan, slurm, supervise

pytest.importorskip('submitit')

SCRIPTS = {
  # Runs the file at once, and remembers how it ended.
  'sbatch': """
n=$(( $(cat last 2>/dev/null || echo 100) + 1 )); echo $n > last
for file; do :; done
cp "$file" $n.sh; echo RUNNING > $n.state
SLURM_JOB_ID=$n SLURM_JOBID=$n SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1 \\
  SLURM_JOB_NODELIST=here setsid bash -c "bash $n.sh && echo COMPLETED > $n.state || echo FAILED > $n.state" \\
  > $n.log 2>&1 < /dev/null &
echo $! > $n.pid
echo "Submitted batch job $n"
""",
  # The options of submitit's line, then the command.
  'srun': """
while [ $# -gt 0 ]; do case $1 in --output|--error) shift 2;; -*) shift;; *) break;; esac; done
exec "$@"
""",
  'sacct': """
echo 'JobID|State|NodeList'
for file in *.state; do echo "$(basename $file .state)|$(cat $file)|here"; done
""",
  'scancel': """
for n; do case $n in -*) ;; *) kill -TERM -- -$(cat $n.pid); echo CANCELLED > $n.state;; esac; done
""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  """The folder of a scheduler."""
  folder = tmp_path / 'slurm'
  folder.mkdir()
  for name, text in SCRIPTS.items():
    (folder / name).write_text(f'#!/bin/bash\ncd {folder}\n{text}')
    (folder / name).chmod(0o755)
  root = str(pathlib.Path(slurm.__file__).parents[2])
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  monkeypatch.setenv('PYTHONPATH', f'{root}:{os.environ.get("PYTHONPATH", "")}')
  monkeypatch.setattr(slurm, '_LOOK_SECONDS', 0.05)
  return folder


@pytest.fixture
def conducted(tmp_path, resolver, cluster):
  """`conducted(sweep)`: its outcomes and what was told."""
  folder = tmp_path / 'sweep'

  def run(sweep, tell=lambda line: None):
    made = plan.make(sweep, resolver)
    folder.mkdir(exist_ok=True)
    conduct.prepare(made, folder)
    engine = engines.make('slurm', folder, sweep.cluster)
    return conduct.conduct(made, folder, engine, 2, conduct.Hooks(tell))

  run.folder = folder
  return run


def job(folder):
  """The id of the process that works on a job of submitit, as soon as it does."""
  end = time.monotonic() + 20
  while not (folder / supervise.LOCK).exists() or not (folder / supervise.LOCK).read_text():
    assert time.monotonic() < end, 'it never began'
    time.sleep(0.01)
  return int((folder / supervise.LOCK).read_text())


def test_arms_are_jobs_that_are_called_like_them(sweep, conducted, stub, starts, cluster):
  asked = sweep(command=stub(), cluster={'timeout_min': 7, 'slurm_partition': 'gpu', 'gpus_per_node': 1})
  ended = conducted(asked)
  assert [each.status for each in ended] == ['complete'] * 4 and set(starts(conducted.folder).values()) == {1}
  text = (cluster / '101.sh').read_text()
  for line in ('--job-name=low-0', '--time=7', '--partition=gpu', '--gpus-per-node=1', '--signal=USR2@90'):
    assert f'#SBATCH {line}\n' in text
  assert conducted(asked) == ended and (cluster / 'last').read_text() == '104\n'  # nothing is submitted again


def test_a_job_whose_time_is_nearly_up_saves_and_goes_on_in_another(sweep, conducted, stub, starts):
  do = """
def save(*_):
  (folder / 'saved').write_text('x'); sys.exit(143)
signal.signal(signal.SIGTERM, save)
if starts == 1 and rate == 2: (folder / 'ready').write_text(''); time.sleep(60)
"""
  told = []

  def tell(line):
    told.append(line)
    if 'low' in line:  # the other one waits for its time
      while not (conducted.folder / 'arms' / 'high' / '0' / 'ready').exists():
        time.sleep(0.01)
      os.kill(job(conducted.folder / 'jobs' / 'high' / '0'), signal.SIGUSR2)

  ended = conducted(sweep(command=stub(do), seeds=(0,), retries=0), tell)
  assert [each.status for each in ended] == ['complete', 'complete'], told
  assert starts(conducted.folder) == {'high/0': 2, 'low/0': 1}
  assert (conducted.folder / 'arms' / 'high' / '0' / 'saved').exists()
  assert any('high seed 0: stopped; begun again' in line for line in told)


def test_jobs_of_an_earlier_sweep_are_waited_for(sweep, conducted, stub, starts, resolver, cluster):
  asked = sweep(command=stub('time.sleep(0.5)'), seeds=(0,))
  made = plan.make(asked, resolver)
  conducted.folder.mkdir()
  conduct.prepare(made, conducted.folder)
  run = conduct.runs(made, conducted.folder)[0]
  engines.make('slurm', conducted.folder, {}).start(run.job)  # and that sweep was killed
  told = []
  ended = conducted(asked, told.append)
  assert [each.status for each in ended] == ['complete', 'complete'] and 'low seed 0: goes on, begun earlier' in told
  assert starts(conducted.folder) == {'high/0': 1, 'low/0': 1} and (cluster / 'last').read_text() == '102\n'


def test_a_parameter_that_is_none_is_told_in_one_line(tmp_path, cluster):
  with pytest.raises(UsageError, match='slurm_partitoin') as caught:
    engines.make('slurm', tmp_path, {'slurm_partitoin': 'gpu'})
  assert '\n' not in str(caught.value)
