"""Which mesh, remat policy and number of microbatches suit a topology: all are estimated, the best are compiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from t5x_lite.core import errors
from t5x_lite.nn.transformer import REMAT_POLICIES
from t5x_lite.partitioning.mesh import MeshShape, divisors
from t5x_lite.planning.steps import Plan, Planner

MOST_TENSOR = 16
MOST_SEQUENCE = 8
MOST_MICROBATCHES = 64

_LESS = 0.9  # of the memory that was too much, to be tried next


def mesh_shapes(num_devices: int, *, experts: bool = False) -> Iterator[MeshShape]:
  """All meshes over so many devices of a slice, with an axis of experts only for models that have some."""
  for tensor in (size for size in divisors(num_devices) if size <= MOST_TENSOR):
    for sequence in (size for size in divisors(num_devices // tensor) if size <= MOST_SEQUENCE):
      left = num_devices // tensor // sequence
      for expert in divisors(left) if experts else (1,):
        for fsdp in divisors(left // expert):
          yield MeshShape(left // expert // fsdp, fsdp, tensor, sequence, expert)


# What is copied to the host and back the estimates do not know.
_POLICIES = tuple(name for name in REMAT_POLICIES if name != 'offload')


def candidates(planner: Planner) -> list[Plan]:
  """The estimates of everything that the model and its batch divide over, best first; see `rank`.

  Raises:
    UsageError: nothing divides.
  """
  config = planner.learner.module.config
  rows = planner.estimator.rows
  counts = [count for count in divisors(rows) if count <= MOST_MICROBATCHES and count & (count - 1) == 0]
  plans, refused = [], None
  in_slice = len(planner.topology.devices) // planner.topology.num_slices
  for shape in mesh_shapes(in_slice, experts=bool(getattr(config, 'num_experts', 0))):
    for count in counts:
      try:
        plans += [planner.estimate(shape, policy, count) for policy in _POLICIES]
      except errors.UsageError as error:
        refused = refused or error
  if not plans and refused is not None:
    raise refused
  return rank(plans)


def rank(plans: Sequence[Plan]) -> list[Plan]:
  """Those that fit first, what is compiled before what is not, then the fastest, then those that need least memory."""
  return sorted(
    plans, key=lambda plan: (not plan.fits, plan.compile_seconds is None, plan.time.step, plan.memory.total)
  )


def search(planner: Planner, num_compiled: int, note: Callable[[str], None] = lambda line: None) -> list[Plan]:
  """The best plans of a training step, ranked: the compiled ones, and behind them all others by their estimates.

  Where one that was estimated to fit does not when compiled, the next to be compiled are those estimated to need a
  tenth less than it. What is tried and does not fit is behind all that is estimated to.

  Args:
    planner: of the model, the batch and the topology.
    num_compiled: how many that fit are to be compiled; at most three times as many are tried.
    note: is told what is being compiled.
  """
  plans = candidates(planner)
  compiled: list[Plan] = []
  room = math.inf
  for plan in plans:
    if sum(done.fits for done in compiled) >= num_compiled or len(compiled) >= 3 * num_compiled:
      break
    if plan.memory.total > room:
      continue
    note(f'compiling {describe(plan)}')
    compiled.append(planner.compile(plan.shape, plan.remat_policy, plan.num_microbatches))
    if not compiled[-1].fits:
      room = min(room, _LESS * plan.memory.total)
  tried = [_choice(plan) for plan in compiled]
  return rank([*compiled, *(plan for plan in plans if _choice(plan) not in tried)])


def _choice(plan: Plan) -> tuple[MeshShape, str, int]:
  return plan.shape, plan.remat_policy, plan.num_microbatches


def describe(plan: Plan) -> str:
  """Mesh, remat policy and microbatches in a few words."""
  mesh = ', '.join(f'{name} {size}' for name, size in plan.mesh.items() if size > 1) or 'one device'
  return f'{mesh}; remat {plan.remat_policy}; {plan.num_microbatches} microbatches'
