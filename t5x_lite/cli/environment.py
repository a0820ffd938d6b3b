"""Sets the process up for JAX: quiet libraries, the compilation cache, the devices, and several processes."""

from __future__ import annotations

import glob
import logging
import os
import pathlib
import re
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Any

import t5x_lite
from t5x_lite.cli.arguments import LOG_LEVELS, FlagValues
from t5x_lite.core import errors, paths

TERMINATED = 128 + signal.SIGTERM  # The exit code, as shells have it.

_AGAIN_SECONDS = 0.05
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


def start(flags: FlagValues) -> None:
  """What has to be said before the first array: how many devices, and which process of how many this one is.

  Raises:
    UsageError: some of the three flags for several processes are missing, or do not go together.
  """
  import jax

  if flags.num_cpu_devices is not None:
    jax.config.update('jax_num_cpu_devices', flags.num_cpu_devices)
  names = ('coordinator_address', 'num_processes', 'process_id')
  values = [getattr(flags, name) for name in names]
  if all(value is None for value in values):
    return
  missing = [f'--{name}' for name, value in zip(names, values, strict=True) if value is None]
  if missing:
    raise errors.UsageError(f'several processes need all of --{", --".join(names)}: missing {", ".join(missing)}')
  address, processes, process = values
  if process >= processes:
    raise errors.UsageError(f'--process_id={process}: expected less than --num_processes={processes}')
  host, _, port = address.rpartition(':')
  if not (host and port.isdigit()):
    raise errors.UsageError(f'--coordinator_address={address}: expected HOST:PORT')
  jax.distributed.initialize(address, processes, process)
