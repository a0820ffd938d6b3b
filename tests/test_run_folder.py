"""The folder of a run: held by one run, and not left behind by one that never began."""

from __future__ import annotations

import pytest

from t5x_lite import run_folder
from t5x_lite.core.errors import UsageError


def test_a_run_that_writes_nothing_leaves_no_folder_that_was_not_there(tmp_path):
  (tmp_path / 'mine').mkdir()
  with pytest.raises(UsageError, match='no data'), run_folder.hold(str(tmp_path / 'mine' / 'runs' / 'one')):
    raise UsageError('no data')
  assert list(tmp_path.rglob('*')) == [tmp_path / 'mine']


def test_what_was_there_and_what_was_written_stays(tmp_path):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'old').mkdir()
  with run_folder.hold(str(tmp_path / 'runs' / 'old')):
    pass
  with run_folder.hold(str(tmp_path / 'runs' / 'new')):
    (tmp_path / 'runs' / 'new' / 'config.gin').write_text('')
  assert (tmp_path / 'runs' / 'old').is_dir()
  assert {path.name for path in (tmp_path / 'runs' / 'new').iterdir()} == {'config.gin', '.lock'}


def test_a_second_run_in_the_folder_is_refused_and_takes_nothing_away(tmp_path):
  folder = tmp_path / 'run'
  with run_folder.hold(str(folder)):
    with pytest.raises(UsageError, match='another run is going on there'), run_folder.hold(str(folder)):
      pass
    assert folder.is_dir()
