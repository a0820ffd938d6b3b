"""Folders that are built once: by whichever process comes first, and never seen half built."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

from t5x_lite.core import errors, paths

_log = logging.getLogger(__name__)


def build_once(target: pathlib.Path, build: Callable[[pathlib.Path], None]) -> pathlib.Path:
  """Returns the folder `target`, after filling it with `build(folder)` if it does not exist.

  `build` writes to a temporary folder beside `target`, which then takes its name in one step: a folder called `target`
  is always complete, whenever a process is killed. Processes that come at the same time wait for the one that builds.

  Args:
    target: absolute path of a folder in the cache.
    build: writes everything below the empty folder it is given.

  Raises:
    UsageError: the cache cannot be written or locked.
  """
  if target.is_dir():
    return target
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f'.{target.name}.lock'):
      if not target.is_dir():
        _build(target, build)
  except OSError as error:
    raise errors.UsageError(
      f'cannot write to the cache folder {target.parent}: {error.strerror or error}; '
      f'set ${paths.CACHE_VARIABLE} to a folder that can be written'
    ) from error
  return target


def _build(target: pathlib.Path, build: Callable[[pathlib.Path], None]) -> None:
  """Builds `target`. The caller holds its lock, so what other builders have left behind is nobody's."""
  prefix = f'.{target.name}.building-'
  for left_behind in target.parent.glob(f'{prefix}*'):
    shutil.rmtree(left_behind, ignore_errors=True)
  folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
  try:
    build(folder)
    folder.chmod(0o755)  # mkdtemp's 0o700 would lock out the other users of a shared cache
    _flush_to_disk(folder)
    folder.rename(target)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  """Holds an exclusive lock on the file `path`. The kernel frees it when the process ends, however it ends."""
  with path.open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      _log.info('waiting for another process, which is building %s', path)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _flush_to_disk(folder: pathlib.Path) -> None:
  """Makes the contents durable before the name: a power cut must not leave a complete-looking folder of empty files."""
  for path in [*folder.rglob('*'), folder]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
