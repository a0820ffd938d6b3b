"""The command: pages of runs, and mistakes told in one line."""

from __future__ import annotations

import http.client
import importlib.util
import json
import pathlib
import subprocess
import sys
import threading

import pytest

from t5x_lite import report
from t5x_lite.cli.record import may_change
from t5x_lite.core.errors import UsageError
from t5x_lite.reporting import folders, payload, server

_PATH = pathlib.Path(__file__).with_name('folder_fakes.py')
_SPEC = importlib.util.spec_from_file_location('folder_fakes', _PATH)
fakes = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fakes)


def run(*words):
  return report.main(['report', *map(str, words)])


def test_words_and_flags_stand_in_any_order(tmp_path, capsys):
  folder = fakes.write_run(tmp_path / 'run', [1.0])
  for order in (0, 1):
    output = tmp_path / f'{order}.html'
    words = [folder, f'--output={output}']
    assert run(*(words if order else reversed(words))) == 0
    assert output.read_text().startswith('<!DOCTYPE html>')
  assert '1 run,' in capsys.readouterr().out


def made(tmp_path, what):
  """Something that is no run with metrics, by its name."""
  path = tmp_path / what
  if what == 'file':
    path.write_text('')
  elif what == 'empty':
    path.mkdir()
  elif what == 'runs':
    fakes.write_run(path / 'one', [1.0])
  elif what in ('young', 'blank'):
    fakes.write_run(path, [])
    if what == 'young':
      (path / 'metrics.jsonl').unlink()
  elif what == 'sweep':
    path.mkdir()
    (path / 'sweep.json').write_text('{"name": "n", "arms": [{"name": "a"}], "seeds": [0], "metrics": []}')
  elif what == 'broken':
    path.mkdir()
    (path / 'sweep.json').write_text('{"arms": ')
  return path


@pytest.mark.parametrize(
  ('what', 'told'),
  [
    ('nowhere', 'no such folder'),
    ('file', 'not a file'),
    ('empty', 'neither a run'),
    ('runs', 'it holds one: expected'),
    ('young', 'no metrics yet'),
    ('blank', 'no metrics yet'),
    ('sweep', 'none of the runs of this sweep has metrics yet'),
    ('broken', 'not what a sweep writes'),
  ],
)
def test_what_is_no_run_is_told_in_one_line(tmp_path, capsys, what, told):
  output = tmp_path / 'report.html'
  assert run(made(tmp_path, what), f'--output={output}') == 2
  error = capsys.readouterr().err
  assert told in error and error.count('\n') == 1 and not output.exists()


def test_mistakes_on_the_command_line_are_told_in_one_line(tmp_path, capsys):
  folder = fakes.write_run(tmp_path / 'run', [1.0])
  for words, told in (
    ([f'--output={tmp_path}/a.html'], 'no run'),
    ([folder], '--output=report.html or --serve'),
    ([folder, f'--output={tmp_path}'], 'not a folder'),
    ([folder, f'--output={tmp_path}/none/a.html'], 'there is no folder'),
    ([folder, '--outptu=a.html'], "did you mean '--output'?"),
    ([tmp_path / 'rum', f'--output={tmp_path}/a.html'], f'did you mean {folder}?'),
    ([folder, '--serve', '--port=99999'], 'port'),
  ):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count('\n') == 1, error


def test_a_folder_named_twice_counts_once(tmp_path):
  folder = fakes.write_run(tmp_path / 'run', [1.0])
  (tmp_path / 'link').symlink_to(folder)
  assert len(folders.find([str(folder), f'{folder}/', str(tmp_path / 'link')]).runs) == 1


def test_names_are_the_shortest_that_tell_runs_apart(tmp_path):
  paths = [fakes.write_run(tmp_path / name, [1.0]) for name in ('a/x/run', 'b/x/run', 'c')]
  assert [place.name for place in folders.find([str(path) for path in paths]).runs] == ['a/x/run', 'b/x/run', 'c']
  (number,) = folders.find([str(fakes.write_run(tmp_path / 'arm' / '0', [1.0]))]).runs
  assert number.name == 'arm/0'


def test_jax_is_not_imported():
  script = 'import sys; import t5x_lite.report; print([name for name in ("jax", "pyarrow") if name in sys.modules])'
  assert subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True).stdout == '[]\n'


@pytest.fixture
def served(tmp_path):
  """A run, and a connection to the server that shows it."""
  folder = fakes.write_run(tmp_path / 'run', [1.0])
  made = server.make(payload.FolderReader(folders.find([str(folder)]), may_change), 0)
  thread = threading.Thread(target=made.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield folder, http.client.HTTPConnection('127.0.0.1', made.server_address[1], timeout=10)
  finally:
    made.shutdown()
    thread.join()
    made.server_close()


def answer(connection, path, **headers):
  connection.request('GET', path, headers=headers)
  found = connection.getresponse()
  return found.status, found.read().decode()


def test_a_server_tells_what_is_new_and_nothing_else(served):
  folder, connection = served
  assert answer(connection, '/')[0] == 200
  stamp = json.loads(answer(connection, '/data')[1])['stamp']
  assert answer(connection, f'/data?stamp={stamp}') == (204, '')
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"split": "train", "step": 20, "loss": 0.5}\n{"split": "train", "st')
  status, text = answer(connection, f'/data?stamp={stamp}')
  assert status == 200 and json.loads(text)['runs'][0]['spent']['steps'] == 20
  assert answer(connection, '/../etc/passwd')[0] == 404


def test_a_server_is_for_this_machine_alone(served):
  _, connection = served
  assert answer(connection, '/data', Host='evil.example')[0] == 403
  assert answer(connection, '/data', Host=f'localhost:{connection.port}')[0] == 200


def test_a_port_that_is_taken_is_told(served):
  folder, connection = served
  reader = payload.FolderReader(folders.find([str(folder)]), may_change)
  with pytest.raises(UsageError, match='--port=0 takes one that is free'):
    server.make(reader, connection.port)
