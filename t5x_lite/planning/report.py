"""Plans as text for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t5x_lite.partitioning.mesh import MESH_AXES
from t5x_lite.planning.search import describe
from t5x_lite.planning.steps import Plan

_SECONDS_A_DAY = 86_400
_SECONDS_AN_HOUR = 3600
_SHOWN = 12


def as_json(plan: Plan, total_steps: int | None) -> dict[str, Any]:
  """A plan as JSON-able values; bytes and seconds without prefixes, times of the roofline.

  Args:
    plan: the plan.
    total_steps: of the run; None where the step is no training step.
  """
  memory, time = plan.memory, plan.time
  run = None if total_steps is None or not plan.fits else time.step * total_steps
  return {
    'step': plan.step,
    'topology': plan.topology.name,
    'chip': plan.topology.chip.name,
    'devices': plan.num_devices,
    'mesh': dict(plan.mesh),
    'remat_policy': plan.remat_policy,
    'num_microbatches': plan.num_microbatches,
    'parameters': plan.parameters,
    'flops_per_step': plan.flops_per_step,
    'memory': {
      'parameters_bytes': memory.parameters,
      'optimizer_bytes': memory.optimizer,
      'activations_bytes': memory.activations,
      'temporaries_bytes': memory.temporaries,
      'total_bytes': memory.total,
      'limit_bytes': memory.limit,
      'estimated': memory.estimated,
    },
    'collectives': [
      {'kind': row.kind, 'axes': list(row.axes), 'async': row.is_async, 'count': row.count, 'bytes': row.bytes}
      for row in plan.collectives
    ],
    'matmul_seconds': time.matmul,
    'memory_seconds': time.memory,
    'interconnect_seconds': time.interconnect,
    'step_seconds': time.step,
    'mfu': plan.mfu,
    'days': None if run is None else run / _SECONDS_A_DAY,
    'chip_hours': None if run is None else run / _SECONDS_AN_HOUR * plan.num_devices,
    'compile_seconds': plan.compile_seconds,
    'fits': plan.fits,
  }


def as_text(plan: Plan, total_steps: int | None) -> str:
  """A plan as lines for people."""
  lines = [
    f'{plan.step} step on {plan.topology.name}: {plan.num_devices} x {plan.topology.chip.name}, {describe(plan)}',
    f'parameters    {plan.parameters:,}',
    f'FLOPs         {plan.flops_per_step:.4g} a step (of the model; what is computed again is not counted)',
    *_memory_lines(plan),
    *_collective_lines(plan),
    *_time_lines(plan, total_steps),
  ]
  if plan.compile_seconds is not None:
    lines.append(f'compilation   {plan.compile_seconds:.1f} s here')
  return '\n'.join([*lines, _fits_line(plan)])


def _memory_lines(plan: Plan) -> list[str]:
  memory = plan.memory
  note = ' (activations and temporaries estimated)' if memory.estimated else ''
  lines = [f'memory        per device{note}:']
  for name in ('parameters', 'optimizer', 'activations', 'temporaries', 'total'):
    lines.append(f'  {name:<14}{_gib(getattr(memory, name)):>10}')
  if memory.limit is not None:
    lines.append(f'  {"limit":<14}{_gib(memory.limit):>10}')
  return lines


def _collective_lines(plan: Plan) -> list[str]:
  if not plan.compiled:
    return []
  if not plan.collectives:
    return ['collectives   none']
  lines = ['collectives   per step, bytes sent by each device:']
  for row in plan.collectives:
    axes = ', '.join(row.axes) or 'no axis'
    how = 'beside other work' if row.is_async else 'waited for'
    lines.append(f'  {row.kind:<20}{axes:<18}{row.count:>7} x  {_size(row.bytes):>11}  {how}')
  return lines


def _time_lines(plan: Plan, total_steps: int | None) -> list[str]:
  time = plan.time
  lines = [
    f'step time     at least {_seconds(time.step)} by the roofline: matmul {_seconds(time.matmul)}, '
    f'memory {_seconds(time.memory)}, interconnect {_seconds(time.interconnect)}'
  ]
  if plan.mfu is not None:
    lines.append(f'MFU           at most {plan.mfu:.1%}; most of the time goes to {time.limit}')
  if total_steps is not None and plan.fits:
    run = time.step * total_steps
    hours = run / _SECONDS_AN_HOUR * plan.num_devices
    lines.append(
      f'the run       {total_steps:,} steps: at least {run / _SECONDS_A_DAY:.2f} days, {hours:,.0f} chip-hours'
    )
  return lines


def _fits_line(plan: Plan) -> str:
  memory = plan.memory
  if plan.fits:
    free = '' if memory.limit is None else f', {_gib(memory.limit - memory.total)} of {_gib(memory.limit)} left'
    return f'fits          yes{free}'
  over = '' if memory.limit is None or memory.total <= memory.limit else f', by {_gib(memory.total - memory.limit)}'
  return f'fits          no{over}: --search looks for a mesh, remat policy and microbatches that do'


def search_text(plans: Sequence[Plan]) -> str:
  """Ranked plans as a table, what to put into gin for the first of them below it."""
  head = f'{"":>3} {"mesh":<32}{"remat":<9}{"micro":>5}  {"memory":>10}  {"step":>9}  {"MFU":>6}  fits'
  lines = [head]
  for place, plan in enumerate(plans[:_SHOWN], start=1):
    mesh = describe(plan).partition(';')[0]
    how = 'compiled' if plan.compile_seconds is not None else 'estimated'
    share = '' if plan.mfu is None else f'{plan.mfu:.1%}'
    lines.append(
      f'{place:>3} {mesh:<32}{plan.remat_policy:<9}{plan.num_microbatches:>5}  {_gib(plan.memory.total):>10}  '
      f'{_seconds(plan.time.step):>9}  {share:>6}  {"yes" if plan.fits else "no"} ({how})'
    )
  if len(plans) > _SHOWN:
    lines.append(f'    and {len(plans) - _SHOWN} more; --json has them all')
  return '\n'.join([*lines, 'for the first: ' + ' '.join(flags(plans[0]))])


def flags(plan: Plan) -> list[str]:
  """The flags that choose what a plan chose."""
  sizes = [f'--gin.MeshShape.{name}={getattr(plan.shape, name)}' for name in MESH_AXES]
  return [*sizes, f'--gin.REMAT_POLICY={plan.remat_policy}', f'--gin.NUM_MICROBATCHES={plan.num_microbatches}']


def _gib(amount: float) -> str:
  return f'{amount / 2**30:,.3f} GiB' if abs(amount) < 10 * 2**30 else f'{amount / 2**30:,.1f} GiB'


def _size(amount: float) -> str:
  for unit, name in ((2**30, 'GiB'), (2**20, 'MiB'), (2**10, 'KiB')):
    if amount >= unit:
      return f'{amount / unit:,.2f} {name}'
  return f'{amount:.0f} B'


def _seconds(amount: float) -> str:
  return f'{amount:.3f} s' if amount >= 1 else f'{amount * 1e3:.3g} ms'
