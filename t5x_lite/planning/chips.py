"""Published figures of accelerators, and topologies by name: `v5e:4x4`, `v5p:4x4x4*2`, `cpu:8`, `gpu`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.partitioning.mesh import count_slices, slice_of
from t5x_lite.training import flops

_GIB = 2**30
_COPIES = 5
_CHIPS_OF_HOST = 4
_TPU = re.compile(r'(?P<chip>[a-z]\w*):(?P<dims>\d+(?:x\d+)*)(?:\*(?P<slices>\d+))?')
_LOCAL = re.compile(r'(?P<platform>cpu|gpu)(?::(?P<count>\d+))?')
_EXAMPLES = 'v5e:4x4, v5p:4x4x4, v5e:16x16*2 (two slices), cpu:8 or gpu'


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one device can do.

  Attributes:
    name: as in the name of a topology.
    peak_flops: bfloat16 multiply-adds times two a second; None if unknown.
    memory_bytes: that a program may use; None if unknown.
    memory_bandwidth: bytes a second of main memory; None if unknown.
    link_bandwidth: bytes a second that it sends over one link to a neighbour; None if unknown.
    network_bandwidth: bytes a second that it sends to another slice, its share of its host's network.
    dims: of the torus; 0: not a torus, all devices of a host are one link apart.
    wraps: an axis of the torus is closed to a ring where its length is a multiple of this.
    options: what the compiler wants to be told of it.
  """

  name: str
  peak_flops: float | None
  memory_bytes: int | None
  memory_bandwidth: float | None
  link_bandwidth: float | None
  network_bandwidth: float | None = None
  dims: int = 0
  wraps: int = 1
  options: tuple[tuple[str, Any], ...] = ()

  def links(self, axis_lengths: Iterable[int]) -> int:
    """How many links a ring over these axes of the torus can send on at a time."""
    if not self.dims:
      return 1
    return sum(2 if length % self.wraps == 0 else 1 for length in axis_lengths) or 1


# Memory is what the compiler of libtpu 0.0.52 lets a program have ("available HBM"), in GiB. Data sheets
# have 16 (v5e), 32 (v4 and v6e) and 95 (v5p). The rest is of cloud.google.com/tpu/docs/v4, /v5e,
# /v5p and /v6e: bandwidth of HBM, of all links together (2400, 1600, 4800 and 3200 Gbit/s each way over 6, 4, 6 and 4
# links), and of the data centre's network per pod, divided by the chips of a pod. A v4 device is a chip of two cores.
TPUS = {
  'v4': Chip('v4', 275e12, int(30.75 * _GIB), 1228e9, 50e9, 6.25e9, 3, 4, (('chip_config_name', 'megacore'),)),
  'v5e': Chip('v5e', 197e12, int(15.75 * _GIB), 819e9, 50e9, 3.125e9, 2, 16),
  'v5p': Chip('v5p', 459e12, int(95.73 * _GIB), 2765e9, 100e9, 6.25e9, 3, 4),
  'v6e': Chip('v6e', 918e12, int(31.24 * _GIB), 1640e9, 100e9, 12.5e9, 2, 16),
}

# Memory and NVLink (each way) bandwidth in GB/s, from NVIDIA's data sheets. Names as in `training.flops`.
_GPUS = {
  'B200': (8000, 900),
  'GH200': (4000, 450),
  'H200': (4800, 450),
  'H100 NVL': (3900, 300),
  'H100 PCIe': (2000, 64),
  'H100': (3350, 450),
  'A100-SXM4-40GB': (1555, 300),
  'A100-PCIE-40GB': (1555, 300),
  'A100': (2039, 300),
  'L40S': (864, 32),
  'L4': (300, 32),
  'A10G': (600, 32),
  'T4': (320, 16),
  'V100': (900, 150),
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices to compile for.

  Attributes:
    name: as asked for.
    chip: of all of them.
    devices: in no particular order; need not be there.
  """

  name: str
  chip: Chip
  devices: Sequence[jax.Device]

  @property
  def num_slices(self) -> int:
    """How many slices the devices are of; between them there is a network, and no links."""
    return count_slices(self.devices)

  def bandwidth(self, mesh: jax.sharding.Mesh, axes: Sequence[str]) -> float | None:
    """Bytes a second that a device sends in a ring over these axes of a mesh; None if unknown.

    Over several slices the devices of each send all bytes among themselves, and then every one its share of them from
    slice to slice.
    """
    dims = [list(mesh.axis_names).index(axis) for axis in axes]
    size = math.prod(mesh.devices.shape[dim] for dim in dims)
    group = np.moveaxis(mesh.devices, dims, range(len(dims))).reshape(size, -1)[:, 0]
    slices = [slice_of(device) for device in group]
    within = [device for device, number in zip(group, slices, strict=True) if number == slices[0]]
    if len(within) == len(group):
      return self._links(group)
    between, inside = self.chip.network_bandwidth, self._links(within) if len(within) > 1 else None
    if between is None or inside is None:
      return between
    return 1 / (1 / inside + 1 / (between * len(within)))

  def _links(self, group: Sequence[Any]) -> float | None:
    """The same of devices of one slice."""
    if self.chip.link_bandwidth is None:
      return None
    places = [getattr(device, 'coords', None) for device in group]
    if not self.chip.dims or any(place is None for place in places):
      return self.chip.link_bandwidth
    lengths = [len(set(along)) for along in zip(*places, strict=True)]
    return self.chip.link_bandwidth * self.chip.links(length for length in lengths if length > 1)


def check_name(name: str) -> None:
  """Raises UsageError unless a topology may be called so; loads no compiler."""
  if _LOCAL.fullmatch(name):
    return
  found, known = _TPU.fullmatch(name), [*TPUS, 'cpu', 'gpu']
  kind = name.partition(':')[0]
  if found is None and kind in known:
    raise errors.UsageError(f'--topology={name}: expected a name such as {_EXAMPLES}')
  if found is None or kind not in TPUS:
    raise errors.UsageError(f'--topology={name}: {errors.unknown("chip", kind, known)} (a name is such as {_EXAMPLES})')
  dims, chip = _dims(found['dims']), TPUS[found['chip']]
  if len(dims) != chip.dims or min(dims) < 1 or int(found['slices'] or 1) < 1:
    example = 'x'.join(['4'] * chip.dims)
    raise errors.UsageError(
      f'--topology={name}: {chip.name} is a torus of {chip.dims} axes, expected {chip.name}:{example} or alike'
    )


def _dims(text: str) -> list[int]:
  return [int(part) for part in text.split('x')]


def is_tpu(name: str | None) -> bool:
  """Whether a topology is one of TPUs, which need not be there."""
  return name is not None and _LOCAL.fullmatch(name) is None


def prepare(name: str | None) -> None:
  """What has to be said before JAX looks for devices: which platform, and that the TPU compiler works without a TPU.

  Args:
    name: of a topology that `check_name` lets pass; None: the local devices.
  """
  if name is None:
    return
  local = _LOCAL.fullmatch(name)
  if local is None or local['platform'] == 'cpu':
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    _unless_started('jax_platforms', 'cpu')
  if local is not None and local['platform'] == 'cpu' and local['count']:
    _unless_started('jax_num_cpu_devices', int(local['count']))
  if local is None:
    # No questions to a metadata server, which may not be there, and no lock on a TPU that nobody uses.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-8')  # Any will do: the topology says what is compiled for.


def _unless_started(option: str, value: Any) -> None:
  """Sets an option of JAX that says which devices there are; once they are there, they stay what they are."""
  with contextlib.suppress(RuntimeError):
    jax.config.update(option, value)


def topology(name: str | None) -> Topology:
  """The topology called `name`; None: the local devices.

  Raises:
    UsageError: no such topology, no compiler for it, or fewer devices here than it has.
  """
  if name is None:
    devices = jax.devices()
    return Topology(f'{devices[0].platform}:{len(devices)}', _local_chip(devices[0]), devices)
  check_name(name)
  local = _LOCAL.fullmatch(name)
  if local is None:
    return _tpu(name)
  try:
    devices = jax.devices(local['platform'])
  except RuntimeError as error:
    raise errors.UsageError(f'--topology={name}: there is no {local["platform"].upper()} here') from error
  count = int(local['count'] or len(devices))
  if not 0 < count <= len(devices):
    raise errors.UsageError(f'--topology={name}: there are {len(devices)} devices here, expected 1 to {len(devices)}')
  return Topology(name, _local_chip(devices[0]), devices[:count])


def _tpu(name: str) -> Topology:
  from jax.experimental import topologies

  found = _TPU.fullmatch(name)
  assert found is not None
  chip = TPUS[found['chip']]
  options: dict[str, Any] = dict(chip.options)
  dims = [int(size) for size in found['dims'].split('x')]
  if math.prod(dims) < _CHIPS_OF_HOST:
    options['chips_per_host_bounds'] = (*dims, *(1,) * (3 - len(dims)))
  if int(found['slices'] or 1) > 1:
    options['num_slices'] = int(found['slices'])
  try:
    made = topologies.get_topology_desc(platform='tpu', topology_name=f'{chip.name}:{found["dims"]}', **options)
  except Exception as error:  # jaxlib raises whatever its plug-ins do.
    text = ' '.join(str(error).split())
    if 'INVALID_ARGUMENT' in text:
      raise errors.UsageError(f'--topology={name}: the TPU compiler knows no such slice ({text[:160]})') from error
    raise errors.UsageError(
      f'--topology={name} needs the TPU compiler, which works without a TPU: pip install "t5x_lite[tpu]" ({text[:160]})'
    ) from error
  return Topology(name, chip, list(made.devices))


def _local_chip(device: jax.Device) -> Chip:
  """What is known of a device that is here."""
  if device.platform == 'cpu':
    # The devices of a CPU share its memory and its cores; what they send each other goes through that memory.
    share = _copy_bandwidth() / jax.local_device_count()
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // jax.local_device_count()
    return Chip('cpu', flops.peak_flops(device), memory, share, share)
  peak = flops.peak_flops(device)
  limit = (device.memory_stats() or {}).get('bytes_limit')
  if device.platform == 'tpu':
    known = next((chip for chip in TPUS.values() if chip.peak_flops == peak), None)
    return (
      dataclasses.replace(known, memory_bytes=limit or known.memory_bytes)
      if known
      else Chip('tpu', peak, limit, None, None)
    )
  kind = device.device_kind
  rates = next((rates for name, rates in _GPUS.items() if re.search(rf'\b{name}\b', kind, re.IGNORECASE)), None)
  memory_rate, link_rate = (rates[0] * 1e9, rates[1] * 1e9) if rates else (None, None)
  return Chip(kind, peak, limit, memory_rate, link_rate)


def _copy_bandwidth() -> float:
  """Bytes a second that this machine's memory reads and writes, as the fastest of a few copies of 64 MiB shows."""
  source = np.ones(2**26, np.uint8)
  target = source.copy()  # Its pages are there from now on.
  best = float('inf')
  for _ in range(_COPIES):
    start = time.perf_counter()
    np.copyto(target, source)
    best = min(best, time.perf_counter() - start)
  return 2 * source.nbytes / best
