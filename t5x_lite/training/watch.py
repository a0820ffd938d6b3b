"""Notices in bounded time that a process of the run has died or hangs, and ends the others so that all start again.

A process that has lost another waits for it in a collective, for ever on most platforms: it cannot notice by itself. So
every process writes a sign of life with what it is doing into the store that they share, from a thread. Process 0 reads
them; when one falls silent it tells all, each prints the one line that names it and exits with `errors.LOST`. Falls
process 0 silent, the others notice on their own. (When it dies, its store goes with it and JAX itself ends the others
at once: with SIGABRT and its own report, which says that the leader was lost.)

A process that is alive but takes no step (its data do not come, a collective waits) is found by the time since its last
progress, which is longer for what is no step: start-up, evaluation, saving. Then the stacks of all its threads are
printed too.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from t5x_lite.core import errors
from t5x_lite.training import coordination
from t5x_lite.training.signs import DATA, DEVICE, DISPATCH, ELSE, Judge, Sign

__all__ = ['DATA', 'DEVICE', 'DISPATCH', 'ELSE', 'Watch']

_BEATS = 5  # within a heartbeat timeout
_GRACE_SECONDS = 5.0  # for a process to come to the error that another has reported
_ALIVE, _LOST, _GONE = 'alive', 'lost', 'gone'
_NUMBERS = itertools.count()  # Of the watches of a process: all processes of a run make the same ones.
_RESTART = 'started again, the run goes on from its last checkpoint'


class Watch:
  """Watches over the processes of a run from threads of its own, from `start` to `close`.

  Args:
    heartbeat_timeout: seconds of silence after which another process counts as lost.
    store: shared by the processes; None: there is only this one.
    end: what ends this process, given the line to print and whether to show stacks.
  """

  def __init__(
    self,
    heartbeat_timeout: float = 100.0,
    store: coordination.Store | None = None,
    end: Callable[[str, bool], None] | None = None,
  ):
    self._timeout, self._store = heartbeat_timeout, store
    self._end = end or _end
    self._process = 0 if store is None else jax.process_index()
    self._count = 1 if store is None else jax.process_count()
    self._folder = f't5x_lite/watch{next(_NUMBERS)}'
    self._where = f'host {socket.gethostname()}, pid {os.getpid()}'
    self._at: tuple[int | None, str] = (None, ELSE)
    self._progress = self._answered = time.monotonic()
    self._stall = self._pause = math.inf
    self._paused = True  # until the first step
    self._closed = threading.Event()
    self._telling = threading.Lock()
    self._threads: list[threading.Thread] = []

  # --- What the loop calls ---

  def at(self, step: int, doing: str) -> None:
    """The loop is at this point of this step. Costs next to nothing."""
    self._at, self._paused, self._progress = (step, doing), False, time.monotonic()

  def arm(self, seconds: float, pause_seconds: float = 0.0) -> None:
    """From now on the run hangs if it stays at one point for too long.

    Args:
      seconds: at a point of a step; 0: for ever is all right.
      pause_seconds: before the first step and inside `paused`, without `progress`; 0: for ever is all right.
    """
    self._progress = time.monotonic()
    self._stall, self._pause = seconds or math.inf, pause_seconds or math.inf
    if min(self._stall, self._pause) < math.inf:
      self._start_thread(self._beat)

  def progress(self) -> None:
    """Something was done that is no part of a step, such as a batch of an evaluation."""
    self._progress = time.monotonic()

  @contextmanager
  def paused(self) -> Iterator[None]:
    """What happens inside takes longer than a step: evaluation, saving, writing a trace."""
    before, self._at, self._paused, self._progress = self._at, (self._at[0], ELSE), True, time.monotonic()
    try:
      yield
    finally:
      self._at, self._paused, self._progress = before, False, time.monotonic()

  # --- From the start to the end of a run ---

  def start(self) -> None:
    """Begins to give signs and to look for those of others. One process alone has no use for it, unless armed."""
    if self._store is not None:
      self._start_thread(self._beat)
      self._start_thread(self._listen)

  def close(self) -> None:
    """The run is over for this process, and the others are to know it."""
    if self._closed.is_set():
      return
    self._closed.set()
    if self._store is not None:
      self._put(f'{_LOST}/{self._process}', '')  # Wakes our own thread.
      self._put(f'{_ALIVE}/{self._process}', self._sign(-1, ended=True).to_text())
    for thread in self._threads:
      thread.join(timeout=1.0)

  def fail(self, text: str) -> None:
    """This process is about to end with an error of its own. The others are told, and are given time to hear it.

    With its end the store is gone, if this is process 0: it stays until the others have ended too.
    """
    if self._store is None or self._closed.is_set():
      return
    me = self._sign(0).describe(self._process)
    self._tell_all({'text': f'{me} failed: {text}', 'grace': _GRACE_SECONDS})
    self._closed.set()
    self._put(f'{_GONE}/{self._process}', '1')
    deadline = time.monotonic() + 2 * _GRACE_SECONDS
    while self._process == 0 and time.monotonic() < deadline and len(self._read(_GONE)) < self._count:
      time.sleep(0.1)

  def wait_for_verdict(self) -> None:
    """After an error that comes of a lost process: the watch ends this process within the timeout, if there is one."""
    if self._store is not None:
      self._closed.wait(self._timeout * (1 + 2 / _BEATS))

  # --- Threads ---

  def _start_thread(self, target: Callable[[], None]) -> None:
    if all(thread.name != target.__name__ for thread in self._threads):
      self._threads.append(threading.Thread(target=target, name=target.__name__, daemon=True))
      self._threads[-1].start()

  def _sign(self, beat: int, *, ended: bool = False) -> Sign:
    return Sign(beat, self._where, *self._at, ended=ended)

  def _beat(self) -> None:
    """Gives signs; in process 0 judges those of others; everywhere watches the loop of this process."""
    judge = Judge(list(range(1, self._count)), self._timeout, time.monotonic())
    beat, interval = 0, self._timeout / _BEATS
    while not self._closed.wait(min(interval, self._stall / _BEATS, self._pause / _BEATS)):
      beat += 1
      if self._store is not None:
        self._put(f'{_ALIVE}/{self._process}', self._sign(beat).to_text())
      if self._store is not None and self._process == 0:
        signs = {int(name): Sign.from_text(text) for name, text in self._read(_ALIVE).items()}
        lost = judge.look(signs, time.monotonic())
        if lost is not None:
          self._pronounce({'text': lost})
      self._look_at_loop(judge)

  def _look_at_loop(self, judge: Judge) -> None:
    stall, since = self._pause if self._paused else self._stall, self._progress
    patience = 0.0 if self._process == 0 else 2 * self._timeout / _BEATS  # Process 0 knows who is behind.
    still = time.monotonic() - since
    if still < stall + patience or self._closed.is_set():
      return
    sign = self._sign(0)
    who = f'{sign.describe(self._process)} is {sign.last()}'
    if self._count > 1 and self._process == 0:
      who = judge.behind(sign)
    self._pronounce({'text': f'no progress for {still:.0f} s: {who}', 'stacks': True})

  def _listen(self) -> None:
    """Waits for a verdict, and for process 0 to fall silent."""
    interval = self._timeout / _BEATS
    last = time.monotonic()
    while not self._closed.is_set():
      try:
        text = self._store.wait(f'{self._folder}/{_LOST}/{self._process}', interval)  # type: ignore[union-attr]
      except Exception:  # The store is gone, or the network: the silence is judged below.
        text = None
        self._closed.wait(interval / 4)
      now = time.monotonic()
      if now - last > self._timeout / 2 + interval:  # This process was stopped.
        self._answered = now
      last = now
      if text:
        self._obey(json.loads(text))
      elif now - self._answered > self._timeout and not self._closed.is_set():
        silence = f'process 0 (the coordinator) has not answered for {now - self._answered:.0f} s'
        self._stop(silence, stacks=False)

  def _pronounce(self, verdict: dict[str, Any]) -> None:
    """Tells all processes and ends this one, last if it is process 0, since the store goes with it."""
    self._tell_all(verdict)
    if self._process == 0:
      time.sleep(min(2.0, self._timeout / _BEATS))
    self._stop(verdict['text'], stacks=verdict.get('stacks', False))

  def _obey(self, verdict: dict[str, Any]) -> None:
    if self._closed.wait(verdict.get('grace', 0.0)):
      return
    self._put(f'{_GONE}/{self._process}', '1')
    if self._process == 0:
      time.sleep(1.0)
    self._stop(verdict['text'], stacks=verdict.get('stacks', False))

  def _stop(self, text: str, *, stacks: bool) -> None:
    with self._telling:  # One line of one thread.
      if not self._closed.is_set():
        self._end(text, stacks)

  # --- The store, which may be gone ---

  def _tell_all(self, verdict: dict[str, Any]) -> None:
    for process in range(self._count):
      if process != self._process:
        self._put(f'{_LOST}/{process}', json.dumps(verdict))

  def _put(self, key: str, text: str) -> None:
    if self._store is None:
      return
    try:
      self._store.put(f'{self._folder}/{key}', text)
    except Exception:  # The listening thread notices how long this goes on.
      return
    self._answered = time.monotonic()

  def _read(self, folder: str) -> dict[str, str]:
    try:
      return {} if self._store is None else self._store.read(f'{self._folder}/{folder}')
    except Exception:
      return {}


def _end(text: str, stacks: bool) -> None:
  """Ends the process from whatever thread, while others of it wait in C++."""
  if stacks:
    faulthandler.dump_traceback(file=2)
  os.write(2, f'error: {text}; {_RESTART}\n'.encode())
  os._exit(errors.LOST)
