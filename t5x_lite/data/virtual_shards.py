"""A virtual shard: one of the fixed number of independent streams of rows that the global batch is made of.

Each is mixed, corrupted and packed on its own, so that whoever reads it reads the same rows: how many hosts there are,
and which of them reads what, changes nothing. Its state is a few ints for each task and each example in an open row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.data import features, packing, randomness, streams

_DRAWS_PER_BLOCK = 512


class PartChoice:
  """Which part of a mixture the n-th example of a shard comes from, at random by the parts' shares.

  Args:
    shares: of the parts, adding up to 1.
    seed: of the run.
    shard: index of the virtual shard.
  """

  def __init__(self, shares: Sequence[float], seed: int, shard: int):
    self._upper = np.cumsum(shares)[:-1]
    self._seed = seed
    self._shard = shard
    self._block_index = -1
    self._block: list[int] = []

  def __getitem__(self, draw: int) -> int:
    """The part of draw number `draw`."""
    if len(self._upper) == 0:
      return 0
    block, at = divmod(draw, _DRAWS_PER_BLOCK)
    if block != self._block_index:
      generator = randomness.generator(self._seed, randomness.MIXTURE, (block, self._shard, 0))
      self._block = np.searchsorted(self._upper, generator.random(_DRAWS_PER_BLOCK), side='right').tolist()
      self._block_index = block
    return self._block[at]


@dataclasses.dataclass
class Sums:
  """What a shard has returned so far.

  Attributes:
    rows: rows, empty ones too.
    tokens: tokens that are not padding, by side.
    examples: examples, by part of the mixture.
    truncated: those of them that were too long, by part.
  """

  rows: int
  tokens: dict[str, int]
  examples: list[int]
  truncated: list[int]

  @classmethod
  def zeros(cls, sides: Sequence[str], num_parts: int) -> Sums:
    """Nothing yet."""
    return cls(0, dict.fromkeys(sides, 0), [0] * num_parts, [0] * num_parts)

  def as_dict(self) -> dict[str, Any]:
    """JSON-able copy; `Sums(**sums.as_dict())` equals `sums`."""
    return {
      'rows': self.rows,
      'tokens': dict(self.tokens),
      'examples': list(self.examples),
      'truncated': list(self.truncated),
    }

  def add(self, other: Sums) -> None:
    """Adds the sums of another shard."""
    self.rows += other.rows
    for side, count in other.tokens.items():
      self.tokens[side] += count
    self.examples = [a + b for a, b in zip(self.examples, other.examples, strict=True)]
    self.truncated = [a + b for a, b in zip(self.truncated, other.truncated, strict=True)]


def initial_state(sides: Sequence[str], num_parts: int) -> dict[str, Any]:
  """The state of a virtual shard that has returned nothing."""
  sums = Sums.zeros(sides, num_parts)
  return {'cursors': [list(streams.Cursor())] * num_parts, 'open': [], 'sums': sums.as_dict()}


@dataclasses.dataclass(frozen=True)
class _Address:
  part: int
  cursor: streams.Cursor
  truncated: bool


class VirtualShard:
  """A stream of packed rows with a small state.

  Args:
    parts: the example streams of the mixture's tasks. Endless ones are drawn from by `choice`; finite ones are read
      one after the other, each to its end.
    choice: which part each example comes from; None for finite parts.
    converter: makes model examples.
    side_lengths: length of a row, by side.
    open_rows: of the packer; 0 does not pack.
  """

  def __init__(
    self,
    parts: Sequence[streams.ExampleStream],
    choice: PartChoice | None,
    converter: features.FeatureConverter,
    side_lengths: Mapping[str, int],
    open_rows: int,
  ):
    self._parts = parts
    self._choice = choice
    self._converter = converter
    self._packer = packing.FirstFitPacker(side_lengths, open_rows)
    self.sums = Sums.zeros(tuple(side_lengths), len(parts))

  def next_row(self) -> packing.Row | None:
    """The next row; None when the shard is dry."""
    row = None
    while row is None:
      entry = self._next_entry()
      if entry is None:
        row = self._packer.pop_fullest()
        break
      row = self._packer.add(entry)
    self._count(row)
    return row

  def state(self) -> dict[str, Any]:
    """JSON-able position after the rows returned so far."""
    return {
      'cursors': [list(part.cursor) for part in self._parts],
      'open': [[[entry.address.part, *entry.address.cursor] for entry in row.entries] for row in self._packer.open],
      'sums': self.sums.as_dict(),
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes to a position that `state` returned, here or in another process. Makes the open rows' examples again."""
    self._packer.open = []
    for addresses in state['open']:
      entries = [self._entry_at(part, streams.Cursor(*cursor)) for part, *cursor in addresses]
      used = {side: sum(entry.length(side) for entry in entries) for side in self.sums.tokens}
      self._packer.open.append(packing.Row(entries, used))
    for part, cursor in zip(self._parts, state['cursors'], strict=True):
      part.cursor = streams.Cursor(*cursor)
    self.sums = Sums(**Sums(**state['sums']).as_dict())  # a copy: what is counted here must not change the state

  def _next_entry(self) -> packing.Entry | None:
    if self._choice is not None:
      return self._take(self._choice[sum(part.cursor.example for part in self._parts)])
    for index in range(len(self._parts)):
      entry = self._take(index)
      if entry is not None:
        return entry
    return None

  def _entry_at(self, part: int, cursor: streams.Cursor) -> packing.Entry:
    self._parts[part].cursor = cursor
    entry = self._take(part)
    assert entry is not None, f'no example at {cursor} of part {part}'
    return entry

  def _take(self, part: int) -> packing.Entry | None:
    cursor = self._parts[part].cursor
    example = self._parts[part].next()
    if example is None:
      return None
    return packing.Entry(self._converter(example.features), _Address(part, cursor, example.truncated))

  def _count(self, row: packing.Row | None) -> None:
    self.sums.rows += 1
    if row is None:
      return
    for side, used in row.used.items():
      self.sums.tokens[side] += used
    for entry in row.entries:
      self.sums.examples[entry.address.part] += 1
      self.sums.truncated[entry.address.part] += entry.address.truncated
