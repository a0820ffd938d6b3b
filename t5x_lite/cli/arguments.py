"""The flags of a command: absl's, plus `--gin.NAME=VALUE`, with errors of one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from absl import flags

from t5x_lite.core import errors

LOG_LEVELS = ('error', 'warning', 'info', 'debug')
GIN_PREFIX = '--gin.'

FlagValues = flags.FlagValues


@dataclasses.dataclass(frozen=True)
class Arguments:
  """What a command line says.

  Attributes:
    gin_files: the gin files, first to last; a later one wins.
    bindings: `(name, value)` of each `--gin.NAME=VALUE`, both as written. They win over every file.
    search_paths: the user's folders of gin files.
    flags: the values of all flags, as attributes.
  """

  gin_files: tuple[str, ...]
  bindings: tuple[tuple[str, str], ...]
  search_paths: tuple[str, ...]
  flags: FlagValues


def _define_common(values: FlagValues) -> None:
  flags.DEFINE_bool('help', False, 'Print this and stop.', flag_values=values)
  flags.DEFINE_multi_string(
    'gin_file', [], 'A gin file; a later one wins. Packaged files need no path.', flag_values=values
  )
  flags.DEFINE_multi_string(
    'gin_bindings', [], "A binding 'NAME = VALUE'; the same as --gin.NAME=VALUE.", flag_values=values
  )
  flags.DEFINE_list(
    'gin_search_paths', [], 'Folders to look for gin files in, before the packaged ones.', flag_values=values
  )
  flags.DEFINE_enum(
    'log_level', 'error', LOG_LEVELS, 'Which messages of the libraries underneath to show.', flag_values=values
  )
  flags.DEFINE_integer(
    'num_cpu_devices', None, 'Split the CPU into so many devices, to try a mesh.', lower_bound=1, flag_values=values
  )
  _define_processes(values)


def _define_processes(values: FlagValues) -> None:
  flags.DEFINE_enum(
    'distributed',
    'auto',
    ('auto', 'off'),
    'Whether to be one of several processes where Slurm, Open MPI, Kubernetes, a TPU slice or the next three say so.',
    flag_values=values,
  )
  flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0, for several processes.', flag_values=values)
  flags.DEFINE_integer('num_processes', None, 'How many processes take part.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('process_id', None, 'Which of them this one is, from 0.', lower_bound=0, flag_values=values)
  flags.DEFINE_integer(
    'coordinator_timeout', 300, 'Seconds to wait at the start for the other processes.', 1, flag_values=values
  )
  flags.DEFINE_integer(
    'heartbeat_timeout', 100, 'Seconds of silence after which a process counts as lost.', 5, flag_values=values
  )


def parse(argv: Sequence[str], define: Callable[[FlagValues], None] | None = None) -> Arguments:
  """The arguments in `argv`, whose first item is the program's name.

  Args:
    argv: as `sys.argv`.
    define: adds the flags of one command to the common ones.

  Raises:
    UsageError: an unknown flag (with the nearest match), a value of the wrong type, a word that is no flag.
  """
  values = FlagValues()
  _define_common(values)
  if define is not None:
    define(values)
  bindings, rest = [], list(argv[:1])
  for argument in argv[1:]:
    if argument.startswith(GIN_PREFIX):
      bindings.append(_binding(argument.removeprefix(GIN_PREFIX), argument))
    else:
      rest.append(argument)
  try:
    words = values(rest)[1:]
  except flags.UnrecognizedFlagError as error:
    raise _unknown_flag(error.flagname, values) from error
  except flags.Error as error:
    raise errors.UsageError(' '.join(str(error).split())) from error
  if words:
    raise errors.UsageError(f'unexpected argument {words[0]!r}: every option starts with --')
  bindings += [_binding(text, f'--gin_bindings={text}') for text in values.gin_bindings]
  return Arguments(
    gin_files=tuple(values.gin_file),
    bindings=tuple(bindings),
    search_paths=tuple(path for path in values.gin_search_paths if path),
    flags=values,
  )


def parse_words(argv: Sequence[str], define: Callable[[FlagValues], None]) -> tuple[FlagValues, tuple[str, ...]]:
  """The flags, and the words between them, of a command that reads no gin files and has no flags but its own.

  Args:
    argv: as `sys.argv`.
    define: adds its flags.

  Raises:
    UsageError: an unknown flag (with the nearest match), a value of the wrong type.
  """
  values = FlagValues()
  flags.DEFINE_bool('help', False, 'Print this and stop.', flag_values=values)
  define(values)
  values.set_gnu_getopt(True)  # flags may follow words
  try:
    words = values(list(argv))[1:]
  except flags.UnrecognizedFlagError as error:
    raise errors.unknown('flag', f'--{error.flagname}', (f'--{known}' for known in values)) from error
  except flags.Error as error:
    raise errors.UsageError(' '.join(str(error).split())) from error
  return values, tuple(words)


def _binding(text: str, argument: str) -> tuple[str, str]:
  """`NAME=VALUE` as a pair."""
  name, equals, value = (part.strip() for part in text.partition('='))
  if not (name and equals and value):
    raise errors.UsageError(f'{argument}: expected NAME=VALUE, such as {GIN_PREFIX}TRAIN_STEPS=1000')
  return name, value


def _unknown_flag(name: str, values: FlagValues) -> errors.UsageError:
  if name.isupper() or '.' in name:  # A gin name without its prefix.
    return errors.UsageError(f"unknown flag '--{name}': did you mean '{GIN_PREFIX}{name}'?")
  return errors.unknown('flag', f'--{name}', (f'--{known}' for known in values))


def usage(description: str | None, values: FlagValues) -> str:
  """The text of `--help`: the description of the command and one line for each flag."""
  lines = [(description or '').strip(), '', 'Flags:']
  if 'gin_file' in values:
    lines += [f'  {GIN_PREFIX}NAME=VALUE: Set a macro or a parameter of the gin files. It wins over the files.']
  for name in sorted(values):
    flag = values[name]
    default = f' (default: {flag.default})' if flag.default not in (None, False, []) else ''
    lines.append(f'  --{name}: {" ".join(flag.help.split())}{default}')
  return '\n'.join(lines)
