"""Names on the hub, through huggingface_hub, from a server on loopback that speaks its protocol."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from t5x_lite.core import errors
from t5x_lite.interop import hub

pytest.importorskip('huggingface_hub')
COMMIT = 'c0ffee' * 6 + 'c0ff'
ROOT = pathlib.Path(__file__).resolve().parents[2]


class _Handler(http.server.BaseHTTPRequestHandler):
  """`/api/models/NAME[/revision/REV]`, `/api/models/NAME/tree/COMMIT`, and `/NAME/resolve/COMMIT/FILE`."""

  protocol_version = 'HTTP/1.1'

  def do_HEAD(self):
    self._answer(body=False)

  def do_GET(self):
    self._answer(body=True)

  def log_message(self, *args):
    pass

  def _answer(self, body):
    server = self.server
    path = self.path.partition('?')[0]
    server.asked.append((self.command, path))
    repo, files = server.repo, {file.name: file.read_bytes() for file in server.folder.iterdir()}
    if path in (f'/api/models/{repo}', f'/api/models/{repo}/revision/main'):
      siblings = [{'rfilename': name} for name in files]
      return self._send(json.dumps({'id': repo, 'modelId': repo, 'sha': COMMIT, 'siblings': siblings}).encode(), body)
    if path == f'/api/models/{repo}/tree/{COMMIT}':
      listed = [
        {'type': 'file', 'path': name, 'size': len(data), 'oid': hashlib.sha1(data).hexdigest()}
        for name, data in files.items()
      ]
      return self._send(json.dumps(listed).encode(), body)
    for name, data in files.items():
      if path == f'/{repo}/resolve/{COMMIT}/{name}':
        headers = {'X-Repo-Commit': COMMIT, 'ETag': f'"{hashlib.sha1(data).hexdigest()}"'}
        return self._send(data, body, headers)
    missing = 'RevisionNotFound' if path.startswith(f'/api/models/{repo}/revision/') else 'RepoNotFound'
    return self._send(b'{}', body, {'X-Error-Code': missing}, 404)

  def _send(self, data, body, headers=None, status=200):
    self.send_response(status)
    self.send_header('Content-Length', str(len(data)))
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.end_headers()
    if body:
      self.wfile.write(data)


@pytest.fixture
def served(tmp_path, recorded):
  """A server of the repository `org/tiny-t5`, with a file that is not to be fetched; and its address."""
  folder = recorded('t5_lm').write(tmp_path / 'served')
  (folder / 'pytorch_model.bin').write_bytes(b'not this one')
  (folder / 'README.md').write_text('nor this')
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.folder, server.repo, server.asked = folder, 'org/tiny-t5', []
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


def locate(server, home, name, revision=None, **environment):
  """`hub.locate` in a process of its own: huggingface_hub reads its environment when it is imported."""
  port = server.server_address[1]
  variables = {
    **{key: value for key, value in os.environ.items() if not key.startswith('HF_') and 'proxy' not in key.lower()},
    'HF_HOME': str(home),
    'HF_ENDPOINT': f'http://127.0.0.1:{port}',
    'HF_HUB_DISABLE_PROGRESS_BARS': '1',
    'HF_HUB_DISABLE_TELEMETRY': '1',
    'HF_HUB_DISABLE_XET': '1',
    **environment,
  }
  code = (
    'import sys\nfrom t5x_lite.core.errors import UsageError\nfrom t5x_lite.interop import hub\n'
    'try:\n  print(hub.locate(sys.argv[1], revision=sys.argv[2] or None))\n'
    'except UsageError as error:\n  print(f"UsageError: {error}")\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, name, revision or ''], capture_output=True, text=True, env=variables, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


@pytest.mark.slow
def test_a_name_is_fetched_once_and_found_offline(served, tmp_path):
  home = tmp_path / 'home'
  told = locate(served, home, 'org/tiny-t5', HF_HUB_OFFLINE='1')
  assert 'HF_HUB_OFFLINE is set' in told and told.startswith('UsageError: no directory org/tiny-t5')
  assert served.asked == []
  found = pathlib.Path(locate(served, home, 'org/tiny-t5'))
  assert {file.name for file in found.iterdir()} == {'config.json', 'model.safetensors'}
  assert (found / 'model.safetensors').read_bytes() == (served.folder / 'model.safetensors').read_bytes()
  fetched = [path for command, path in served.asked if command == 'GET' and '/resolve/' in path]
  assert len(fetched) == 2
  served.asked.clear()
  assert locate(served, home, 'org/tiny-t5', HF_HUB_OFFLINE='1') == str(found)
  assert served.asked == []
  assert locate(served, home, 'org/tiny-t5') == str(found)
  assert not [path for command, path in served.asked if command == 'GET' and '/resolve/' in path]


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_one_line(served, tmp_path):
  told = locate(served, tmp_path, 'org/no-such')
  assert told.startswith('UsageError: no directory org/no-such, and no such name on the hub') and '\n' not in told
  told = locate(served, tmp_path, 'org/tiny-t5', 'v9')
  assert told == 'UsageError: org/tiny-t5 has no revision v9 on the hub'
  told = locate(served, tmp_path, 'org/tiny-t5', HF_ENDPOINT='http://127.0.0.1:9')
  assert 'the hub cannot be reached' in told and '\n' not in told


def test_a_directory_is_itself_and_a_path_is_no_name(tmp_path, monkeypatch):
  assert hub.locate(tmp_path) == tmp_path
  with contextlib.chdir(tmp_path):
    (tmp_path / 'model').mkdir()
    assert hub.locate('model') == tmp_path / 'model'
  for name in ('/no/such/directory', './model', 'a/b/c', '~/x', ''):
    with pytest.raises(errors.UsageError, match='no directory'):
      hub.locate(name)
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UsageError, match='is a file'):
    hub.locate(tmp_path / 'file')


def test_without_the_extra_a_name_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(errors.UsageError, match=r"pip install 't5x_lite\[hf\]'"):
    hub.locate('org/tiny-t5')
