"""Sets the process up for JAX: quiet libraries, the compilation cache, the devices, and several processes."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import t5x_lite
from t5x_lite.cli import cluster
from t5x_lite.cli.arguments import LOG_LEVELS, FlagValues
from t5x_lite.core import errors, paths

TERMINATED = 128 + signal.SIGTERM  # The exit code, as shells have it.

_AGAIN_SECONDS = 0.05
_FAILURES = (1, 2, 3, errors.LOST)
_NO_USE_AGAIN = (2, 3)

# The variable with the name of a file for an exit code that no rerun would better: what a launcher of many processes
# sees of them is the code of the one that it ended itself.
EXIT_FILE = 'T5X_LITE_EXIT_FILE'
_JAX_WAITS_LONGER = 60  # seconds
_CACHE_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
_UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '(.+?)'")


class Terminated(BaseException):
  """A SIGTERM that nothing else waits for. Like KeyboardInterrupt it closes what is open on its way out."""


def prepare(flags: FlagValues) -> None:
  """What has to be said before JAX is imported. What the user's environment says already, stays.

  The persistent cache keeps every program, however small or quick to compile: a run has hundreds of small ones, and
  together they are a good part of its start.
  """
  level = flags.log_level
  # XLA's own logging counts the other way round, from 0 for everything.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', str(len(LOG_LEVELS) - 1 - LOG_LEVELS.index(level)))
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')
  handler = logging.StreamHandler()
  handler.setFormatter(_Formatter())
  logging.basicConfig(level=level.upper(), handlers=[handler])
  for name in ('absl', 'jax'):  # They have levels of their own.
    logging.getLogger(name).setLevel(level.upper())
  logging.getLogger(t5x_lite.__name__).setLevel('DEBUG' if level == 'debug' else 'INFO')
  os.environ.setdefault(_CACHE_VARIABLE, str(paths.cache_dir() / 'xla'))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
  _mend_cache(pathlib.Path(os.environ[_CACHE_VARIABLE]))
  if threading.current_thread() is threading.main_thread():  # Elsewhere Python allows no handlers.
    signal.signal(signal.SIGTERM, _terminate)
  _keep_interrupts()


def _terminate(number: int, frame: FrameType | None) -> None:
  raise Terminated


def _keep_interrupts() -> None:
  """Has a Ctrl-C or SIGTERM sent again that Python swallowed.

  JAX has a callback in the garbage collector, and Python drops an exception that is raised in one: a Ctrl-C that falls
  into it would do nothing but print. It is sent again a moment later, when the callback is over.
  """
  report = sys.unraisablehook
  raised_by = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}

  def again(unraisable: Any) -> None:
    number = raised_by.get(unraisable.exc_type)
    if number is not None:
      timer = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number))
      timer.daemon = True
      timer.start()
    else:
      report(unraisable)

  sys.unraisablehook = again


def _mend_cache(folder: pathlib.Path) -> None:
  """Has entries of the compilation cache that cannot be read removed, when JAX warns of one.

  JAX does not write them atomically and does not replace one that is there: what a killed run leaves half-written would
  cost every later run its compilation.
  """
  show = warnings.showwarning

  def remove(message: Warning | str, *rest: Any, **options: Any) -> None:
    found = _UNREADABLE.match(str(message))
    if found is None:
      show(message, *rest, **options)
      return
    for path in folder.glob(f'{glob.escape(found[1])}-*-cache'):
      path.unlink(missing_ok=True)

  warnings.showwarning = remove


class _Formatter(logging.Formatter):
  """Our own messages as they are, warnings marked as such; those of other libraries with their names."""

  def format(self, record: logging.LogRecord) -> str:
    message = super().format(record)
    if record.name.partition('.')[0] != t5x_lite.__name__:
      return f'{record.name}: {message}'
    return message if record.levelno < logging.WARNING else f'{record.levelname.lower()}: {message}'


def start(flags: FlagValues, *, joins: bool = True) -> None:
  """What has to be said before the first array: how many devices, and which process of how many this one is.

  Args:
    flags: of the command.
    joins: whether what the scheduler says of other processes is for it.

  Raises:
    UsageError: what is known of several processes is incomplete, or does not go together.
  """
  import jax

  if flags.num_cpu_devices is not None:
    jax.config.update('jax_num_cpu_devices', flags.num_cpu_devices)
  found = cluster.find(flags, os.environ, _on_tpu_vm) if joins or cluster.asked(flags) else None
  if found is not None:
    _join(found, flags)


def _on_tpu_vm() -> bool:
  """Whether JAX has found TPU chips and may ask the metadata server which host of the slice this is."""
  from jax._src import cloud_tpu_init

  return bool(getattr(cloud_tpu_init, 'running_in_cloud_tpu_vm', False)) and 'TPU_SKIP_MDS_QUERY' not in os.environ


def _join(found: cluster.Cluster, flags: FlagValues) -> None:
  """Waits for the other processes, in bounded time.

  JAX would end the process with a stack trace when it has waited for too long, so that it is told to wait longer than
  we do. Its heartbeats come second in the same way: `training.watch` has more to tell.
  """
  import jax

  timeout = flags.coordinator_timeout
  timer = threading.Timer(timeout, _give_up, (found, timeout))
  timer.daemon = True
  timer.start()
  arguments = dataclasses.asdict(found)
  del arguments['name']
  try:
    jax.distributed.initialize(
      **arguments,
      initialization_timeout=timeout + _JAX_WAITS_LONGER,
      heartbeat_timeout_seconds=2 * flags.heartbeat_timeout + _JAX_WAITS_LONGER,
    )
  except (RuntimeError, ValueError) as error:  # Of the detection: a name that does not resolve, an API that refuses.
    raise errors.UsageError(f'{found.name}: cannot join the other processes: {" ".join(str(error).split())}') from error
  finally:
    timer.cancel()
  index, count = jax.process_index(), jax.process_count()
  if index == 0:
    logging.getLogger(__name__).info('%d processes (%s), coordinator %s', count, found.name, _address(found))


def _address(found: cluster.Cluster) -> str:
  """Of the coordinator, also where JAX has found it out."""
  from jax._src import distributed

  return found.coordinator_address or getattr(distributed.global_state, 'coordinator_address', None) or 'not known'


def _give_up(found: cluster.Cluster, seconds: int) -> None:
  """Ends the process from another thread: JAX waits in C++."""
  address = _address(found)
  which = '' if found.process_id is None else f'process {found.process_id} of {found.num_processes}: '
  if _answers(address):
    text = f'the coordinator at {address} answers, but not all processes came within {seconds} s'
  else:
    text = f'no coordinator (process 0) at {address} within {seconds} s'
  os.write(2, f'error: {which}{text}; see --coordinator_timeout\n'.encode())
  os._exit(errors.LOST)


def leave(main: Callable[[], int]) -> NoReturn:
  """Runs `main` and ends the process with its exit code, at once if it failed as one of several.

  JAX has a process wait at its end for all others, which a failed one need not: they may be waiting for it.
  """
  try:
    code = main()
  except Exception:
    traceback.print_exc()
    code = 1
  if code in _NO_USE_AGAIN and (told := os.environ.get(EXIT_FILE)):
    with contextlib.suppress(OSError):
      pathlib.Path(told).write_text(f'{code}\n', encoding='utf-8')
  jax = sys.modules.get('jax')
  if jax is not None and jax.distributed.is_initialized() and code in _FAILURES:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError):
        stream.flush()
    os._exit(code)
  sys.exit(code)


def _answers(address: str) -> bool:
  """Whether anything listens there."""
  host, _, port = address.rpartition(':')
  try:
    socket.create_connection((host.strip('[]'), int(port)), timeout=2.0).close()
  except (OSError, ValueError):
    return False
  return True
