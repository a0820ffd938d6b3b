"""Local files as read-only memory, and what is made of them once and kept in the cache: plain copies and indices.

A file is known by its path, size and time of change. What was made of a file that has changed since is made again.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import logging
import lzma
import mmap
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from t5x_lite.core import errors, paths
from t5x_lite.data import build_lock

COMPRESSED = ('.gz', '.bz2', '.xz', '.zst')

_MAX_OPEN = 512  # memory maps; each holds a file descriptor, of which a process often has 1024
_BLOCK = 2**20
_CONTENT, _PROBLEM = 'content', 'problem'
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what decompressors raise for a file that is not whole
_log = logging.getLogger(__name__)


class FileId(NamedTuple):
  """A file as it was when it was opened.

  Attributes:
    path: absolute.
    size: in bytes.
    changed: time of the last change, in nanoseconds.
  """

  path: str
  size: int
  changed: int

  @property
  def key(self) -> str:
    """A name for what is made of this file."""
    return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:24]


class BrokenOff(errors.UsageError):
  """A file breaks off so that nothing in it can be read. Where bad records are skipped, so is the file."""


class PlainCopy(NamedTuple):
  """What is in a compressed file.

  Attributes:
    file: the copy, in the cache.
    problem: why it ends before its end, in words; None if it is whole.
  """

  file: FileId
  problem: str | None


def identify(path: str | os.PathLike[str]) -> FileId:
  """The file at `path`. Raises `UsageError` if there is none."""
  try:
    status = os.stat(path)
  except OSError as error:
    raise errors.UsageError(f'cannot read {os.fspath(path)}: {error.strerror}') from error
  return FileId(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(_MAX_OPEN)
def memory(file: FileId) -> mmap.mmap | bytes:
  """The bytes of `file`, mapped, not read. Raises `UsageError` if it is not what it was."""
  try:
    with open(file.path, 'rb') as opened:
      status = os.fstat(opened.fileno())
      if (status.st_size, status.st_mtime_ns) != file[1:]:
        raise errors.UsageError(f'{file.path} has changed while it was being read')
      return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if file.size else b''
  except OSError as error:
    raise errors.UsageError(f'cannot read {file.path}: {error.strerror}') from error


def in_cache(file: FileId, kind: str, build: Callable[[pathlib.Path], None]) -> pathlib.Path:
  """The folder in the cache that `build` has filled with what it makes of `file`; `kind` names what that is."""
  return build_lock.build_once(paths.cache_dir() / 'files' / f'{kind}-{file.key}', build)


def ending(path: str | os.PathLike[str]) -> str:
  """The ending that names the compression of `path`, in lower case; empty if none does."""
  last = pathlib.PurePath(path).suffix.lower()
  return last if last in COMPRESSED else ''


def decompressed(file: FileId) -> PlainCopy:
  """The contents of `file`, decompressed into the cache the first time; a file that is not compressed is itself.

  Where a file breaks off, so does the copy. Raises `UsageError` if the file is not compressed as its ending says.
  """
  if not ending(file.path):
    return PlainCopy(file, None)

  def build(folder: pathlib.Path) -> None:
    _log.info('decompressing %s', file.path)
    with (folder / _CONTENT).open('wb') as copy:
      problem = _decompress(file.path, copy)
    if problem is not None:
      (folder / _PROBLEM).write_text(problem)

  folder = in_cache(file, 'plain', build)
  problem = folder / _PROBLEM
  return PlainCopy(identify(folder / _CONTENT), problem.read_text() if problem.exists() else None)


def beginning(path: str, size: int) -> bytes:
  """The first `size` bytes of a file, decompressed; fewer if it is shorter or breaks off."""
  try:
    with _plain(path) as stream:
      return stream.read(size)
  except _BROKEN as error:
    raise errors.UsageError(f'cannot read {path}: {error}') from error


def whole(path: str) -> bytes:
  """The contents of a file, decompressed. Raises `UsageError` if it cannot be read or breaks off."""
  try:
    with _plain(path) as stream:
      return stream.read()
  except _BROKEN as error:
    raise errors.UsageError(f'cannot read {path}: {error}') from error


def _decompress(path: str, copy: IO[bytes]) -> str | None:
  """Writes what is in the file at `path` to `copy`. Returns what is wrong with its end, if anything is."""
  with _plain(path) as stream:
    while True:
      try:
        block = stream.read1(_BLOCK)  # what there is of a block, of one that breaks off too
      except _BROKEN as error:
        if not copy.tell() and not isinstance(error, EOFError) and 'runcated' not in str(error):
          raise errors.UsageError(f'cannot read {path}: {error}') from error
        return f'breaks off or is damaged after {copy.tell()} decompressed bytes: {error}'
      if not block:
        return None
      copy.write(block)


def _plain(path: str) -> Any:
  """A binary stream of what is in the file at `path`."""
  kind = ending(path)
  try:
    if kind == '.zst':
      import pyarrow

      return pyarrow.input_stream(path, compression='zstd')
    openers: dict[str, Callable[..., Any]] = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open}
    return openers.get(kind, open)(path, 'rb')
  except OSError as error:
    raise errors.UsageError(f'cannot read {path}: {error.strerror or error}') from error
