"""The study of a sweep in a PostgreSQL server: that of $T5X_LITE_TEST_POSTGRESQL, or one of the package pgserver."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import outcomes, spec, study


@pytest.fixture(scope='module')
def optuna():
  pytest.importorskip('psycopg2')
  return pytest.importorskip('optuna')


@pytest.fixture(scope='module')
def storage(optuna):
  """The URL of a database."""
  url = os.environ.get('T5X_LITE_TEST_POSTGRESQL')
  if url:
    yield url
    return
  pgserver = pytest.importorskip('pgserver')
  folder = tempfile.mkdtemp()  # short: a socket lies in it
  server = pgserver.get_server(folder, cleanup_mode='delete')
  try:
    yield server.get_uri()
  finally:
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_sweep_is_kept_there_and_is_no_other_sweeps(optuna, storage, sweep, conducted, stub, tmp_path):
  asked, name = sweep(command=stub()), f'sweep-{uuid.uuid4()}'
  for _ in range(2):  # begun again, it adds nothing twice
    kept = study.open_study(asked, conducted.folder, storage, name)
    ended, _ = conducted(asked, {'arm_ended': kept.note})
  assert [each.status for each in ended] == ['complete'] * 4
  found = optuna.load_study(study_name=name, storage=storage.replace('postgresql:', 'postgresql+psycopg2:', 1))
  values = {trial.user_attrs['arm']: (trial.value, trial.state.name, trial.params) for trial in found.trials}
  assert values == {'low': (1.5, 'COMPLETE', {'rate': 'low'}), 'high': (2.5, 'COMPLETE', {'rate': 'high'})}
  assert len(found.trials) == 2
  with pytest.raises(UsageError, match=r'is of the sweep in .*: expected a folder of another name'):
    study.open_study(asked, tmp_path / 'other', storage, name)


def test_several_launchers_with_sweeps_of_their_own_share_a_database(optuna, storage, sweep, tmp_path):
  names = [f'sweep-{uuid.uuid4()}' for _ in range(2)]
  both = [study.open_study(sweep(), tmp_path / name, storage, name) for name in names]
  arms = spec.arms(sweep())
  for own in (*both, *both):
    for number, arm in enumerate(arms):
      ended = [outcomes.Outcome(arm.name, seed, 'complete', {'text/loss': number + seed}) for seed in (0, 1)]
      own.note(arm, ended, {10: 3.0})
  url = storage.replace('postgresql:', 'postgresql+psycopg2:', 1)
  for name in names:
    assert [trial.value for trial in optuna.load_study(study_name=name, storage=url).trials] == [0.5, 1.5]


@pytest.mark.parametrize('driver', ['psycopg2', 'psycopg', None])
def test_the_driver_is_one_that_is_installed_and_a_password_is_not_shown(monkeypatch, driver):
  monkeypatch.setattr(study.importlib.util, 'find_spec', lambda name: name if name == driver else None)
  url = 'postgresql://me:secret@host:5432/studies'
  if driver is None:
    with pytest.raises(UsageError, match=r'//me:\*\*\*@host:5432/studies needs a driver: pip install') as caught:
      study._with_driver(url)
    assert 'secret' not in str(caught.value)
  else:
    assert study._with_driver(url) == f'postgresql+{driver}://me:secret@host:5432/studies'
  assert study._with_driver('postgresql+pg8000://host/x') == 'postgresql+pg8000://host/x'
  assert study._with_driver('sqlite:////a/study.db') == 'sqlite:////a/study.db'
