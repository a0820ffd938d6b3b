"""Runs of a sweep as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from typing import Protocol

from t5x_lite.sweeps import supervise


class Handle(Protocol):
  """A run that goes on."""

  def ended(self) -> bool:
    """Whether it has ended, with or without a note."""

  def stop(self, *, at_once: bool = False) -> None:
    """Asks it to save and stop, or ends it."""


class Engine(Protocol):
  """What starts runs."""

  def start(self, folder: pathlib.Path) -> Handle:
    """Has the job in a folder supervised; if it goes on already, that is what is waited for."""

  def find(self, folder: pathlib.Path) -> Handle | None:
    """The run of the job in a folder that an earlier sweep has started; None if none goes on."""


class Local:
  """Each run has a supervisor in a session of its own, so that neither Ctrl-C nor the end of the sweep ends it."""

  def start(self, folder: pathlib.Path) -> Handle:
    """See `Engine`."""
    lock = supervise.hold(folder)
    if lock is None:
      return _Found(folder)
    try:
      process = subprocess.Popen(
        [sys.executable, '-I', '-S', supervise.__file__, str(folder)],
        env=os.environ | {'T5X_LITE_JOB_LOCK': str(lock)},
        pass_fds=(lock,),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
      )
    finally:
      os.close(lock)
    return _Child(process, folder)

  def find(self, folder: pathlib.Path) -> Handle | None:
    """See `Engine`."""
    if not (folder / supervise.LOCK).exists():
      return None
    lock = supervise.hold(folder)
    if lock is None:
      return _Found(folder)
    os.close(lock)
    return None


class _Found:
  """A run that another process has started, known by the lock that it holds."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def ended(self) -> bool:
    lock = supervise.hold(self._folder)
    if lock is None:
      return False
    os.close(lock)
    return True

  def stop(self, *, at_once: bool = False) -> None:
    with contextlib.suppress(ValueError, OSError):
      _signal(int((self._folder / supervise.LOCK).read_text()), at_once)


class _Child:
  """A run whose supervisor this process has started."""

  def __init__(self, process: subprocess.Popen[bytes], folder: pathlib.Path):
    self._process, self._rest = process, _Found(folder)

  def ended(self) -> bool:
    # Where the supervisor was killed, its command may go on for a while, and holds the lock.
    return self._process.poll() is not None and self._rest.ended()

  def stop(self, *, at_once: bool = False) -> None:
    _signal(self._process.pid, at_once)


def _signal(supervisor: int, at_once: bool) -> None:
  """To the supervisor, which passes it on; to all that it has left behind where it is gone; or the end for all."""
  with contextlib.suppress(ProcessLookupError):
    if at_once:
      os.killpg(supervisor, signal.SIGKILL)
      return
    try:
      os.kill(supervisor, signal.SIGTERM)
    except ProcessLookupError:
      os.killpg(supervisor, signal.SIGTERM)
