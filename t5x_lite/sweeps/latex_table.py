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
_WIDTH = '\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi'  # that of the text, unless the table has less
_MARKS = {BETTER: '^{+}', WORSE: '^{-}'}


def escape(text: str) -> str:
  """Text that LaTeX prints as it is."""
  special = ''.join(re.escape(character) for character in _SPECIAL)
  return re.sub(f'[{special}]', lambda found: _SPECIAL[found[0]], ' '.join(text.split()))


def table(plan: Plan, results: Mapping[str, Sequence[Result]], outcomes: Sequence[Outcome], alpha: float) -> str:
  """The table: a row for each arm; a column for each metric and each cost in which arms differ.

  What is the same for all arms is told below it, and the names of metrics are broken at their slashes; a table that is
  wider than the text all the same is made smaller.
  """
  by_arm = sections.costs(plan, outcomes)
  shared = _shared(by_arm)
  names = [name for name in sections.cost_names(by_arm) if name not in shared]
  heads = [_head(metric) for metric in results] + [escape(name) for name in names]
  places = {metric: sections.decimals(own) for metric, own in results.items()}
  lines = [
    '% needs \\usepackage[T1]{fontenc} and \\usepackage{amssymb, booktabs, graphicx}',
    '\\begin{table}',
    '\\centering',
    f'\\resizebox{{{_WIDTH}}}{{!}}{{\\begin{{tabular}}{{l{"r" * len(heads)}}}',
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
  lines += [
    '\\bottomrule',
    '\\end{tabular}}',
    f'\\caption{{{_caption(plan, diverged, alpha, shared)}}}',
    '\\end{table}',
  ]
  return '\n'.join(lines) + '\n'


def _head(metric: str) -> str:
  """The name of a metric, a line for each part of it."""
  parts = [escape(part) for part in metric.split('/')]
  named = [f'{part}/' for part in parts[:-1]] + [f'{parts[-1]} $\\{_arrow(metric)}$']
  lines = ' \\\\ '.join(named)
  return lines if len(named) == 1 else f'\\shortstack[r]{{{lines}}}'


def _shared(by_arm: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """The costs that are the same in all arms, where there are several."""
  first, *others = by_arm.values()
  return {name: value for name, value in first.items() if others and all(own.get(name) == value for own in others)}


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


def _caption(plan: Plan, diverged: Mapping[str, int], alpha: float, shared: Mapping[str, float]) -> str:
  seeds = f'{len(plan.seeds)} {"seed" if len(plan.seeds) == 1 else "seeds"}'
  parts = [f'{escape(plan.name)}: mean and standard deviation over {seeds}.']
  if plan.baseline is not None:
    parts += [
      '$\\bigstar$: the baseline. Bold: within two of its standard deviations of the best in the column.',
      f'$^{{+}}$ better, $^{{-}}$ worse than the baseline (two-sided $t$, $\\alpha = {alpha:g}$, Holm); no mark: '
      'cannot tell at this number of seeds.',
    ]
  if shared:
    told = ', '.join(f'{escape(name)} {_cost(shared[name])}' for name in sections.cost_names({'': shared}))
    parts.append(f'In all arms: {told}.')
  if diverged:
    told = ', '.join(f'{escape(arm)} {count} of {len(plan.seeds)}' for arm, count in diverged.items())
    parts.append(f'$^{{\\dagger}}$ runs that diverged are left out: {told}.')
  return ' '.join(parts)
