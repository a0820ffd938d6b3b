"""The results of a sweep as one LaTeX table, as T5's paper prints them: the baseline starred, the best in bold.

Raffel et al. 2020, section 3.1.4: bold is what is within two standard deviations, of the baseline's runs, of the best
in its column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from t5x_lite.sweeps import outcomes as outcomes_lib
from t5x_lite.sweeps import sections, verdicts
from t5x_lite.sweeps.outcomes import DIVERGED, Outcome
from t5x_lite.sweeps.verdicts import BETTER, WORSE, Plan, Result

_SPECIAL = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  '|': r'\textbar{}',
  '"': r'\textquotedbl{}',
  **{character: f'\\{character}' for character in '&%$#_{}'},
}
_MARKS = {BETTER: '^{+}', WORSE: '^{-}'}


def escape(text: str) -> str:
  """Text that LaTeX prints as it is."""
  special = ''.join(re.escape(character) for character in _SPECIAL)
  return re.sub(f'[{special}]', lambda found: _SPECIAL[found[0]], ' '.join(text.split()))


def table(plan: Plan, results: Mapping[str, Sequence[Result]], outcomes: Sequence[Outcome], alpha: float) -> str:
  """The table: a row for each arm; a column for each metric and each cost."""
  by_arm = sections.costs(plan, outcomes)
  names = sections.cost_names(by_arm)
  heads = [f'{escape(metric)} $\\{_arrow(metric)}$' for metric in results] + [escape(name) for name in names]
  places = {metric: sections.decimals(own) for metric, own in results.items()}
  lines = [
    '% needs \\usepackage[T1]{fontenc} and \\usepackage{amssymb, booktabs}',
    '\\begin{table}',
    '\\centering',
    f'\\begin{{tabular}}{{l{"r" * len(heads)}}}',
    '\\toprule',
    ' & '.join(['Arm', *heads]) + ' \\\\',
    '\\midrule',
  ]
  diverged = {arm: counts[DIVERGED] for arm, counts in verdicts.statuses(plan, outcomes).items() if counts[DIVERGED]}
  for index, arm in enumerate(plan.arms):
    cells = [_name(plan, arm, arm in diverged)]
    cells += [_cell(own[index], places[metric]) for metric, own in results.items()]
    cells += [_cost(by_arm[arm].get(name)) for name in names]
    lines.append(' & '.join(cells) + ' \\\\')
  lines += ['\\bottomrule', '\\end{tabular}', f'\\caption{{{_caption(plan, diverged, alpha)}}}', '\\end{table}']
  return '\n'.join(lines) + '\n'


def _arrow(metric: str) -> str:
  return 'downarrow' if outcomes_lib.less_is_better(metric) else 'uparrow'


def _name(plan: Plan, arm: str, diverged: bool) -> str:
  star = '$\\bigstar$ ' if arm == plan.baseline else ''
  return star + escape(arm) + ('$^{\\dagger}$' if diverged else '')


def _cell(result: Result, places: int) -> str:
  mean, deviation = result.summary.mean, result.summary.deviation
  if mean is None:
    return '--'
  shown = sections.number(mean, places).replace(',', '{,}')
  shown = f'\\mathbf{{{shown}}}' if result.best else shown
  spread = '' if deviation is None else f' \\pm {sections.number(deviation, places).replace(",", "{,}")}'
  return f'${shown}{spread}{_MARKS.get(result.verdict or "", "")}$'


def _cost(value: float | None) -> str:
  """A cost; powers of ten as they are written by hand."""
  if value is None:
    return '--'
  digits, _, exponent = sections.amount(value).replace(',', '{,}').partition('e')
  power = f' \\cdot 10^{{{int(exponent)}}}' if exponent else ''
  return f'${digits}{power}$'


def _caption(plan: Plan, diverged: Mapping[str, int], alpha: float) -> str:
  seeds = f'{len(plan.seeds)} {"seed" if len(plan.seeds) == 1 else "seeds"}'
  parts = [f'{escape(plan.name)}: mean and standard deviation over {seeds}.']
  if plan.baseline is not None:
    parts += [
      '$\\bigstar$: the baseline. Bold: within two of its standard deviations of the best in the column.',
      f'$^{{+}}$ better, $^{{-}}$ worse than the baseline (two-sided $t$, $\\alpha = {alpha:g}$, Holm); no mark: '
      'cannot tell at this number of seeds.',
    ]
  if diverged:
    told = ', '.join(f'{escape(arm)} {count} of {len(plan.seeds)}' for arm, count in diverged.items())
    parts.append(f'$^{{\\dagger}}$ runs that diverged are left out: {told}.')
  return ' '.join(parts)
