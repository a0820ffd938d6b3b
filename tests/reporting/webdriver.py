"""Chromium by the W3C WebDriver protocol, which chromedriver speaks over HTTP: no package is needed for it."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

FLAGS = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'),
  *('--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage'),
)
_ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'  # the key of the standard


def installed() -> bool:
  return all(map(shutil.which, ('chromium', 'chromedriver')))


class Browser:
  """One window."""

  def __init__(self, address: str, session: str):
    self._address = f'{address}/session/{session}'

  def _ask(self, method: str, path: str, **given: Any) -> Any:
    return ask(method, f'{self._address}/{path}', given if method == 'POST' else None)

  def open(self, url: str) -> None:
    self._ask('POST', 'url', url=url)

  def run(self, script: str, *arguments: Any) -> Any:
    """The value of a script that returns."""
    return self._ask('POST', 'execute/sync', script=script, args=list(arguments))

  def wait(self, script: str, seconds: float = 20.0) -> None:
    """Until an expression is true."""
    end = time.monotonic() + seconds
    while not self.run(f'return Boolean({script})'):
      assert time.monotonic() < end, f'never became true: {script}'
      time.sleep(0.05)

  def find(self, selector: str) -> dict[str, str]:
    return self._ask('POST', 'element', using='css selector', value=selector)

  def click(self, selector: str) -> None:
    self.run('document.querySelector(arguments[0]).scrollIntoView({block: "center"})', selector)
    self._ask('POST', f'element/{self.find(selector)[_ELEMENT]}/click')

  def write(self, selector: str, text: str) -> None:
    self._ask('POST', f'element/{self.find(selector)[_ELEMENT]}/value', text=text)

  def pointer(self, selector: str, *steps: dict[str, Any]) -> None:
    """Moves, presses and releases the mouse; places are relative to the middle of an element."""
    origin = self.find(selector)
    done = [{'duration': 30, 'origin': origin, **step} if step['type'] == 'pointerMove' else step for step in steps]
    mouse = {'type': 'pointer', 'id': 'mouse', 'parameters': {'pointerType': 'mouse'}, 'actions': done}
    self._ask('POST', 'actions', actions=[mouse])

  def drag(self, selector: str, start: int, end: int) -> None:
    """From one place to another on the horizontal through the middle."""
    moves = [{'type': 'pointerMove', 'x': place, 'y': 0} for place in (start, (start + end) // 2, end)]
    down, up = {'type': 'pointerDown', 'button': 0}, {'type': 'pointerUp', 'button': 0}
    self.pointer(selector, moves[0], down, *moves[1:], up)

  def resize(self, width: int, height: int) -> None:
    self._ask(
      'POST',
      'goog/cdp/execute',
      cmd='Emulation.setDeviceMetricsOverride',
      params={'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600},
    )

  def emulate(self, scheme: str) -> None:
    features = [{'name': 'prefers-color-scheme', 'value': scheme}]
    self._ask('POST', 'goog/cdp/execute', cmd='Emulation.setEmulatedMedia', params={'features': features})

  def screenshot(self, path: pathlib.Path, whole: bool = False) -> None:
    params = {'captureBeyondViewport': whole}
    if whole:
      size = self.run('return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]')
      params['clip'] = {'x': 0, 'y': 0, 'width': size[0], 'height': size[1], 'scale': 1}
    found = self._ask('POST', 'goog/cdp/execute', cmd='Page.captureScreenshot', params=params)
    path.write_bytes(base64.b64decode(found['data']))

  def pdf(self) -> bytes:
    return base64.b64decode(self._ask('POST', 'print', page={'width': 21.0, 'height': 29.7}))

  def complaints(self) -> list[str]:
    """What the console has said since it was asked last, warnings and errors."""
    entries = self._ask('POST', 'se/log', type='browser')
    return [entry['message'] for entry in entries if entry['level'] in ('WARNING', 'SEVERE')]


def ask(method: str, url: str, value: Any = None) -> Any:
  data = None if value is None else json.dumps(value).encode()
  request = urllib.request.Request(url, data, {'Content-Type': 'application/json'}, method=method)
  try:
    with urllib.request.urlopen(request, timeout=120) as answer:
      return json.load(answer)['value']
  except urllib.error.HTTPError as error:
    raise AssertionError(error.read().decode()) from error


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
  """A Chromium with an empty profile, which ends with the context."""
  with (
    tempfile.TemporaryDirectory() as profile,
    subprocess.Popen(['chromedriver', '--port=0'], stdout=subprocess.PIPE, text=True) as driver,
  ):
    try:
      address = _address(driver)
      options = {'args': [*FLAGS, f'--user-data-dir={profile}'], 'binary': shutil.which('chromium')}
      wanted = {'goog:chromeOptions': options, 'goog:loggingPrefs': {'browser': 'ALL'}}
      made = ask('POST', f'{address}/session', {'capabilities': {'alwaysMatch': wanted}})
      session = made['sessionId']
      try:
        yield Browser(address, session)
      finally:
        ask('DELETE', f'{address}/session/{session}')
    finally:
      driver.terminate()


def _address(driver: subprocess.Popen[str]) -> str:
  for line in driver.stdout:
    if 'started successfully on port' in line:
      return f'http://127.0.0.1:{line.rsplit(" ", 1)[1].strip().rstrip(".")}'
  raise AssertionError('chromedriver did not start')
