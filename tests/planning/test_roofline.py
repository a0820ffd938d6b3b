"""Nothing gets slower on a faster chip, and what runs beside other work costs nothing until it is longer."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.planning import chips, roofline
from t5x_lite.planning.chips import Chip, Topology
from t5x_lite.planning.collectives import Collective
from t5x_lite.planning.costs import Cost

CHIP = Chip('chip', 100.0, 1000, 10.0, 5.0)
COSTS = [Cost(3, 200.0, 5.0), Cost(1, 0.0, 40.0)]  # 3 products of 2 s each, and 4 s of memory
BESIDE, AFTER = (Collective('all-gather', ('data',), is_async, 1, 30) for is_async in (True, False))  # 6 s each


def topology(**changes):
  return Topology('t', dataclasses.replace(CHIP, **changes), jax.devices())


def step(costs=COSTS, collectives=(), least_flops=0.0, **changes):
  mesh = make_mesh(MeshShape(), jax.devices())
  return roofline.step_time(costs, collectives, topology(**changes), mesh, least_flops=least_flops)


def test_an_instruction_takes_the_longer_of_its_times():
  time = step()
  assert (time.matmul, time.memory, time.interconnect, time.step) == (6.0, 5.5, 0.0, 10.0)
  assert time.limit == 'matmul'


def test_collectives_beside_other_work_are_hidden_and_others_are_not():
  assert step(collectives=[BESIDE]).step == 10.0
  assert step(collectives=[AFTER]).step == 16.0
  assert step(collectives=[BESIDE, BESIDE]).step == 12.0
  assert step(collectives=[BESIDE, AFTER]).interconnect == 12.0


@pytest.mark.parametrize('field', ['peak_flops', 'memory_bandwidth', 'link_bandwidth'])
def test_no_part_that_gets_faster_makes_a_step_slower(field):
  times = [step(collectives=[BESIDE, AFTER], **{field: rate}).step for rate in (1.0, 3.0, 10.0, 100.0, 1e6)]
  assert times == sorted(times, reverse=True) and times[0] > times[-1]


@pytest.mark.parametrize('field', ['flops', 'bytes'])
def test_more_work_never_takes_less_time(field):
  times = [step([dataclasses.replace(COSTS[0], **{field: amount})]).step for amount in (0.0, 10.0, 1e3, 1e6)]
  assert times == sorted(times)


def test_products_that_nobody_tells_of_take_their_time_too():
  assert step([Cost(1, 0.0, 40.0)], least_flops=1000.0).step == 4.0 + 10.0
  assert step(least_flops=500.0).step == step().step  # the program has more than that


def test_utilisation_is_one_where_nothing_but_the_model_takes_time():
  time = step([Cost(1, 800.0, 0.0)])
  assert roofline.mfu(800.0 * 8, time, CHIP, 8) == pytest.approx(1.0)
  assert roofline.mfu(800.0 * 8, time, dataclasses.replace(CHIP, peak_flops=None), 8) is None


def test_a_ring_over_a_closed_torus_has_twice_the_links_of_a_line():
  v5p, v5e = chips.TPUS['v5p'], chips.TPUS['v5e']
  assert [v5p.links(lengths) for lengths in ([2], [4], [4, 4], [2, 8], [])] == [1, 2, 4, 3, 1]
  assert [v5e.links(lengths) for lengths in ([4], [16], [16, 16])] == [1, 2, 4]


@dataclasses.dataclass(frozen=True)
class Device:
  coords: tuple[int, ...]
  slice_index: int = 0


class Mesh:
  axis_names = ('data', 'fsdp')

  def __init__(self, devices):
    self.devices = devices


def test_bandwidth_follows_the_axes_of_the_torus_and_the_network_between_slices():
  import numpy as np

  devices = np.asarray([[Device((x, y, 0), s) for x in range(4) for y in range(2)] for s in range(2)], object)
  made = Topology('v5p:4x2x1*2', chips.TPUS['v5p'], list(devices.flat))
  assert made.bandwidth(Mesh(devices), ('fsdp',)) == 3 * 100e9  # a ring of 4 and a line of 2
  assert made.bandwidth(Mesh(devices), ('data',)) == 6.25e9
  both = made.bandwidth(Mesh(devices), ('data', 'fsdp'))  # within the slices, and an eighth of it between them
  assert both == pytest.approx(1 / (1 / 300e9 + 1 / (8 * 6.25e9)))


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('v5:4x4', "unknown chip 'v5': did you mean 'v5"),
    ('v6p:2x2', 'unknown chip'),
    ('v5e-8', "did you mean 'v5e'? (a name is such as v5e:4x4"),
    ('cpux:8', "did you mean 'cpu'?"),
    ('gpu:h100', 'expected a name such as'),
    ('v5e:4x4x4', 'v5e is a torus of 2 axes, expected v5e:4x4'),
    ('v5p:4x4', 'v5p is a torus of 3 axes, expected v5p:4x4x4'),
    ('v5e:4x4*0', 'v5e is a torus'),
    ('', '(a name is such as'),
    ('v5e:4x', 'expected a name such as v5e:4x4'),
  ],
)
def test_a_name_of_no_topology_is_refused_with_the_nearest(name, message):
  with pytest.raises(UsageError, match='--topology=') as error:
    chips.check_name(name)
  assert message in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  'name', ['v4:2x2x1', 'v5e:4x4', 'v5e:16x16*4', 'v5p:4x4x4', 'v6e:2x4', 'cpu', 'cpu:8', 'gpu', 'gpu:2']
)
def test_names_of_topologies(name):
  chips.check_name(name)
  assert chips.is_tpu(name) is name.startswith('v')


def test_devices_that_are_here_and_those_that_are_not():
  assert len(chips.topology('cpu').devices) == 8
  assert chips.topology('cpu:4').devices == jax.devices()[:4]
  assert chips.topology(None).name == 'cpu:8'
  for name, message in (
    ('cpu:9', 'there are 8 devices here'),
    ('cpu:0', 'expected 1 to 8'),
    ('gpu', 'there is no GPU'),
  ):
    with pytest.raises(UsageError, match=message):
      chips.topology(name)
