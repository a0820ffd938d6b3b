"""Sections as text for a terminal, and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from t5x_lite.sweeps.sections import Row, Section

_MARKDOWN = re.compile(r'([\\|*_`<>\[\]#])')


def terminal(title: str, sections: Iterable[Section], remarks: Iterable[str]) -> str:
  """Columns side by side; plain ASCII but for names."""
  parts = [title]
  parts += [f'{section.title}\n{_aligned(section)}' for section in sections]
  return '\n\n'.join([*parts, '\n'.join(remarks)]) + '\n'


def markdown(title: str, sections: Iterable[Section], remarks: Iterable[str]) -> str:
  """GitHub's tables, with best means in bold."""
  parts = [f'# {_escaped(title)}']
  for section in sections:
    lines = [section.head, tuple('---' if column == 0 else '---:' for column in range(len(section.head)))]
    lines += [_marked(section, row) for row in section.rows]
    table = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)
    parts.append(f'## {_escaped(section.title)}\n\n{table}')
  parts.append('\n'.join(f'- {_escaped(remark)}' for remark in remarks))
  return '\n\n'.join(parts) + '\n'


def _aligned(section: Section) -> str:
  starred = [(f'{"*" if row.baseline else " "} {row.cells[0]}', *row.cells[1:]) for row in section.rows]
  lines = [(f'  {section.head[0]}', *section.head[1:]), *starred]
  widths = [max(len(line[column]) for line in lines) for column in range(len(section.head))]
  texts = [_line(section, line, widths) for line in lines]
  return '\n'.join([texts[0], '-' * max(map(len, texts)), *texts[1:]])


def _line(section: Section, line: Sequence[str], widths: Sequence[int]) -> str:
  """Numbers to the right, words to the left."""
  words = {0, *(column for column, name in enumerate(section.head) if name in ('verdict', 'notes'))}
  padded = (
    text.ljust(width) if column in words else text.rjust(width)
    for column, (text, width) in enumerate(zip(line, widths, strict=True))
  )
  return '  '.join(padded).rstrip()


def _marked(section: Section, row: Row) -> tuple[str, ...]:
  cells = [_escaped(cell) for cell in row.cells]
  if row.best and section.bold is not None:
    cells[section.bold] = f'**{cells[section.bold]}**'
  if row.baseline:
    cells[0] = f'★ {cells[0]}'
  return tuple(cells)


def _escaped(text: str) -> str:
  return _MARKDOWN.sub(r'\\\1', ' '.join(text.split()))
