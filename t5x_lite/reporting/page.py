"""The page: one HTML file with its style, its script and its data inside, which asks nothing of any network."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from t5x_lite.reporting import encoding

_FOLDER = pathlib.Path(__file__).parent
_STYLE = 'page.css'
# One script: each file defines functions, the last one calls them.
SCRIPTS = (
  *('data.js', 'elements.js', 'scales.js', 'chart.js', 'curves.js', 'tables.js', 'sections.js', 'attention.js'),
  *('lineage.js', 'page.js'),
)


@functools.cache
def _parts() -> tuple[str, str]:
  """Style and script."""
  script = '\n'.join((_FOLDER / name).read_text(encoding='utf-8') for name in SCRIPTS)
  return (_FOLDER / _STYLE).read_text(encoding='utf-8'), f"'use strict';\n(() => {{\n{script}}})();\n"


def _digest(text: str) -> str:
  return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy() -> str:
  """The Content Security Policy: this style, this script, and nothing else from anywhere."""
  style, script = map(_digest, _parts())
  return (
    f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; base-uri 'none'"
  )


def render(value: Mapping[str, Any], *, live: bool = False) -> str:
  """The page as text.

  Args:
    value: what `payload.FolderReader.read` returns. All of it is shown as text, never as HTML.
    live: whether the page is to ask its server for news.
  """
  style, script = _parts()
  title = html.escape(value['title'].encode('utf-8', 'replace').decode())
  return (
    f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy())}">\n'
    '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">\n'
    f'<style>{style}</style></head>\n<body{" data-live" if live else ""}>\n'
    f'<header><h1>{title}</h1></header>\n<noscript>This page draws its curves with a script.</noscript>\n'
    f'<script type="application/json" id="data">{encoding.script_json(value)}</script>\n'
    f'<script>{script}</script>\n</body></html>\n'
  )


def write(path: str | os.PathLike[str], text: str) -> None:
  """Writes a file, whole or not at all."""
  target = pathlib.Path(path)
  handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f'.{target.name}.', suffix='.tmp')
  try:
    with open(handle, 'w', encoding='utf-8') as file:
      file.write(text)
    pathlib.Path(temporary).chmod(0o644)
    os.replace(temporary, target)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
