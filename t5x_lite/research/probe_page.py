"""What probes found, by layer, as one HTML page that needs nothing else: a diagram and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import pages

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 300, 44, 12
_LINES = (('accuracy', '#2171b5', ''), ('control_accuracy', '#a3192d', '5 4'))
_STYLE = """
h1 { overflow-wrap: anywhere } figure { margin: .5rem 0 }
svg { max-width: 100%; height: auto } svg text { font-size: 12px; fill: #444 }
"""


def render(title: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, float | int]) -> str:
  """The page.

  Args:
    title: text.
    rows: of `infer --mode=probe`, one for each layer.
    facts: what is to be known of the examples.
  """
  told = [(name, f'{value:,}' if isinstance(value, int) else f'{value:.4f}') for name, value in facts.items()]
  columns = ('layer', 'accuracy', 'standard error', 'control', 'selectivity', 'training accuracy')
  names = ('accuracy', 'standard_error', 'control_accuracy', 'selectivity', 'train_accuracy')
  table = [(str(row['layer']), *(f'{row[name]:.4f}' for name in names)) for row in rows]
  note = (
    '<p>A linear classifier on the states of each layer; layer 0 is what the first layer reads. The control has random '
    'labels, one for each word type or text (Hewitt and Liang 2019); selectivity is accuracy less that of the control. '
    'Whiskers: one standard error over examples.</p>'
  )
  facts_table = f'<table>{"".join(pages.cells("td", row) for row in told)}</table>'
  return pages.page(title, f'{note}\n{_diagram(rows)}\n{pages.table(columns, table)}\n{facts_table}', _STYLE)


def _diagram(rows: Sequence[Mapping[str, Any]]) -> str:
  def x(place: int) -> float:
    return _LEFT + (place + 0.5) / len(rows) * (_WIDTH - _LEFT - 10)

  def y(value: float) -> float:
    return _TOP + (1 - value) * _HEIGHT

  parts = [
    f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#e4e4e4"/>'
    f'<text x="{_LEFT - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{at:g}</text>'
    for at in (0.0, 0.25, 0.5, 0.75, 1.0)
  ]
  for place, row in enumerate(rows):
    low, high = (min(max(row['accuracy'] + sign * row['standard_error'], 0), 1) for sign in (-1, 1))
    at = f'{x(place):.1f}'
    parts.append(f'<line x1="{at}" x2="{at}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="#2171b5"/>')
    parts.append(f'<text x="{at}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{row["layer"]}</text>')
  for name, colour, dashes in _LINES:
    points = ' '.join(f'{x(place):.1f},{y(row[name]):.1f}' for place, row in enumerate(rows))
    parts.append(
      f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
    )
    parts += [
      f'<circle cx="{x(place):.1f}" cy="{y(row[name]):.1f}" r="3.5" fill="{colour}"><title>layer {row["layer"]}: '
      f'{name.replace("_", " ")} {row[name]:.4f}</title></circle>'
      for place, row in enumerate(rows)
    ]
  below = _TOP + _HEIGHT
  return (
    f'<figure><svg viewBox="0 0 {_WIDTH} {below + 40}" width="{_WIDTH}" role="img" aria-label="Accuracy by layer">'
    f'{"".join(parts)}<text x="{_WIDTH / 2}" y="{below + 36}" text-anchor="middle">layer</text></svg>'
    '<figcaption class="note">Solid: accuracy on what was held out. Dashed: the control.</figcaption></figure>'
  )
