"""Shows the page on this machine alone, and tells it what is new in runs that go on."""

from __future__ import annotations

import http.server
import threading
import urllib.parse
from typing import Any

from t5x_lite.core import errors
from t5x_lite.reporting import encoding, page
from t5x_lite.reporting.payload import FolderReader

HOST = '127.0.0.1'
_NAMES = (HOST, 'localhost')  # Any other name in a request is another site's, made to point here.


class _Server(http.server.ThreadingHTTPServer):
  """Answers with what a reader reads, one reading at a time."""

  daemon_threads = True

  def __init__(self, reader: FolderReader, port: int):
    super().__init__((HOST, port), _Handler)
    self._reader, self._lock = reader, threading.Lock()
    self._value: dict[str, Any] | None = None

  def value(self) -> dict[str, Any]:
    """What there is now."""
    with self._lock:
      if self._value is None or self._value['stamp'] != self._reader.stamp():
        self._value = self._reader.read()
      return self._value


class _Handler(http.server.BaseHTTPRequestHandler):
  server: _Server

  def do_GET(self) -> None:
    """`/` is the page; `/data?stamp=...` its data, or 204 where they are the same."""
    address = urllib.parse.urlsplit(self.path)
    if urllib.parse.urlsplit(f'//{self.headers.get("Host", "")}').hostname not in _NAMES:
      self._send(403, 'text/plain', 'this page is for this machine alone\n')
    elif address.path == '/':
      self._send(200, 'text/html', page.render(self.server.value(), live=True))
    elif address.path == '/data':
      value = self.server.value()
      if urllib.parse.parse_qs(address.query).get('stamp') == [value['stamp']]:
        self._send(204, 'application/json', '')
      else:
        self._send(200, 'application/json', encoding.script_json(value))
    else:
      self._send(404, 'text/plain', 'there is / and /data\n')

  def _send(self, status: int, kind: str, text: str) -> None:
    body = text.encode()
    self.send_response(status)
    self.send_header('Content-Type', f'{kind}; charset=utf-8')
    self.send_header('Cache-Control', 'no-store')
    self.send_header('X-Content-Type-Options', 'nosniff')
    if status != 204:
      self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    try:
      self.wfile.write(body)
    except (BrokenPipeError, ConnectionResetError):  # The page was closed.
      self.close_connection = True

  def log_message(self, format: str, *args: Any) -> None:
    """Requests are no news."""


def make(reader: FolderReader, port: int) -> _Server:
  """The server, which waits for `serve_forever`.

  Args:
    reader: of the runs.
    port: 0 for any that is free.

  Raises:
    UsageError: something else listens there.
  """
  try:
    return _Server(reader, port)
  except OSError as error:
    raise errors.UsageError(f'--port={port}: {error.strerror}; --port=0 takes one that is free') from error


def serve(reader: FolderReader, port: int) -> None:
  """Serves until Ctrl-C, which is how it ends."""
  with make(reader, port) as server:
    print(f'{reader.describe()} at http://{HOST}:{server.server_address[1]} (Ctrl-C ends it)', flush=True)
    try:
      server.serve_forever()
    except KeyboardInterrupt:
      print('ended')
