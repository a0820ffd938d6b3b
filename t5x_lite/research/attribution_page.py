"""Attributions as one HTML page that needs nothing else: each text once for each target, its tokens shaded."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors, pages

_FOR, _AGAINST = (20, 108, 46), (163, 25, 45)
_METHODS = {
  'integrated_gradients': 'integrated gradients (Sundararajan et al. 2017)',
  'gradients_times_input': 'gradients times inputs',
}
_STYLE = """
h1, h2 { overflow-wrap: anywhere }
.tokens { line-height: 2; margin: .2rem 0 .8rem } .tokens span { white-space: pre-wrap; padding: .15rem .1rem;
  border-radius: 3px; overflow-wrap: anywhere } .tokens span.about { outline: 2px solid #1c1c1c }
.target { border-top: 1px solid #ddd; padding-top: .4rem; margin-top: .8rem } .target b { white-space: pre-wrap;
  overflow-wrap: anywhere } .key { padding: .1rem .4rem; border-radius: 3px }
"""


def render(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
  """The page.

  Args:
    title: text.
    rows: of `infer --mode=attributions`, or `load_pretrained(source).attributions(texts)`.

  Raises:
    UsageError: there is nothing to be seen.
  """
  if not rows:
    raise errors.UsageError('no texts for a page: expected at least one')
  first = rows[0]
  against = f', against {first["baseline"]} in the place of tokens' if 'baseline' in first else ''
  note = (
    f'<p>By {_METHODS[first["method"]]}{against}. <span class="key" style="background:{_shade(0.7)}">adds</span> to '
    f'the score, <span class="key" style="background:{_shade(-0.7)}">takes</span> from it; the strongest of each is '
    'the darkest. Outlined: where it is predicted. Point at a token for its number.</p>'
  )
  return pages.page(title, note + ''.join(_text(number, row) for number, row in enumerate(rows, start=1)), _STYLE)


def _text(number: int, row: Mapping[str, Any]) -> str:
  shown = ' / '.join(row[name] for name in ('text', 'pair', 'targets') if name in row)
  targets = ''.join(_target(row['tokens'], each) for each in row['attributions'])
  return f'<h2>{number}: {html.escape(shown)}</h2>\n{targets}'


def _target(tokens: Mapping[str, Sequence[str]], target: Mapping[str, Any]) -> str:
  told = f'score {target["score"]:.4f}'
  if 'baseline_score' in target:
    told += f', of the baseline {target["baseline_score"]:.4f}, completeness gap {target["completeness_gap"]:.1e}'
  strongest = max((float(np.max(np.abs(own), initial=0.0)) for own in target['values'].values()), default=0.0) or 1.0
  parts = []
  for side, own in target['values'].items():
    label = f'<div class="label">{html.escape(side)}</div>' if len(target['values']) > 1 else ''
    about = target['position'] if side == list(target['values'])[-1] else -1
    spans = ''.join(
      f'<span style="background:{_shade(value / strongest)}" title="{value:.4f}"'
      f'{" class=about" if place == about else ""}>{html.escape(token)}</span>'
      for place, (token, value) in enumerate(zip(tokens[side], own, strict=True))
    )
    parts.append(f'{label}<div class="tokens">{spans}</div>')
  return (
    f'<div class="target"><b>{html.escape(target["target"])}</b> <span class="note">{html.escape(told)}</span>\n'
    f'{"".join(parts)}</div>\n'
  )


def _shade(share: float) -> str:
  red, green, blue = _FOR if share > 0 else _AGAINST
  return f'rgba({red},{green},{blue},{0.7 * min(abs(share), 1.0):.3f})'
