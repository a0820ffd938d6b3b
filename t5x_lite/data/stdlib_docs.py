"""The English that every Python carries: pydoc's help topics and the docstrings of the standard library.

It is found by parsing source files. No module is imported (some open windows or browsers, and under `python -OO`
imported docstrings are gone). The order of everything here depends on the sources alone.

Repeated paragraphs are kept once in the whole corpus, as C4 keeps repeated three-sentence spans once (Raffel et al.
2020, section 2.2): help topics quote each other at length, and what is held out must not stand in the training
documents.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
import pathlib
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator

from t5x_lite.core import errors

TOPICS = 'pydoc_data/topics.py'
SKIPPED_FOLDERS = frozenset(
  {
    '__pycache__',
    'site-packages',
    'dist-packages',
    'test',
    'tests',
    'idle_test',
    'turtledemo',
    '_bundled',
    'lib-dynload',
  }
)
MIN_DOCUMENT_CHARS = 200  # shorter documents are the one-liners of codec tables
MIN_REPEAT_CHARS = 60  # shorter paragraphs ('Examples:') may repeat
MIN_SUMMARY_WORDS = 3
MIN_BODY_WORDS = 8
VALIDATION_ONE_IN = 10

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_ROLE = re.compile(r':[a-z]+:`~?([^`]+)`')  # reStructuredText's :class:`int`
_SIGNATURE = re.compile(r'[\w.]+\s*\(.*')  # `execlp(file, *args)` is no summary


@dataclasses.dataclass(frozen=True)
class StdlibDocs:
  """What was found.

  Attributes:
    text: documents, `{'module', 'text'}`: one for each module (all its docstrings) and one for each help topic.
    docstrings: `{'module', 'qualname', 'summary', 'body'}` of docstrings in PEP 257's form: a summary line, a blank
      line, a body. `qualname` is '' for the docstring of a module.
  """

  text: list[dict[str, str]]
  docstrings: list[dict[str, str]]


def stdlib_folder() -> pathlib.Path:
  """Where this Python keeps its standard library, in a virtual environment too."""
  return pathlib.Path(sysconfig.get_path('stdlib'))


def source_files(folder: pathlib.Path) -> list[tuple[str, int]]:
  """`(path below folder with forward slashes, size in bytes)` of the library's source files, sorted; tests left out."""
  found = []
  for root, folders, names in os.walk(folder):
    folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith('config-')]
    for name in names:
      path = pathlib.Path(root, name)
      if path.suffix == '.py' and path.is_file():
        found.append((path.relative_to(folder).as_posix(), path.stat().st_size))
  return sorted(found)


def extract(folder: pathlib.Path | None = None) -> StdlibDocs:
  """Parses every source file below `folder` (default: the standard library) into documents and docstrings.

  Raises:
    UsageError: there is no source to parse, as in a Python that ships compiled modules only.
  """
  folder = folder or stdlib_folder()
  text: list[dict[str, str]] = []
  docstrings: list[dict[str, str]] = []
  seen_paragraphs: set[str] = set()
  seen_bodies: set[str] = set()
  for path, _ in source_files(folder):
    tree = _parse(folder / path)
    if tree is None:
      continue
    if path == TOPICS:
      for topic, document in sorted(_topics(tree).items()):
        _add_document(text, f'topics.{topic}', [document], seen_paragraphs)
      continue
    module = path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
    found = list(_docstrings(tree))
    _add_document(text, module, (document for _, document in found), seen_paragraphs)
    for qualname, document in found:
      parts = summary_and_body(document)
      if parts and not _seen(parts[1], seen_bodies):
        docstrings.append({'module': module, 'qualname': qualname, 'summary': parts[0], 'body': parts[1]})
  if not text:
    raise errors.UsageError(
      f'no documentation found in {folder}: the embedded corpus is read from the source files of the standard library; '
      'use a Python that has them, or another data set'
    )
  return StdlibDocs(text, docstrings)


def split_of(module: str) -> str:
  """`'validation'` for about one module in ten, else `'train'`: by a hash of its name, so it never changes."""
  digest = hashlib.sha256(f'validation/{module}'.encode()).digest()
  return 'validation' if int.from_bytes(digest[:8], 'big') % VALIDATION_ONE_IN == 0 else 'train'


def clean(document: str) -> str:
  """Drops rulers, role markup and unprintable characters, and all but one of successive blank lines."""
  lines: list[str] = []
  for line in document.splitlines():
    if not line.isprintable():  # control characters, and lone surrogates, which UTF-8 cannot hold
      line = ''.join(c if c.isprintable() else ' ' for c in line)
    line = line.rstrip()
    ruler = len(line.strip()) >= 3 and not any(map(str.isalnum, line))
    if not ruler and (line or (lines and lines[-1])):
      lines.append(line)
  return _ROLE.sub(r'\1', '\n'.join(lines)).strip()


def summary_and_body(document: str) -> tuple[str, str] | None:
  """The summary line of a cleaned docstring and what follows its blank line; None if it is not of that form."""
  summary, _, rest = document.partition('\n')
  body = rest.strip('\n')
  if not rest.startswith('\n') or summary.endswith(':') or _SIGNATURE.fullmatch(summary):
    return None
  if len(summary.split()) < MIN_SUMMARY_WORDS or len(body.split()) < MIN_BODY_WORDS:
    return None
  return summary, body


def _parse(path: pathlib.Path) -> ast.Module | None:
  """The syntax tree of a file, or None for the few that are broken on purpose, or that cannot be read."""
  try:
    with tokenize.open(path) as file, warnings.catch_warnings():
      warnings.simplefilter('ignore')  # invalid escapes in the sources of others
      return ast.parse(file.read())
  except (OSError, SyntaxError, ValueError, RecursionError):
    return None


def _topics(tree: ast.Module) -> dict[str, str]:
  """The dict literal of `pydoc_data/topics.py`."""
  for node in tree.body:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
      return ast.literal_eval(node.value)
  return {}


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
  """`(qualified name, cleaned docstring)` of the module ('') and of its classes and functions, in source order."""
  module = ast.get_docstring(tree)
  if module:
    yield '', clean(module)
  for qualname, node in _definitions(tree, ''):
    document = ast.get_docstring(node)
    if document:
      yield qualname, clean(document)


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
  """Classes and functions below `node`, also those inside `if`, `try` and `with`; expressions are not searched."""
  for field in ('body', 'handlers', 'orelse', 'finalbody'):
    for child in getattr(node, field, ()):
      if isinstance(child, Definition):
        qualname = f'{prefix}{child.name}'
        yield qualname, child
        yield from _definitions(child, f'{qualname}.')
      elif isinstance(child, (ast.stmt, ast.ExceptHandler)):
        yield from _definitions(child, prefix)


def _add_document(text: list[dict[str, str]], module: str, parts: Iterable[str], seen: set[str]) -> None:
  """Appends the document made of `parts` to `text`, less the paragraphs in `seen`, which grows."""
  paragraphs = clean('\n\n'.join(parts)).split('\n\n')
  document = '\n\n'.join(p for p in paragraphs if not _seen(p, seen))
  if len(document) >= MIN_DOCUMENT_CHARS:
    text.append({'module': module, 'text': document})


def _seen(paragraph: str, seen: set[str]) -> bool:
  """Whether `paragraph` repeats one of `seen`, white space aside; adds it there."""
  key = ' '.join(paragraph.split())
  if len(key) < MIN_REPEAT_CHARS:
    return False
  repeated = key in seen
  seen.add(key)
  return repeated
