"""Runs one command: from its arguments to its exit code."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from t5x_lite.cli import arguments, environment, ginfiles, record
from t5x_lite.cli.arguments import FlagValues
from t5x_lite.cli.calls import Call, build
from t5x_lite.cli.registry import Registry
from t5x_lite.cli.resolve import Configuration
from t5x_lite.cli.statements import Binding, Import, Macro, parts
from t5x_lite.core import errors

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it.

# Errors of the system that are the user's to mend: a folder that cannot be written, a full disk.
_SYSTEM_ERRORS = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Session:
  """A command that is ready to run: all gin files and flags are read and checked, JAX is set up, nothing is built yet.

  Attributes:
    flags: the values of the flags.
    record: the configuration, to be kept with a run.
  """

  flags: FlagValues
  record: record.ConfigRecord
  _configuration: Configuration
  _call: Call
  _used: set[Binding]

  def call(self, **given: Any) -> Any:
    """Builds all that the command's function takes and calls it, with `given` beside what gin binds."""
    return build(self._call, self._configuration.names.load, **given)

  def refuse_idle_flags(self) -> None:
    """Raises UsageError if a `--gin.NAME=VALUE` has no effect on this run."""
    self._configuration.check_effect(self._used)


def run(
  argv: Sequence[str] | None,
  target: str,
  *,
  usage: str | None,
  work: Callable[[Session], int | None],
  given: Sequence[str] = (),
  define: Callable[[FlagValues], None] | None = None,
  files: Callable[[FlagValues], Sequence[str]] = lambda flags: (),
  bindings: Callable[[FlagValues], Sequence[Binding]] = lambda flags: (),
  devices: bool = True,
  joins: bool = True,
) -> int:
  """Runs a command and returns its exit code: 0, 2 for bad input, 128 + n for signal n, or what `work` returns.

  Bad input is one line on stderr. Anything else that goes wrong is a bug and keeps its traceback.

  Args:
    argv: as `sys.argv`, which None stands for.
    target: the name, as gin files have it, of the function that the command calls.
    usage: the text that `--help` begins with.
    work: does it.
    given: the parameters of the function that `work` passes itself.
    define: adds flags of the command's own.
    files: gin files to read before those of `--gin_file`.
    bindings: what comes between the two.
    devices: whether the command computes; one that only starts others leaves the devices to them.
    joins: whether it may be one of several processes; one that may not works alone on any host of a cluster.
  """

  def session() -> int | None:
    parsed = arguments.parse(sys.argv if argv is None else argv, define)
    if parsed.flags.help:
      print(arguments.usage(usage, parsed.flags))
      return 0
    first = files(parsed.flags)
    return work(_session(parsed, target, given, first, bindings(parsed.flags), devices, joins))

  return _exit_code(session)


def run_words(
  argv: Sequence[str] | None,
  *,
  usage: str | None,
  define: Callable[[FlagValues], None],
  work: Callable[[FlagValues, tuple[str, ...]], int | None],
) -> int:
  """Runs a command that reads no gin files and needs no JAX; returns its exit code, as `run` does.

  Args:
    argv: as `sys.argv`, which None stands for.
    usage: the text that `--help` begins with.
    define: adds its flags.
    work: does it, given the flags and the words between them.
  """

  def words() -> int | None:
    values, found = arguments.parse_words(sys.argv if argv is None else argv, define)
    if values.help:
      print(arguments.usage(usage, values))
      return 0
    return work(values, found)

  return _exit_code(words)


def _exit_code(work: Callable[[], int | None]) -> int:
  """Calls it, tells what the user is to mend in one line, and returns the exit code."""
  try:
    return work() or 0
  except errors.UsageError as error:
    return _fail(str(error))
  except BrokenPipeError:  # `... | head` has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
  except OSError as error:
    if not isinstance(error, _SYSTEM_ERRORS) and error.errno not in _FULL:
      raise
    return _fail(str(error) if error.filename is None else f'{error.filename}: {error.strerror}')
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return INTERRUPTED
  except environment.Terminated:
    print('stopped by SIGTERM', file=sys.stderr)
    return environment.TERMINATED


def _fail(message: str) -> int:
  print(f'error: {" ".join(message.splitlines())}', file=sys.stderr)
  return BAD_INPUT


def _session(
  parsed: arguments.Arguments,
  target: str,
  given: Sequence[str],
  first_files: Sequence[str],
  first_bindings: Sequence[Binding],
  devices: bool,
  joins: bool,
) -> Session:
  """Reads and checks everything, cheap checks first: most mistakes are told before JAX is imported."""
  environment.prepare(parsed.flags)
  names = Registry()
  configuration = Configuration(_statements(parsed, first_files, first_bindings), names)
  full_name = names.resolve(target, target)
  configuration.check_names(full_name)
  configuration.check_parameters()
  call, used = configuration.resolve(full_name, given)
  if devices:
    environment.start(parsed.flags, joins=joins)
  kept = record.ConfigRecord(
    text=record.gin_text(configuration),
    values=record.resolved_values(call, names),
    allow_change=getattr(parsed.flags, record.ALLOW_CHANGE, False),
  )
  return Session(parsed.flags, kept, configuration, call, used)


def _statements(
  parsed: arguments.Arguments, first_files: Sequence[str], first_bindings: Sequence[Binding]
) -> list[Binding | Import]:
  """What the gin files and flags say, in order, and `MODEL_DIR` if they leave it open."""
  files = (*first_files, *parsed.gin_files)
  if not files:
    raise errors.UsageError('no gin file: choose one with --gin_file, such as --gin_file=t5_small.gin')
  reader = ginfiles.GinFiles(parsed.search_paths)
  statements = [statement for name in first_files for statement in reader.read(name)]
  statements += first_bindings
  statements += [statement for name in parsed.gin_files for statement in reader.read(name)]
  statements += [ginfiles.flag_binding(name, value) for name, value in parsed.bindings]
  bindings = [statement for statement in statements if isinstance(statement, Binding)]
  used = any(part == Macro('MODEL_DIR') for binding in bindings for part in parts(binding.value))
  if used and not any(binding.name == 'MODEL_DIR' for binding in bindings):
    folder = '-'.join(pathlib.PurePath(name).stem for name in files)
    statements.insert(0, Binding('', '', 'MODEL_DIR', f'runs/{folder}', 'the default'))
  return statements
