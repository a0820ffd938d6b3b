"""Reads the text of a compiled program (XLA's HLO): its instructions, their shapes, and how often each of them runs.

XLA's own `cost_analysis` counts the body of a loop once; a scanned stack of layers is such a loop.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r'^(ENTRY )?%(\S+) \(.*\{\s*$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%(\S+) = ')
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?')
_SPACE = re.compile(r'S\((\d+)\)')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(r'\b(calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)')
_BRANCHES = re.compile(r'\bbranch_computations=\{([^}]*)\}')
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_OP_NAME = re.compile(r'\bop_name="((?:[^"\\]|\\.)*)"')
_COMMENT = re.compile(r'/\*.*?\*/')
_BITS = {'pred': 8, 'token': 0, 'opaque': 0}
_VIEWS = ('bitcast', 'get-tuple-element', 'tuple', 'optimization-barrier')


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a shape.

  Attributes:
    dtype: as HLO has it, such as `bf16`.
    dims: its dimensions.
    space: memory it lies in: 0 is the device's main memory, on TPU 1 is VMEM.
  """

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    """Without padding of its layout."""
    return -(-self.size * _bits(self.dtype) // 8)


@functools.cache
def _bits(dtype: str) -> int:
  found = re.match(r'[a-z]+(\d+)', dtype)
  return _BITS.get(dtype, int(found[1]) if found else 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
  """One line of a computation.

  Attributes:
    name: unique in its computation.
    opcode: such as `all-gather-start`.
    arrays: of its result, a tuple flattened.
    operands: names of instructions of the same computation.
    text: what is between the brackets of the operands.
    attributes: the rest of the line.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  text: str
  attributes: str

  @functools.cached_property
  def called(self) -> dict[str, str]:
    """The computations that it calls, by role."""
    roles = dict(_CALLED.findall(self.attributes))
    branches = _BRANCHES.search(self.attributes)
    if branches:
      roles |= {f'branch_{i}': name for i, name in enumerate(_NAME.findall(branches[1]))}
    return roles

  @functools.cached_property
  def op_name(self) -> str:
    """Which operation of the model it comes from, as JAX names it; empty where XLA does not say."""
    found = _OP_NAME.search(self.attributes)
    return found[1] if found else ''

  def attribute(self, pattern: str) -> re.Match[str] | None:
    """The first match of a pattern in the attributes."""
    return re.search(pattern, self.attributes)

  @property
  def index(self) -> int:
    """Of a `get-tuple-element` and a `parameter`, which one."""
    found = self.attribute(r'\bindex=(\d+)') if self.opcode == 'get-tuple-element' else re.match(r'\d+', self.text)
    assert found is not None, self.name
    return int(found[1] if found.groups() else found[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Computation:
  """A list of instructions, in the order in which they run.

  Attributes:
    name: unique in the program.
    instructions: by name.
    root: the one whose result is that of the computation.
  """

  name: str
  instructions: dict[str, Instruction]
  root: Instruction

  def operand(self, instruction: Instruction, index: int) -> Instruction | None:
    """An operand, None where the text has no such one."""
    names = instruction.operands
    return self.instructions.get(names[index]) if index < len(names) else None

  @functools.cached_property
  def parameters(self) -> dict[int, Instruction]:
    """Its parameters by number."""
    return {line.index: line for line in self.instructions.values() if line.opcode == 'parameter'}

  @functools.cached_property
  def users(self) -> dict[str, list[Instruction]]:
    """Who reads the result of an instruction."""
    found: dict[str, list[Instruction]] = collections.defaultdict(list)
    for line in self.instructions.values():
      for name in dict.fromkeys(line.operands):
        found[name].append(line)
    return found

  def constant(self, instruction: Instruction | None) -> int | None:
    """The value of a whole number that is known at compile time, through copies; None for anything else."""
    while instruction is not None and instruction.opcode in ('copy', 'bitcast', 'convert'):
      instruction = self.operand(instruction, 0)
    if instruction is None or instruction.opcode != 'constant' or not re.fullmatch(r'-?\d+', instruction.text):
      return None
    return int(instruction.text)


class Program:
  """A compiled program.

  Attributes:
    computations: by name.
    entry: where it begins.
    counts: how often a computation runs in one call of the program; those of loops as often as they go round.

  Args:
    text: as `jax.stages.Compiled.as_text` gives it.
  """

  def __init__(self, text: str):
    self.computations = {computation.name: computation for computation in _computations(text)}
    self.entry = self.computations[_entry_name(text)]
    self.counts = self._counts()

  def _counts(self) -> dict[str, int]:
    counts: dict[str, int] = collections.defaultdict(int)
    counts[self.entry.name] = 1
    for name in reversed(self.computations):  # what is called is printed before its caller
      for line in self.computations[name].instructions.values():
        times = counts[name] * (self.trip_count(self.computations[name], line) if line.opcode == 'while' else 1)
        for role, called in line.called.items():
          again = line.opcode in ('async-update', 'async-done')  # of what an `async-start` has begun
          if not again and (role != 'to_apply' or line.opcode == 'call'):
            counts[called] += times
    return counts

  def trip_count(self, computation: Computation, loop: Instruction) -> int:
    """How often a `while` goes round: as XLA says, or from its counter; the most where it may stop earlier.

    1 where neither tells.
    """
    known = _TRIP_COUNT.search(loop.attributes)
    if known:
      return int(known[1])
    bound = self._bound(self.computations[loop.called['condition']])
    if bound is None:
      return 1
    index, limit = bound
    start, step = 0, 1
    if index is not None:
      start = self._initial(computation, loop, index)
      step = self._step(self.computations[loop.called['body']], index)
    return max(-(-(limit - start) // step), 0)

  def _bound(self, condition: Computation) -> tuple[int | None, int] | None:
    """`(which element of the loop's state, its limit)` of a condition `element < limit`."""
    for line in condition.instructions.values():
      limit = condition.constant(condition.operand(line, 1)) if line.opcode == 'compare' else None
      if limit is not None and line.attribute(r'\bdirection=LT'):
        counter = condition.operand(line, 0)
        while counter is not None and counter.opcode in ('copy', 'bitcast'):
          counter = condition.operand(counter, 0)
        if counter is not None and counter.opcode == 'get-tuple-element':
          return counter.index, limit
    inside = [
      condition,
      *(self.computations[name] for line in condition.instructions.values() for name in line.called.values()),
    ]
    if not any(line.opcode == 'compare' for part in inside for line in part.instructions.values()):
      return None
    numbers = (part.constant(line) for part in inside for line in part.instructions.values() if _is_counter(line))
    found = [number for number in numbers if number is not None]
    return (None, max(found)) if found else None

  def _initial(self, computation: Computation, loop: Instruction, index: int) -> int:
    """The value of an element of a loop's state before the first round; 0 where that is not known."""
    state = computation.operand(loop, 0)
    if state is None or state.opcode != 'tuple':
      return 0
    return computation.constant(computation.operand(state, index)) or 0

  def _step(self, body: Computation, index: int) -> int:
    """By how much an element of a loop's state grows in a round; 1 where that is not known."""
    root = body.root
    value = body.operand(root, index) if root.opcode == 'tuple' else None
    while value is not None and value.opcode in ('copy', 'bitcast'):
      value = body.operand(value, 0)
    if value is None or value.opcode != 'add':
      return 1
    steps = [body.constant(body.operand(value, side)) for side in (0, 1)]
    return next((step for step in steps if step), 1)

  def called_by(self, opcode: str) -> set[str]:
    """The computations that instructions of this kind call: `fusion`, whose inside is one piece, or `async-start`."""
    names: set[str] = set()
    for computation in self.computations.values():
      for line in computation.instructions.values():
        if line.opcode == opcode:
          names.update(line.called.values())
    return names


def _is_counter(line: Instruction) -> bool:
  return line.opcode == 'constant' and [(array.dtype[0], array.dims) for array in line.arrays] in (
    [('s', ())],
    [('u', ())],
  )


def is_view(instruction: Instruction) -> bool:
  """Whether an instruction only gives another name to what is there."""
  return instruction.opcode in _VIEWS


def arrays(shape: str) -> tuple[Array, ...]:
  """The arrays of a shape, a tuple flattened."""
  return tuple(
    Array(
      dtype,
      tuple(int(dim.lstrip('<=')) for dim in dims.split(',') if dim),
      int(space[1]) if (space := _SPACE.search(layout)) else 0,
    )
    for dtype, dims, layout in _ARRAY.findall(shape)
  )


def _entry_name(text: str) -> str:
  found = re.search(r'^ENTRY %(\S+) \(', text, re.MULTILINE)
  assert found is not None, 'HLO without an entry'
  return found[1]


def _computations(text: str) -> Iterator[Computation]:
  name: str | None = None
  root: Instruction | None = None
  lines: dict[str, Instruction] = {}
  for line in text.splitlines():
    head = _COMPUTATION.match(line)
    if head:
      name, lines, root = head[2], {}, None
    elif name is not None and line.startswith('}'):
      assert root is not None, f'{name} without a root'
      yield Computation(name, lines, root)
      name = None
    elif name is not None and (found := _INSTRUCTION.match(line)):
      instruction = _instruction(found[2], _COMMENT.sub('', line[found.end() :]))
      lines[instruction.name] = instruction
      root = instruction if found[1] else root


def _instruction(name: str, rest: str) -> Instruction:
  shape_end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  opcode_end = rest.index('(', shape_end)
  end = _closing(rest, opcode_end)
  opcode, inside = rest[shape_end:opcode_end].strip(), rest[opcode_end + 1 : end]
  operands = () if opcode in ('constant', 'parameter') else tuple(_NAME.findall(inside))
  return Instruction(name, opcode, arrays(rest[:shape_end]), operands, inside, rest[end + 1 :])


def _closing(text: str, start: int) -> int:
  """Where the bracket that opens at `start` closes."""
  depth = 0
  for position in range(start, len(text)):
    if text[position] in '()':
      depth += 1 if text[position] == '(' else -1
      if depth == 0:
        return position
  raise AssertionError(f'brackets do not match: {text[:200]}')
