"""Sections as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable

from t5x_lite.core import pages
from t5x_lite.sweeps.sections import Row, Section
from t5x_lite.sweeps.verdicts import BETTER, WORSE

_STYLE = """
tr.baseline td { background: #f3f3f3 } td b { font-weight: 700 } td, th { padding-right: 1.2rem }
td.verdict-better { color: #146c2e; font-weight: 600 } td.verdict-worse { color: #a3192d; font-weight: 600 }
@media print { div.wide { overflow: visible } body { font-size: 11px } }
"""
_WORDS = ('verdict', 'notes')


def page(title: str, sections: Iterable[Section], remarks: Iterable[str]) -> str:
  """The page; every text in it is escaped."""
  parts = [f'<h2>{html.escape(section.title)}</h2>\n{_table(section)}' for section in sections]
  notes = ''.join(f'<li>{html.escape(remark)}</li>\n' for remark in remarks)
  return pages.page(title, '\n'.join([*parts, f'<ul class="note">\n{notes}</ul>']), _STYLE)


def _table(section: Section) -> str:
  head = ''.join(
    f'<th{_kind(section, column, "")}>{html.escape(name)}</th>' for column, name in enumerate(section.head)
  )
  rows = ''.join(_row(section, row) for row in section.rows)
  return f'<div class="wide"><table>\n<tr>{head}</tr>\n{rows}</table></div>'


def _row(section: Section, row: Row) -> str:
  cells = []
  for column, text in enumerate(row.cells):
    shown = html.escape(text)
    if column == 0 and row.baseline:
      shown = f'★ {shown}'
    if column == section.bold and row.best:
      shown = f'<b>{shown}</b>'
    cells.append(f'<td{_kind(section, column, text)}>{shown}</td>')
  return f'<tr{" class=baseline" if row.baseline else ""}>{"".join(cells)}</tr>\n'


def _kind(section: Section, column: int, text: str) -> str:
  if section.head[column] in _WORDS:
    verdict = text.partition(';')[0]  # what follows is said of runs that diverged
    return f' class="verdict-{verdict}"' if verdict in (BETTER, WORSE) else ''
  return ' class="number"' if column else ''
