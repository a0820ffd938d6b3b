"""Runs the commands of one run of a sweep, one after the other, and notes how they ended.

It outlives the sweep that started it: a sweep that is killed and begun again finds the run going on, or its end noted.
Started by path, in a bare interpreter, it costs some 20 ms; so it imports nothing of the library.

The folder that it is given:

    job.json        {"commands": [{"name": ..., "argv": [...]}, ...]}, written by the sweep
    lock            held while a run goes on, by this process and by the command that it runs; the file has its id
    attempts.jsonl  a row for each attempt: {"codes": {name: exit code}, "seconds": ..., "stopped": whether by a signal}
    log.txt         what the commands print
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import IO, Any

JOB, LOCK, ATTEMPTS, LOG = 'job.json', 'lock', 'attempts.jsonl', 'log.txt'
STOPPED = 143  # 128 + SIGTERM


def hold(folder: pathlib.Path) -> int | None:
  """The lock's file descriptor, for children to inherit; None if a run is going on there."""
  descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    os.close(descriptor)
    return None
  return descriptor


def attempts(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The attempts so far; a line that was cut off is none."""
  try:
    lines = (folder / ATTEMPTS).read_text(encoding='utf-8').split('\n')[:-1]
  except FileNotFoundError:
    return []
  return [json.loads(line) for line in lines]


def run(folder: pathlib.Path, lock: int) -> int:
  """Makes one attempt: runs the commands that no earlier attempt has ended with 0, up to one that does not.

  SIGTERM is passed on to the command, which has its own way to stop; its end is noted all the same. So is SIGUSR2, by
  which submitit has Slurm tell that the time of a job is nearly up, as a SIGTERM.

  Args:
    folder: see above.
    lock: its descriptor, which the commands inherit.

  Returns:
    The exit code of the last command.
  """
  commands = json.loads((folder / JOB).read_text(encoding='utf-8'))['commands']
  done = {name for attempt in attempts(folder) for name, code in attempt['codes'].items() if code == 0}
  stop = _Stop()
  os.ftruncate(lock, 0)
  os.pwrite(lock, str(os.getpid()).encode(), 0)
  started, codes, code = time.time(), {}, 0
  with (folder / LOG).open('ab') as log:
    for command in commands:
      if command['name'] in done:
        continue
      if stop.asked:
        code = STOPPED
        break
      code = stop.wait(_begin(command['argv'], log, lock))
      codes[command['name']] = code
      if code:
        break
  note(folder, {'codes': codes, 'seconds': round(time.time() - started, 3), 'stopped': stop.asked})
  return code


def _begin(argv: list[str], log: IO[bytes], lock: int) -> subprocess.Popen[bytes]:
  """Starts a command, which is deaf to SIGUSR2: some schedulers send it to all processes of a job."""
  before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
  try:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock,))
  finally:
    signal.signal(signal.SIGUSR2, before)


class _Stop:
  """Passes SIGTERM, SIGINT and SIGUSR2 on to the command that runs, as SIGTERM."""

  def __init__(self) -> None:
    self.asked = False
    self._child: subprocess.Popen[bytes] | None = None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
      signal.signal(number, self._handle)

  def wait(self, child: subprocess.Popen[bytes]) -> int:
    """Waits for a command; its exit code, 128 + n for signal n."""
    self._child = child
    if self.asked:  # between the start and here
      child.terminate()
    code = child.wait()
    self._child = None
    return code if code >= 0 else 128 - code

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self.asked = True
    if self._child is not None and self._child.returncode is None:
      self._child.terminate()


def note(folder: pathlib.Path, row: dict[str, Any]) -> None:
  """Appends a row to the attempts, in one write. A line that a crash cut off before it is ended first."""
  path = folder / ATTEMPTS
  text = json.dumps(row) + '\n'
  descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
  try:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b'\n':
      os.ftruncate(descriptor, os.pread(descriptor, size, 0).rfind(b'\n') + 1)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def main(folder: str) -> int:
  """Runs the job in a folder, unless somebody does."""
  path = pathlib.Path(folder)
  inherited = os.environ.pop('T5X_LITE_JOB_LOCK', None)
  lock = hold(path) if inherited is None else int(inherited)
  if lock is None:
    return 0
  return run(path, lock)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1]))
