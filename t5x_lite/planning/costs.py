"""What the instructions of a compiled program cost a device: multiply-adds, and bytes read from and written to memory.

Counted from the program that runs, so that what is computed again, or by several devices alike, is in it. What a model
needs at least is `flops_per_step`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator

from t5x_lite.planning import collectives, hlo

_FREE = frozenset((
  'parameter', 'constant', 'bitcast', 'get-tuple-element', 'tuple', 'while', 'conditional', 'call', 'after-all',
  'partition-id', 'replica-id', 'optimization-barrier', 'copy-done', 'slice-done', 'async-start', 'async-done',
  'async-update',
))  # fmt: skip
_SLICES = ('dynamic-slice', 'slice', 'gather')
_FREE_CALLS = ('AllocateBuffer', 'ConcatBitcast', 'AssumeGatherIndicesInBound', 'AsyncCollectiveStart', 'Sharding')


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one instruction, run once on one device.

  Attributes:
    times: how often it runs.
    flops: two for each multiply-add of a matrix product.
    bytes: read from and written to the device's main memory.
  """

  times: int
  flops: float
  bytes: float


def costs(program: hlo.Program) -> Iterator[Cost]:
  """Of every instruction that takes time, but those of collectives."""
  fused = program.called_by('fusion')
  for name, computation in program.computations.items():
    times = program.counts[name]
    if name in fused or not times:
      continue
    for line in computation.instructions.values():
      cost = Cost(times, _flops(program, computation, line), _bytes(program, computation, line))
      if cost.flops or cost.bytes:
        yield cost


# --- Matrix products --------------------------------------------------------------------------------------------------


def _flops(program: hlo.Program, computation: hlo.Computation, line: hlo.Instruction) -> float:
  match line.opcode:
    case 'fusion':
      inside = program.computations[line.called['calls']]
      return sum(_flops(program, inside, part) for part in inside.instructions.values())
    case 'dot':
      return _dot_flops(computation, line)
    case 'convolution':
      return _convolution_flops(computation, line)
    case 'custom-call':
      return _custom_call_flops(computation, line)
  return 0.0


def _dims(computation: hlo.Computation, line: hlo.Instruction, index: int) -> tuple[int, ...]:
  operand = computation.operand(line, index)
  return operand.arrays[0].dims if operand is not None and operand.arrays else ()


def _dot_flops(computation: hlo.Computation, line: hlo.Instruction) -> float:
  left = _dims(computation, line, 0)
  found = line.attribute(r'lhs_contracting_dims=\{([\d,]*)\}')
  summed = [left[int(dim)] for dim in found[1].split(',') if dim] if found else []
  return 2.0 * line.arrays[0].size * math.prod(summed)


def _convolution_flops(computation: hlo.Computation, line: hlo.Instruction) -> float:
  """A TPU writes matrix products as convolutions: batch axes are windows that meet one position only, others padding.

  So of every spatial axis those pairs of output and kernel positions are counted that meet an element of the input.
  """
  labels = line.attribute(r'dim_labels=(\w+)_(\w+)->(\w+)')
  left, kernel = _dims(computation, line, 0), _dims(computation, line, 1)
  if labels is None or not left or not kernel:
    return 0.0
  total = 2.0 * kernel[labels[2].index('i')]
  out = dict(zip(labels[3], line.arrays[0].dims, strict=True))
  total *= out.pop('b') * out.pop('f')
  window = {
    name: [int(part.partition('_')[0]) for part in text.split('x')]
    for name, text in re.findall(r'(\w+)=([\-\d_x]+)', (line.attribute(r'window=\{([^}]*)\}') or ['', ''])[1])
  }
  for axis in sorted(out):
    at = int(axis)
    total *= _meetings(
      inputs=left[labels[1].index(axis)],
      outputs=out[axis],
      size=kernel[labels[2].index(axis)],
      stride=window['stride'][at] if 'stride' in window else 1,
      before=window['pad'][at] if 'pad' in window else 0,
      input_dilation=window['lhs_dilate'][at] if 'lhs_dilate' in window else 1,
      kernel_dilation=window['rhs_dilate'][at] if 'rhs_dilate' in window else 1,
    )
  return total


def _meetings(
  *, inputs: int, outputs: int, size: int, stride: int, before: int, input_dilation: int, kernel_dilation: int
) -> int:
  """How many pairs of a place in the output and one in the kernel meet an element of the input along an axis."""
  count, span = 0, (inputs - 1) * input_dilation
  for place in range(outputs):
    for offset in range(size):
      position = place * stride + offset * kernel_dilation - before
      count += 0 <= position <= span and position % input_dilation == 0
  return count


def _custom_call_flops(computation: hlo.Computation, line: hlo.Instruction) -> float:
  """Of a library's matrix product, or as the writer of a kernel estimates; 0 where nothing is known."""
  found = line.attribute(r'custom_call_target="([^"]*)"')
  target = found[1] if found else ''
  estimate = line.attribute(r'"cost_estimate":\{[^}]*"flops":"?([\d.e+]+)')
  if estimate:
    return float(estimate[1])
  summed = line.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
  left = _dims(computation, line, 0)
  if summed and left:
    dims = [int(dim) for dim in json.loads(f'[{summed[1]}]')]
    return 2.0 * line.arrays[0].size * math.prod(left[dim] for dim in dims)
  if target.startswith('__onednn$matmul') and left:
    return 2.0 * line.arrays[0].size * left[-1]
  return 0.0


# --- Memory -----------------------------------------------------------------------------------------------------------


def _bytes(program: hlo.Program, computation: hlo.Computation, line: hlo.Instruction) -> float:
  if line.opcode in _FREE or line.opcode.removesuffix('-start').removesuffix('-done') in collectives.KINDS:
    return 0.0
  if line.opcode == 'custom-call' and any(f'"{target}' in line.attributes for target in _FREE_CALLS):
    return 0.0
  if line.opcode == 'fusion':
    inside = program.computations[line.called['calls']]
    if any(part.opcode in collectives.KINDS for part in inside.instructions.values()):
      return 0.0
    return sum(_read(inside, inside.parameters[i]) for i in inside.parameters) + _written(inside, inside.root)
  moved = _moved(computation, line)
  if moved is not None:
    return moved
  operands = (
    computation.instructions[name] for name in dict.fromkeys(line.operands) if name in computation.instructions
  )
  return float(_main(line.arrays) + sum(_main(operand.arrays) for operand in operands))


def _main(arrays: tuple[hlo.Array, ...]) -> int:
  """Bytes of what lies in main memory."""
  return sum(array.bytes for array in arrays if array.space == 0)


def _moved(computation: hlo.Computation, line: hlo.Instruction) -> float | None:
  """Of instructions that touch only a part of what they are given; None for others."""
  match line.opcode:
    case 'dynamic-slice' | 'slice' | 'gather':
      source = computation.operand(line, 0)
      return float(_main(line.arrays) + (line.arrays[0].bytes if source and _main(source.arrays) else 0))
    case 'dynamic-update-slice' | 'scatter':
      update = computation.operand(line, 1 if line.opcode == 'dynamic-update-slice' else 2)
      return 2.0 * update.arrays[0].bytes if update and _main(line.arrays) else 0.0
    case 'copy-start' | 'slice-start':
      source = computation.operand(line, 0)
      moved = min((array.bytes for array in line.arrays[:2] if array.dims), default=0)
      both = [*(source.arrays[:1] if source else ()), *line.arrays[:2]]
      return float(moved * (1 + all(array.space == 0 for array in both)))
    case 'broadcast' | 'iota':
      return float(_main(line.arrays))
  return None


def _read(inside: hlo.Computation, parameter: hlo.Instruction) -> float:
  """Bytes that a fusion reads of one of its operands: only the slices, where it takes slices alone."""
  whole = _main(parameter.arrays)
  users = inside.users[parameter.name]
  if not whole or not users:
    return 0.0
  read = 0
  for user in users:
    first = user.operands[0] == parameter.name
    if user.opcode in _SLICES and first:
      read += user.arrays[0].bytes
    elif not (user.opcode == 'dynamic-update-slice' and first):
      return float(whole)
  return float(min(read, whole))


def _written(inside: hlo.Computation, root: hlo.Instruction) -> float:
  """Bytes that a fusion writes: of an array that is changed in place, what is changed."""
  if root.opcode == 'tuple':
    return sum(_written(inside, inside.instructions[name]) for name in root.operands)
  while root.opcode in ('bitcast', 'convert') and root.operands:
    changed = inside.instructions[root.operands[0]]
    if changed.opcode not in ('bitcast', 'dynamic-update-slice'):
      break
    root = changed
  if root.opcode == 'dynamic-update-slice' and len(root.operands) > 1:
    return float(inside.instructions[root.operands[1]].arrays[0].bytes if _main(root.arrays) else 0)
  return float(_main(root.arrays))
