"""What is to be seen of a task's predictions as one HTML page that needs nothing else (see `review`)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

from t5x_lite.core import pages
from t5x_lite.scoring import calibration
from t5x_lite.scoring.calibration import Bin
from t5x_lite.scoring.review import Case, Judged, Review

_LARGEST_MATRIX = 32  # labels; of more, only what is confused most
_MOST_CONFUSED = 25
_SIDE = 320  # pixels of the diagram
_MARGIN = 44
_STYLE = """
table.matrix td, table.matrix th { padding: .15rem .5rem; border: 1px solid #fff; text-align: right }
table.matrix th.row { text-align: left } table.matrix th { font-size: .87rem; max-width: 9rem; overflow-wrap: anywhere }
.case { border-top: 1px solid #ddd; padding-top: .4rem; margin-top: 1rem }
.right { color: #146c2e } .wrong { color: #a3192d } .case b { overflow-wrap: anywhere; white-space: pre-wrap }
svg text { font-size: 12px; fill: #444 } figure { margin: .5rem 0 }
"""


def render(title: str, values: Mapping[str, float], found: Review) -> str:
  """The page.

  Args:
    title: of the task, its split and the checkpoint.
    values: metrics by name, and how many examples there are.
    found: what is shown.
  """
  parts = [_metrics(values, found)]
  if found.judged is not None:
    parts.append(_confusion(found.judged, found.unit))
  if found.confidences:
    parts.append(_calibration(found))
  parts.append(_cases(found))
  return pages.page(title, '\n'.join(parts), _STYLE)


def _metrics(values: Mapping[str, float], found: Review) -> str:
  shown = [(name.removeprefix('score/'), _number(value)) for name, value in values.items()]
  if found.known != values.get('examples'):
    shown.append(('with a known answer', str(found.known)))
  return f'<table>{"".join(pages.cells("td", row) for row in shown)}</table>'


def _confusion(judged: Judged, unit: str) -> str:
  counts = calibration.confusion(judged.references, judged.predictions, len(judged.labels))
  figures = calibration.label_figures(counts)
  rows = [
    (name, f'{own.count:,}', f'{own.precision:.2f}', f'{own.recall:.2f}', f'{own.f1:.2f}')
    for name, own in zip(judged.labels, figures, strict=True)
  ]
  small = len(judged.labels) <= _LARGEST_MATRIX
  return (
    f'<h2>Confusion matrix, of {unit}</h2>\n{_matrix(judged.labels, counts) if small else ""}'
    f'{"" if small else _most_confused(judged.labels, counts)}\n'
    f'<h2>Labels</h2>\n{pages.table(("label", unit, "precision", "recall", "F1"), rows)}'
  )


def _matrix(labels: Sequence[str], counts: np.ndarray) -> str:
  """Rows are what is right; the shade is the share of the row."""
  columns = [*labels, '(no label)'] if counts[:, -1].any() else list(labels)
  head = ''.join(f'<th>{html.escape(name)}</th>' for name in columns)
  lines = [f'<tr><th class="row">right \\ predicted</th>{head}</tr>\n']
  for number, name in enumerate(labels):
    shares = counts[number] / max(int(counts[number].sum()), 1)
    cells = ''.join(
      f'<td style="background:{_shade(shares[column], column == number)}" '
      f'title="{html.escape(name)} as {html.escape(columns[column])}: {shares[column]:.1%}">'
      f'{counts[number, column]}</td>'
      for column in range(len(columns))
    )
    lines.append(f'<tr><th class="row">{html.escape(name)}</th>{cells}</tr>\n')
  return f'<div class="wide"><table class="matrix">\n{"".join(lines)}</table></div>'


def _shade(share: float, is_right: bool) -> str:
  red, green, blue = (20, 108, 46) if is_right else (163, 25, 45)
  return f'rgba({red},{green},{blue},{0.55 * share:.3f})'


def _most_confused(labels: Sequence[str], counts: np.ndarray) -> str:
  columns = [*labels, '(no label)']
  off = counts.copy()
  np.fill_diagonal(off, 0)
  places = np.argsort(-off, axis=None, kind='stable')[:_MOST_CONFUSED]
  found = [divmod(int(place), counts.shape[1]) for place in places]
  rows = [
    (f'{labels[right]} as {columns[predicted]}', f'{off[right, predicted]:,}', f'{off[right, predicted] / total:.1%}')
    for right, predicted in found
    if off[right, predicted] and (total := counts[right].sum())
  ]
  note = f'<p class="note">{len(labels)} labels: the pairs that are confused most.</p>'
  return note + pages.table(('right as predicted', 'count', 'of its examples'), rows)


def _calibration(found: Review) -> str:
  bins = calibration.reliability(found.confidences, found.hits)
  error = calibration.expected_error(bins)
  rows = [
    (f'{own.low:.1f} to {own.high:.1f}', f'{own.count:,}', f'{own.confidence:.4f}', f'{own.accuracy:.4f}')
    for own in bins
    if own.count
  ]
  mean, share = np.mean(found.confidences), np.mean(found.hits)
  return (
    f'<h2>Calibration, of {found.unit}</h2>\n'
    f'<p>Expected calibration error {error:.4f}, in {len(bins)} bins of equal width: predictions have a mean '
    f'confidence of {mean:.4f}, and {share:.4f} of them are right.</p>\n{_diagram(bins)}\n'
    f'{pages.table(("confidence", found.unit, "mean confidence", "share right"), rows)}'
  )


def _diagram(bins: Sequence[Bin]) -> str:
  """A reliability diagram: bars of accuracy against the diagonal, on which confidence and accuracy are the same."""
  most = max(own.count for own in bins)
  bars = []
  for own in bins:
    if own.count:
      left, width, height = _MARGIN + own.low * _SIDE, (own.high - own.low) * _SIDE, own.accuracy * _SIDE
      opacity = 0.25 + 0.75 * (own.count / most) ** 0.5
      bars.append(
        f'<rect x="{left + 1:.1f}" y="{_SIDE - height + 10:.1f}" width="{width - 2:.1f}" height="{height:.1f}" '
        f'fill="#3b6fb6" fill-opacity="{opacity:.2f}"><title>{own.count} between {own.low:.1f} and {own.high:.1f}: '
        f'{own.accuracy:.1%} right, {own.confidence:.1%} sure</title></rect>'
        f'<circle cx="{_MARGIN + own.confidence * _SIDE:.1f}" cy="{_SIDE - height + 10:.1f}" r="3" fill="#1c1c1c"/>'
      )
  ticks = ''.join(
    f'<text x="{_MARGIN + at * _SIDE:.0f}" y="{_SIDE + 26}" text-anchor="middle">{at:g}</text>'
    f'<text x="{_MARGIN - 6}" y="{_SIDE - at * _SIDE + 14:.0f}" text-anchor="end">{at:g}</text>'
    for at in (0.0, 0.25, 0.5, 0.75, 1.0)
  )
  edge = f'x="{_MARGIN}" y="10" width="{_SIDE}" height="{_SIDE}"'
  return (
    f'<figure><svg width="{_SIDE + _MARGIN + 16}" height="{_SIDE + 50}" role="img" aria-label="Reliability diagram">'
    f'<rect {edge} fill="#f6f6f6"/>{"".join(bars)}'
    f'<line x1="{_MARGIN}" y1="{_SIDE + 10}" x2="{_MARGIN + _SIDE}" y2="10" stroke="#1c1c1c" stroke-dasharray="4 4"/>'
    f'{ticks}<text x="{_MARGIN + _SIDE / 2:.0f}" y="{_SIDE + 44}" text-anchor="middle">confidence</text>'
    f'<text transform="translate(12 {_SIDE / 2 + 10:.0f}) rotate(-90)" text-anchor="middle">share right</text></svg>'
    '<figcaption class="note">Darker bars hold more predictions; dots stand at the mean confidence of each bin.'
    '</figcaption></figure>'
  )


def _cases(found: Review) -> str:
  if not found.cases:
    return '<h2>Errors</h2>\n<p>None.</p>'
  shown = f'the {len(found.cases)} worst of ' if len(found.cases) < found.wrong else ''
  note = f'<p class="note">Ordered by {html.escape(found.order)}.</p>'
  return f'<h2>Errors: {shown}{found.wrong:,}</h2>\n{note}\n{"".join(map(_case, found.cases))}'


def _case(case: Case) -> str:
  told = [] if case.loss is None else [f'loss {case.loss:.4f}']
  told += [] if case.confidence is None else [f'{case.confidence:.1%} sure']
  texts = ''.join(pages.text(name, content) for name, content in case.texts.items())
  return (
    f'<div class="case"><h3>example {case.number}{"".join(f", {each}" for each in told)}</h3>\n'
    f'<div>right: <b class="right">{html.escape(case.right) or "(empty)"}</b></div>\n'
    f'<div>predicted: <b class="wrong">{html.escape(case.predicted) or "(empty)"}</b></div>\n{texts}</div>\n'
  )


def _number(value: float) -> str:
  if isinstance(value, int):
    return f'{value:,}'
  return f'{value:.2f}' if abs(value) >= 10 else f'{value:.4f}'
