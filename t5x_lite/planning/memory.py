"""Memory of a device by what it holds, from the shardings of the state and from the compiled program."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax

from t5x_lite.partitioning import offload
from t5x_lite.planning import hlo

BACKWARD = 'transpose('  # in the names that JAX gives to what a backward pass computes

_SUFFIXES = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_NEEDED = (
  re.compile(r'total memory required for (?P<what>[\w ]+) \((?P<bytes>[\d.]+)(?P<unit>[KMGT]?)i?B?\)'),
  re.compile(r'Used (?P<bytes>[\d.]+)(?P<unit>[KMGT]?)i?B? of [\d.]+[KMGT]?i?B? hbm'),
)


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device.

  Attributes:
    parameters: its part of the parameters.
    optimizer: its part of the optimiser's state, the step and the key of dropout included.
    activations: what the forward pass computes of the batch and the backward pass reads (see `activation_bytes`); 0
      where nothing is kept for a backward pass, as in evaluation.
    temporaries: all else at the peak: gradients, what a layer needs while it runs, gathered parameters, the batch,
      caches of decoding, the program itself.
    limit: what the compiler may use; None where it is not known.
    estimated: whether activations and temporaries were not read off a compiled program but estimated.
  """

  parameters: int
  optimizer: int
  activations: int
  temporaries: int
  limit: int | None
  estimated: bool = False

  @property
  def total(self) -> int:
    """All of it."""
    return self.parameters + self.optimizer + self.activations + self.temporaries

  @property
  def fits(self) -> bool:
    """Whether it is within the limit; True where there is none."""
    return self.limit is None or self.total <= self.limit


def shard_bytes(tree: Any) -> int:
  """Bytes of `jax.ShapeDtypeStruct`s with shardings that lie on one device, without what waits on the host."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
    if leaf.sharding.memory_kind != offload.HOST
  )


def compiled_memory(
  compiled: jax.stages.Compiled, program: hlo.Program, parameters: int, optimizer: int, limit: int | None
) -> Memory:
  """The memory of a compiled step.

  Args:
    compiled: the step.
    program: its text, read.
    parameters: bytes of parameters on a device.
    optimizer: bytes of the optimiser's state there, 0 where the step has none.
    limit: what a device has.
  """
  stats = compiled.memory_analysis()
  total = stats.argument_size_in_bytes + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
  total += stats.output_size_in_bytes - stats.alias_size_in_bytes
  activations = min(activation_bytes(program), stats.temp_size_in_bytes)
  rest = max(total - parameters - optimizer - activations, 0)
  return Memory(parameters, optimizer, activations, rest, limit)


def needed_bytes(message: str, arguments: int) -> int | None:
  """What a compiler says it would have needed when it gave up for want of memory; None if it does not say.

  Args:
    message: of the error.
    arguments: bytes of the arguments of the step, which some of the messages leave out.
  """
  for pattern in _NEEDED:
    found = pattern.search(message)
    if found:
      needed = round(float(found['bytes']) * _SUFFIXES[found['unit']])
      return needed + (arguments if 'temporaries' in found.groupdict().get('what', '') else 0)
  return None


def activation_bytes(program: hlo.Program) -> int:
  """Bytes that are kept for the backward pass: made of the batch by the forward pass, and read by the backward one.

  Looked for where both passes are called: at the top of the program, or in the body of the loop over microbatches; the
  residuals of a scanned stack are results of its loop there, with their axis of layers. A value counts if an
  instruction outside the backward pass makes it and one of the backward pass reads it; not if it is made of parameters
  alone (copies in half precision, gathered parameters), nor if it lies in a TPU's VMEM.
  """
  most, waiting = 0, [_Kept(program, program.entry, None)]
  while waiting:
    kept = waiting.pop()
    most = max(most, kept.bytes())
    waiting += kept.loops()
  return most


Place = tuple[str, int]  # An instruction, and which array of its result.


class _Kept:
  """What one computation keeps for its backward pass.

  Args:
    program: the whole.
    computation: a part of it.
    of_batch: which arrays of its parameters the batch has a part in; None for the entry, whose parameters have names.
  """

  def __init__(self, program: hlo.Program, computation: hlo.Computation, of_batch: set[Place] | None):
    self._program, self._computation, self._given = program, computation, of_batch
    self._of_batch: dict[Place, bool] = {}

  def bytes(self) -> int:
    """Of all that is kept, each place once."""
    kept: dict[Place, int] = {}
    for line in self._computation.instructions.values():
      if BACKWARD not in line.op_name or hlo.is_view(line):
        continue
      for name in line.operands:
        for place in self._sources(self._computation.instructions[name]):
          maker = self._computation.instructions[place[0]]
          if maker.opcode == 'parameter' or BACKWARD in maker.op_name or place in kept:
            continue
          if maker.arrays[place[1]].space == 0 and self._made_of_batch(place):
            kept[place] = maker.arrays[place[1]].bytes
    return sum(kept.values())

  def loops(self) -> list[_Kept]:
    """The bodies of loops that are of neither pass, and may be over microbatches."""
    found = []
    for line in self._computation.instructions.values():
      if line.opcode != 'while' or BACKWARD in line.op_name or 'jvp(' in line.op_name:
        continue
      body = self._program.computations[line.called['body']]
      state = self._computation.operand(line, 0)
      values = self._sources(state) if state is not None else []
      parameter = body.parameters[0].name
      of_batch = {(parameter, index) for index, value in enumerate(values) if self._made_of_batch(value)}
      found.append(_Kept(self._program, body, of_batch))
    return found

  def _sources(self, line: hlo.Instruction) -> list[Place]:
    """Where the values of an instruction really lie, views looked through."""
    match line.opcode:
      case 'tuple' | 'optimization-barrier':
        return [place for name in line.operands for place in self._sources(self._computation.instructions[name])]
      case 'bitcast' | 'copy-done' | 'copy-start' | 'copy':
        operand = self._computation.operand(line, 0)
        return self._sources(operand) if operand is not None else []
      case 'get-tuple-element':
        return self._element(line)
    return [(line.name, index) for index in range(len(line.arrays))]

  def _element(self, line: hlo.Instruction) -> list[Place]:
    maker = self._computation.operand(line, 0)
    if maker is None:
      return []
    if maker.opcode == 'tuple':
      return self._sources(self._computation.instructions[maker.operands[line.index]])
    if maker.opcode == 'while':
      body = self._program.computations[maker.called['body']]
      same = body.operand(body.root, line.index)
      state = self._computation.operand(maker, 0)
      if same is not None and same.opcode == 'get-tuple-element' and same.index == line.index:
        carried = (body.operand(same, 0) or same).opcode == 'parameter'
        if carried and state is not None and state.opcode == 'tuple':
          return self._sources(self._computation.instructions[state.operands[line.index]])
    return [(maker.name, line.index)]

  def _made_of_batch(self, place: Place) -> bool:
    """Whether the batch has a part in the value at a place."""
    if place not in self._of_batch:
      line = self._computation.instructions[place[0]]
      self._of_batch[place] = False  # No value needs itself; this only keeps a long chain from being walked twice.
      if line.opcode == 'parameter':
        self._of_batch[place] = place in self._given if self._given is not None else 'batch' in line.op_name
      else:
        sources = (source for operand in self._read_for(line, place[1]) for source in self._sources(operand))
        self._of_batch[place] = any(self._made_of_batch(source) for source in sources)
    return self._of_batch[place]

  def _read_for(self, line: hlo.Instruction, index: int) -> list[hlo.Instruction]:
    """The operands that an array of a result depends on: of a fusion with several results, those of that result."""
    names = line.operands
    if line.opcode == 'fusion':
      inside = self._program.computations[line.called['calls']]
      if inside.root.opcode == 'tuple' and len(inside.root.operands) == len(line.arrays):
        needed, waiting = set(), [inside.root.operands[index]]
        while waiting:
          name = waiting.pop()
          if name not in needed:
            needed.add(name)
            waiting += inside.instructions[name].operands
        names = tuple(names[i] for i, parameter in inside.parameters.items() if parameter.name in needed)
    return [self._computation.instructions[name] for name in names if name in self._computation.instructions]
