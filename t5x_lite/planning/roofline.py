"""How long a step takes at least: a roofline of matrix products, memory and interconnect (Williams et al. 2009)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax

from t5x_lite.planning.chips import Chip, Topology
from t5x_lite.planning.collectives import Collective
from t5x_lite.planning.costs import Cost


@dataclasses.dataclass(frozen=True)
class StepTime:
  """Seconds of a step on a device; what of a chip is not known, counts as no time.

  A bound from below: real kernels reach a part of the peaks, and latencies of collectives are not in it.

  Attributes:
    matmul: of the matrix products alone, at the peak.
    memory: of all reads and writes alone, at the bandwidth of the main memory.
    interconnect: of all collectives alone.
    step: instruction by instruction the longer of matmul and memory, one after the other; beside them those collectives
      that the program lets run meanwhile, and after them the others.
  """

  matmul: float
  memory: float
  interconnect: float
  step: float

  @property
  def limit(self) -> str:
    """What takes most of it."""
    return max(('matmul', 'memory', 'interconnect'), key=lambda name: getattr(self, name))


def step_time(
  costs: Iterable[Cost],
  collectives: Iterable[Collective],
  topology: Topology,
  mesh: jax.sharding.Mesh,
  *,
  least_flops: float = 0.0,
) -> StepTime:
  """The roofline of a program.

  Args:
    costs: of its instructions.
    collectives: that it has.
    topology: the devices.
    mesh: how they are arranged.
    least_flops: that a device has to compute, for programs with kernels whose FLOPs nobody tells.
  """
  chip = topology.chip
  flops = memory = compute = 0.0
  for cost in costs:
    flops += cost.times * cost.flops
    memory += cost.times * seconds(cost.bytes, chip.memory_bandwidth)
    compute += cost.times * max(seconds(cost.flops, chip.peak_flops), seconds(cost.bytes, chip.memory_bandwidth))
  hidden = max(least_flops - flops, 0.0)
  sent = [(row, seconds(row.bytes, topology.bandwidth(mesh, row.axes or mesh.axis_names))) for row in collectives]
  beside = sum(time for row, time in sent if row.is_async)
  after = sum(time for row, time in sent if not row.is_async)
  return StepTime(
    matmul=seconds(flops + hidden, chip.peak_flops),
    memory=memory,
    interconnect=beside + after,
    step=max(compute + seconds(hidden, chip.peak_flops), beside) + after,
  )


def seconds(amount: float, rate: float | None) -> float:
  """How long an amount takes at a rate; no time where the rate is not known."""
  return amount / rate if rate else 0.0


def mfu(flops: float, time: StepTime, chip: Chip, num_devices: int) -> float | None:
  """Model FLOPs utilisation of a step that takes no longer than that: an upper bound; None if the peak is not known."""
  return flops / (time.step * num_devices * chip.peak_flops) if chip.peak_flops and time.step else None
