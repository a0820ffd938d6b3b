"""SIGTERM and Ctrl-C as a request to stop after the current step, agreed on by all processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Self

import jax

_AGAIN_SECONDS = 0.5  # Wrappers such as `uv run` pass on a Ctrl-C that the terminal has delivered already.
_SHOW_CURSOR = b'\x1b[?25h'
_ERASE_LINE = b'\r\x1b[2K'


class StopRequest:
  """Context manager that turns SIGTERM and SIGINT into a flag; the handlers from before come back at its end.

  A second Ctrl-C ends the process at once. A second SIGTERM does not: schedulers often send it twice.

  With several processes the step to stop at must be the same for all, or some would wait for ever in a collective.
  JAX's coordination service has a protocol for it, started by a SIGTERM to any process, which it catches itself; Ctrl-C
  is turned into one.
  """

  def __init__(self) -> None:
    self._received: signal.Signals | None = None
    self._since = 0.0
    self._agree = jax.process_count() > 1
    self._previous: dict[signal.Signals, object] = {}

  def __enter__(self) -> Self:
    if threading.current_thread() is threading.main_thread():  # Elsewhere Python allows no handlers.
      numbers = (signal.SIGINT,) if self._agree else (signal.SIGINT, signal.SIGTERM)
      self._previous = {number: signal.signal(number, self._handle) for number in numbers}
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)  # type: ignore[arg-type]
    self._previous = {}

  @property
  def received(self) -> signal.Signals:
    """Which signal asked to stop; SIGTERM where another process received it."""
    return self._received or signal.SIGTERM

  def reached(self, step: int) -> bool:
    """Whether to stop after this step. With several processes, all must ask after every step."""
    if not self._agree:
      return self._received is not None
    from jax.experimental import multihost_utils

    try:
      return multihost_utils.reached_preemption_sync_point(step)
    except RuntimeError:  # Switched off by jax_enable_preemption_service: signals then act as they always do.
      return False

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    now = time.monotonic()
    if self._received is None:
      self._received, self._since = signal.Signals(number), now
      if number == signal.SIGINT:
        # The cursor stands behind the live line and the terminal's own ^C: left there, both would stay for ever.
        erase = _ERASE_LINE if os.isatty(2) else b''
        _write(erase + b'Ctrl-C: saving after the current step; press it again to end at once.\n')
        if self._agree:
          os.kill(os.getpid(), signal.SIGTERM)
    elif number == signal.SIGINT and now - self._since > _AGAIN_SECONDS:
      _write(_SHOW_CURSOR + b'\n' if os.isatty(2) else b'')
      os._exit(128 + number)


def _write(text: bytes) -> None:
  """Straight to the file descriptor: print() may be what the signal interrupted."""
  with contextlib.suppress(OSError):
    os.write(2, text)
