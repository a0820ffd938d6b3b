"""An HTML page that needs nothing else: no network, no script. What goes into it must be escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin-bottom: .3rem }
div.wide { overflow-x: auto }
table { border-collapse: collapse } th, td { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
th { font-weight: 600; color: #555 } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.text { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .5rem .7rem; border-radius: 4px;
  max-height: 16rem; overflow: auto; margin: .2rem 0 .6rem }
.label, .note { color: #555; font-size: .87rem } code { overflow-wrap: anywhere }
"""


def page(title: str, body: str, style: str = '') -> str:
  """A whole page.

  Args:
    title: text.
    body: HTML.
    style: CSS besides that of all pages.
  """
  return (
    f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<style>{_STYLE}{style}</style></head><body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n'
  )


def cells(tag: str, texts: Iterable[str]) -> str:
  """A line of a table: a name, then numbers."""
  first, *numbers = map(html.escape, texts)
  others = ''.join(f'<{tag} class="number">{number}</{tag}>' for number in numbers)
  return f'<tr><{tag}>{first}</{tag}>{others}</tr>\n'


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
  """A table of names and numbers, wider than the page if need be."""
  return f'<div class="wide"><table>\n{cells("th", head)}{"".join(cells("td", row) for row in rows)}</table></div>'


def text(label: str, content: str) -> str:
  """A text under its name."""
  escaped = html.escape(content) or '(empty)'
  return f'<div class="label">{html.escape(label)}</div><div class="text">{escaped}</div>\n'
