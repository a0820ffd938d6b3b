"""What the devices send each other in a compiled program: by kind, bytes and mesh axis."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Mapping

import numpy as np

from t5x_lite.planning import hlo

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')

_SPELLED = re.compile(r'\breplica_groups=\{((?:\{[\d,]*\},?)*)\}')
_IOTA = re.compile(r'\breplica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_MESH = re.compile(r'\breplica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}')
_PAIRS = re.compile(r'\bsource_target_pairs=\{((?:\{\d+,\d+\},?)*)\}')
_CHANNEL = re.compile(r'\bchannel_id=(\d+)')
_SUB_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True)
class Collective:
  """All transfers of one kind over the same mesh axes in one call of the program.

  Attributes:
    kind: one of `KINDS`.
    axes: the mesh axes along which the devices of a group differ; empty where no mesh axis explains the groups.
    is_async: whether other instructions run meanwhile.
    count: how many there are, those in loops as often as they run.
    bytes: that each device sends, by the ring algorithms: (n - 1) / n of the whole array for a gather or a scatter of
      it, twice that for an all-reduce, (n - 1) / n of its own part for an all-to-all, all of it for a permutation.
  """

  kind: str
  axes: tuple[str, ...]
  is_async: bool
  count: int
  bytes: int


def collectives(program: hlo.Program, mesh_shape: Mapping[str, int]) -> list[Collective]:
  """The collectives of a program, most bytes first.

  Args:
    program: compiled for a mesh, device i of the program being the i-th of the mesh.
    mesh_shape: size of every mesh axis, in order.
  """
  total: dict[tuple[str, tuple[str, ...], bool], list[float]] = collections.defaultdict(lambda: [0, 0.0])
  fused, begun, seen = program.called_by('fusion'), program.called_by('async-start'), set()
  for computation in program.computations.values():
    times = program.counts[computation.name]
    for line in computation.instructions.values():
      kind = line.opcode.removesuffix('-start')
      if kind not in KINDS or not times:
        continue
      if computation.name in fused:
        # A TPU cuts a collective into a fusion that starts it, some that go on and one that ends it; all name it.
        channel = line.attribute(_CHANNEL.pattern)
        if channel and channel[1] in seen:
          continue
        seen.add(channel[1] if channel else line.name)
      groups = device_groups(line, math.prod(mesh_shape.values()))
      if kind != 'collective-permute' and groups.shape[-1] == 1:
        continue
      is_async = line.opcode.endswith('-start') or computation.name in fused | begun
      counted = total[_scattered(computation, line, kind), spanned_axes(groups, mesh_shape), is_async]
      counted[0] += times
      counted[1] += times * _sent(computation, line, kind, groups.shape[-1])
  rows = [Collective(*key, round(count), round(sent)) for key, (count, sent) in total.items()]
  return sorted(rows, key=lambda row: (-row.bytes, row.kind, row.axes))


def _scattered(computation: hlo.Computation, line: hlo.Instruction, kind: str) -> str:
  """The kind, and reduce-scatter where a TPU fuses an all-reduce with the slice that each device keeps of it."""
  return 'reduce-scatter' if kind == 'all-reduce' and computation.name.startswith('all-reduce-scatter') else kind


def _sent(computation: hlo.Computation, line: hlo.Instruction, kind: str, size: int) -> float:
  """Bytes that a device sends in one collective among `size` devices."""
  operands = (computation.instructions[name] for name in line.operands if name in computation.instructions)
  own = sum(array.bytes for operand in operands for array in operand.arrays)
  match _scattered(computation, line, kind):
    case 'all-gather':
      return own * (size - 1)
    case 'all-reduce':
      return 2 * own * (size - 1) / size
    case 'collective-permute':
      return own
  return own * (size - 1) / size


def device_groups(line: hlo.Instruction, num_devices: int) -> np.ndarray:
  """Which devices a collective joins, int `[groups, devices of a group]`; the pairs `[pairs, 2]` of a permutation."""
  pairs = _PAIRS.search(line.attributes)
  if pairs:
    return np.asarray(re.findall(r'\d+', pairs[1]), int).reshape(-1, 2)
  iota = _IOTA.search(line.attributes)
  if iota:
    shape, dims, order = (_numbers(part or '') for part in iota.groups())
    ids = np.arange(math.prod(dims)).reshape(dims)
    return ids.transpose(order or range(len(dims))).reshape(shape)
  named = _MESH.search(line.attributes)
  if named:
    return _named_groups(*named.groups())
  spelled = _SPELLED.search(line.attributes)
  groups = [_numbers(part) for part in re.findall(r'\{([\d,]*)\}', spelled[1])] if spelled else []
  return np.asarray(groups if groups and all(groups) else [range(num_devices)], int)


def _numbers(text: str) -> list[int]:
  return [int(part) for part in text.split(',') if part]


def _named_groups(axes: str, device_ids: str | None, grouped: str) -> np.ndarray:
  """Groups along axes of XLA's own mesh, such as `mesh['a'=4,'b'=2] {'a'}`, or parts of them: `'a':(1)2`."""
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
  ids = _listed_ids(device_ids) if device_ids else np.arange(math.prod(sizes.values()))
  wanted = {(name, int(before or 1), int(size or sizes[name])) for name, before, size in _SUB_AXIS.findall(grouped)}
  dims: list[int] = []
  inside: list[int] = []
  for name, length in sizes.items():  # every axis is cut where a part of it begins or ends
    cuts = {1, length}
    for _, before, size in (part for part in wanted if part[0] == name):
      cuts |= {before, before * size}
    edges = sorted(cuts)
    for low, high in itertools.pairwise(edges):
      if any(before <= low and high <= before * size for axis, before, size in wanted if axis == name):
        inside.append(len(dims))
      dims.append(high // low)
  outside = [dim for dim in range(len(dims)) if dim not in inside]
  return ids.reshape(dims).transpose(outside + inside).reshape(-1, math.prod(dims[dim] for dim in inside))


def _listed_ids(text: str) -> np.ndarray:
  """Device numbers in the order of a mesh: `[2,4]T(1,0)`, numbers from 0 transposed, or one by one: `0,2,1,3`."""
  iota = re.fullmatch(r'\[([\d,]+)\](?:T\(([\d,]+)\))?', text)
  if iota is None:
    return np.asarray(_numbers(text), int)
  dims, order = _numbers(iota[1]), _numbers(iota[2] or '')
  return np.arange(math.prod(dims)).reshape(dims).transpose(order or range(len(dims))).ravel()


def spanned_axes(groups: np.ndarray, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
  """The mesh axes along which the devices of some group differ."""
  places = np.stack(np.unravel_index(groups, tuple(mesh_shape.values())), axis=-1)
  differs = (places != places[:, :1]).any(axis=(0, 1))
  return tuple(name for name, spans in zip(mesh_shape, differs, strict=True) if spans)
