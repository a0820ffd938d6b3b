"""The plan of a sweep, as it is printed before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from t5x_lite.sweeps import outcomes, spec
from t5x_lite.sweeps.plan import Plan, PlannedArm

_MOST_ARMS = 40  # whose differences are listed
_MOST_LINES = 12  # of the differences of an arm


def render(plan: Plan, name: str) -> str:
  """What is going to run: arms and their costs, what differs, what is inert, what is held equal."""
  arms, seeds = plan.arms, plan.sweep.seeds
  lines = [
    f'sweep {name}: {len(arms)} arms x {len(seeds)} seeds ({", ".join(map(str, seeds))}) = {len(arms) * len(seeds)} '
    f'runs; baseline {plan.baseline}',
    f'budget: {_budget(plan)}',
    '',
    *_table(plan),
    '',
    *_differences(plan),
    *_held(plan),
    *_inert(arms),
    f'metrics: {", ".join(map(_with_direction, plan.sweep.metrics))}',
  ]
  return '\n'.join(lines)


def _with_direction(metric: str) -> str:
  return f'{metric} ({"less" if outcomes.less_is_better(metric) else "more"} is better)'


def _budget(plan: Plan) -> str:
  amount = f'{plan.amount:,.4g}' if plan.amount >= 1e9 else f'{plan.amount:,.0f}'
  unit = {spec.FLOPS: 'FLOPs', spec.SECONDS: 'seconds of training'}.get(plan.sweep.budget, plan.sweep.budget)
  each = 'of every model' if plan.sweep.budget == spec.PARAMETERS else 'for every run'
  return f'{amount} {unit} {each}'


def _table(plan: Plan) -> list[str]:
  head = ('arm', 'parameters', 'FLOPs a step', 'tokens a step', 'steps', 'tokens', 'FLOPs')
  rows = [head]
  for planned in plan.arms:
    cost, star = planned.cost, '*' if planned.arm.name == plan.baseline else ''
    most = '<= ' if plan.sweep.budget == spec.SECONDS else ''
    rows.append(
      (
        planned.arm.name + star,
        f'{cost.parameters:,}',
        f'{cost.flops:.4g}',
        f'{cost.tokens:,}',
        f'{most}{cost.steps:,}',
        f'{most}{cost.total_tokens:,}',
        f'{most}{cost.total_flops:.4g}',
      )
    )
  widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
  made = []
  for row in rows:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    made.append('  '.join(cells).rstrip())
  return [made[0], '-' * max(map(len, made)), *made[1:]]


def _differences(plan: Plan) -> list[str]:
  lines = [f'what differs from {plan.baseline}, in resolved values:']
  for planned in plan.arms[:_MOST_ARMS]:
    if planned.arm.name == plan.baseline:
      continue
    shown = list(planned.differs[:_MOST_LINES])
    left = len(planned.differs) - len(shown)
    shown += [f'and {left} more'] if left else []
    if len(shown) == 1:
      lines.append(f'  {planned.arm.name}: {shown[0]}')
    else:
      lines += [f'  {planned.arm.name}:', *(f'    {line}' for line in shown)]
  if len(plan.arms) > _MOST_ARMS:
    lines.append(f'  and {len(plan.arms) - _MOST_ARMS} arms more, in sweep.json')
  return lines


def _held(plan: Plan) -> list[str]:
  """What is the same in all arms."""
  orders = {planned.order for planned in plan.arms}
  seed = plan.sweep.seeds[0]
  if None in orders:
    told = 'not on this machine; compared when runs have ended'
  elif len(orders) == 1:
    told = f'the same in the same order in all arms: {orders.pop()[:16]} with seed {seed}'  # type: ignore[index]
  else:
    told = f'{len(orders)} different orders with seed {seed}, as Sweep.same_data = False allows'
  same = 'the same in all arms' if plan.sweep.same_evaluation else 'not compared (Sweep.same_evaluation = False)'
  return [f'documents: {told}', f'evaluation: {same}']


def _inert(arms: Sequence[PlannedArm]) -> list[str]:
  """Settings that change nothing, each once."""
  found = {f'  {planned.arm.name}: {setting}': None for planned in arms for setting in planned.inert}
  if not found:
    return []
  lines = list(found)
  more = [f'  and {len(lines) - _MOST_ARMS} more'] if len(lines) > _MOST_ARMS else []
  return ['inert, since the base says the same:', *lines[:_MOST_ARMS], *more]
