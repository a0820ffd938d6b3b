"""Finds and reads gin files, into the statements of `statements`. Gin's own parser reads the syntax."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import tokenize
from collections.abc import Iterator, Sequence

import gin.config_parser

import t5x_lite
from t5x_lite.cli.statements import Binding, Import, Macro, Reference, parts
from t5x_lite.core import errors

Statement = Binding | Import

FOLDER = 'CONFIG_DIR'  # In a file that does not define it, this macro stands for the folder of the file.

_NAME = re.compile(r'[A-Za-z_]\w*([/.][A-Za-z_]\w*)*')
_GIN_SYNTAX = tuple('[({\'"@%')  # A flag's value that starts so is gin, never a bare string.


class _Delegate(gin.config_parser.ParserDelegate):
  """Makes our own values of gin's references and macros; nothing is looked up while a file is read."""

  def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
    *scope, selector = scoped_configurable_name.split('/')
    return Reference(selector, tuple(scope), evaluate)

  def macro(self, macro_name: str) -> Macro:
    return Macro(macro_name)


def packaged_folder() -> pathlib.Path:
  """The gin files that come with the library: inside the package in a wheel, beside it in a checkout."""
  package = pathlib.Path(t5x_lite.__file__).resolve().parent
  inside = package / 'gin_configs'
  return inside if inside.is_dir() else package.parent / 'gin_configs'


class GinFiles:
  """Reads gin files: a name is looked for in the current folder, in the user's folders, then among the packaged files.

  Args:
    search_paths: the user's folders, in order.
  """

  def __init__(self, search_paths: Sequence[str] = ()):
    for path in search_paths:
      if not pathlib.Path(path).expanduser().is_dir():
        raise errors.UsageError(f'--gin_search_paths: no folder {path!r}')
    self._folders = [pathlib.Path(), *(pathlib.Path(path).expanduser() for path in search_paths), packaged_folder()]

  def read(self, name: str) -> Iterator[Statement]:
    """The statements of a file and of those it includes, in order.

    Raises:
      UsageError: no such file (with the nearest match and the folders searched), a syntax error (file and line), a file
        that includes itself.
    """
    yield from self._read(name, (), f'--gin_file={name}')

  def _read(self, name: str, outer: tuple[pathlib.Path, ...], origin: str) -> Iterator[Statement]:
    path = self._find(name, origin)
    if path.resolve() in outer:
      raise errors.UsageError(f'{origin}: {name!r} includes itself')
    try:
      text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise errors.UsageError(f'{origin}: cannot read {str(path)!r}: {error}') from error
    statements = list(_parse(text, self._display(path)))
    bindings = [statement for statement in statements if isinstance(statement, Binding)]
    if any(part == Macro(FOLDER) for binding in bindings for part in parts(binding.value)):
      yield Binding('', '', FOLDER, str(path.parent.absolute()), self._display(path))
    for statement in statements:
      if isinstance(statement, _Include):
        yield from self._read(statement.name, (*outer, path.resolve()), statement.origin)
      else:
        yield statement

  def _find(self, name: str, origin: str) -> pathlib.Path:
    given = pathlib.Path(name).expanduser()
    for folder in self._folders:
      if (folder / given).is_file():
        return folder / given
    if given.is_absolute():
      raise errors.UsageError(f'{origin}: no such file')
    known = self._known()
    same_name = [other for other in sorted(known) if pathlib.PurePath(other).name == given.name]
    match = same_name[0] if same_name else errors.nearest(name, known)
    hint = f': did you mean {match!r}?' if match else ''
    searched = ', '.join(str(folder.absolute()) for folder in self._folders)
    raise errors.UsageError(f'{origin}: unknown gin file {name!r}{hint} (looked in {searched})')

  def _known(self) -> set[str]:
    """Names that would be found: of the user's folders those at the top, of the packaged folder all."""
    *users, packaged = self._folders
    names = {path.name for folder in users for path in folder.glob('*.gin')}
    return names | {path.relative_to(packaged).as_posix() for path in packaged.rglob('*.gin')}

  def _display(self, path: pathlib.Path) -> str:
    packaged = self._folders[-1]
    return path.relative_to(packaged).as_posix() if path.is_relative_to(packaged) else str(path)


def parse(text: str, source: str) -> Iterator[Statement]:
  """The statements of a text that includes nothing, such as a config.gin.

  Args:
    text: in gin's syntax.
    source: what errors call it.

  Raises:
    UsageError: a syntax error, an include.
  """
  for statement in _parse(text, source):
    if isinstance(statement, _Include):
      raise errors.UsageError(f'{statement.origin}: expected no include in {source}')
    yield statement


def flag_binding(name: str, text: str) -> Binding:
  """The binding of `--gin.NAME=TEXT`; a text that is no gin value stands for itself, so that strings need no quotes.

  So does a number, should a string be wanted in its place: see `Binding.spelling`.

  Raises:
    UsageError: `name` is no gin name, or `text` starts as a gin value and is none.
  """
  origin = f'--gin.{name}'
  if not _NAME.fullmatch(name):
    raise errors.UsageError(f'{origin}: {name!r} is not a gin name')
  try:
    statements = list(_parse(f'{name} = {text}\n', origin))
  except errors.UsageError as error:
    if text.startswith(_GIN_SYNTAX):
      raise errors.UsageError(f'{origin}: cannot read the value {text!r}') from error
    statements = []
  if len(statements) == 1 and isinstance(statements[0], Binding):
    number = isinstance(statements[0].value, int | float) and not isinstance(statements[0].value, bool)
    return dataclasses.replace(statements[0], origin=origin, spelling=text if number else None)
  scope, selector, parameter = gin.config_parser.parse_binding_key(name)
  return _binding(scope, selector, parameter, text, origin)


class _Include:
  def __init__(self, name: str, origin: str):
    self.name, self.origin = name, origin


def _parse(text: str, source: str) -> Iterator[Statement | _Include]:
  """The statements in `text`; syntax errors name `source` and the line."""
  try:
    for statement in gin.config_parser.ConfigParser(text, _Delegate()):
      origin = f'{source}:{statement.location.line_num}'
      if isinstance(statement, gin.config_parser.BindingStatement):
        yield _binding(statement.scope, statement.selector, statement.arg_name, statement.value, origin)
      elif isinstance(statement, gin.config_parser.IncludeStatement):
        yield _Include(statement.filename, origin)
      elif isinstance(statement, gin.config_parser.ImportStatement) and not statement.module.startswith('__gin__'):
        yield Import(statement.module, statement.alias, origin)
  except SyntaxError as error:
    # Gin raises with its own location, whose second field is the line; Python's tokenizer with a plain tuple.
    line = error.lineno if error.lineno is not None else '?'
    raise errors.UsageError(f'{source}:{line}: syntax error: {_plain(error.msg)}') from error
  except tokenize.TokenError as error:
    message, (line, _) = error.args
    raise errors.UsageError(f'{source}:{line}: syntax error: {message}') from error


def _plain(message: str) -> str:
  """Gin's message in one line."""
  *_, last = message.strip().splitlines()
  token = re.fullmatch(r"\s*Failed to parse token '(.*)'", last)
  return f'{token[1]!r} is no value (a string needs quotes)' if token else ' '.join(message.split())


def _binding(scope: str, selector: str, parameter: str, value: object, origin: str) -> Binding:
  """Gin's parser calls the name of a macro a selector; here it is the parameter of an empty selector."""
  if not parameter:
    selector, parameter = '', selector
  return Binding(scope, selector, parameter, value, origin)
