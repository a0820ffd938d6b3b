"""A virtual shard: one of the fixed number of independent streams of rows that the global batch is made of.

Each is mixed, corrupted and packed on its own, so that whoever reads it reads the same rows: how many hosts there are,
and which of them reads what, changes nothing. Its state is a few ints for each task and each example in an open row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from t5x_lite.data import features, filling, packing, streams
from t5x_lite.data.part_choice import PartChoice


@dataclasses.dataclass
class Sums:
  """What a shard has returned so far.

  Attributes:
    rows: rows, empty ones too.
    tokens: tokens that are not padding, by side.
    examples: examples, by part of the mixture.
    part_tokens: their tokens, of all sides, by part.
    truncated: those of them that were too long, by part.
    dropped: records without an example and examples that were left out, by part.
  """

  rows: int
  tokens: dict[str, int]
  examples: list[int]
  part_tokens: list[int]
  truncated: list[int]
  dropped: list[int]

  @classmethod
  def zeros(cls, sides: Sequence[str], num_parts: int) -> Sums:
    """Nothing yet."""
    return cls(0, dict.fromkeys(sides, 0), *([0] * num_parts for _ in range(4)))

  def as_dict(self) -> dict[str, Any]:
    """JSON-able copy; `Sums(**sums.as_dict())` equals `sums`."""
    copied = {name: list(getattr(self, name)) for name in ('examples', 'part_tokens', 'truncated', 'dropped')}
    return {'rows': self.rows, 'tokens': dict(self.tokens), **copied}

  def add(self, other: Sums) -> None:
    """Adds the sums of another shard."""
    self.rows += other.rows
    for side, count in other.tokens.items():
      self.tokens[side] += count
    for name in ('examples', 'part_tokens', 'truncated', 'dropped'):
      setattr(self, name, [a + b for a, b in zip(getattr(self, name), getattr(other, name), strict=True)])


def initial_state(sides: Sequence[str], num_parts: int) -> dict[str, Any]:
  """The state of a virtual shard that has returned nothing."""
  sums = Sums.zeros(sides, num_parts)
  return {
    'cursors': [list(streams.Cursor())] * num_parts,
    'open': [],
    'stage': [0, [0] * num_parts],
    'sums': sums.as_dict(),
  }


class _Address(NamedTuple):
  part: int
  cursor: streams.Cursor
  truncated: bool
  dropped: int
  length: int | None = None  # of the text that was asked for


class VirtualShard:
  """A stream of packed rows with a small state.

  Args:
    parts: the example streams of the mixture's tasks. Endless ones are drawn from by `choice`; finite ones are read
      one after the other, each to its end.
    choice: which part each example comes from; None for finite parts.
    converter: makes model examples.
    side_lengths: length of a row, by side.
    packer: of this shard alone.
    rows_per_batch: rows that the shard fills in a batch.
    pack_across_tasks: whether examples of different parts may share a row.
  """

  def __init__(
    self,
    parts: Sequence[streams.ExampleStream],
    choice: PartChoice | None,
    converter: features.FeatureConverter,
    side_lengths: Mapping[str, int],
    packer: packing.Packer,
    *,
    rows_per_batch: int = 1,
    pack_across_tasks: bool = True,
  ):
    self._parts = parts
    self._choice = choice
    self._converter = converter
    self._sides = tuple(side_lengths)
    self._packer = packer
    self._rows_per_batch = rows_per_batch
    self._cuts = packer.cuts
    self._across = pack_across_tasks
    self._stage, self._before_stage = 0, [0] * len(parts)
    self._drawn = [0] * len(parts)  # tokens of all examples taken so far, those in open rows included
    self._ahead: packing.Entry | None = None  # of finite parts: taken to see whether there is more
    self.sums = Sums.zeros(self._sides, len(parts))

  def next_row(self) -> packing.Row | None:
    """The next row; None when the shard is dry."""
    row = self._left_open()
    while row is None:
      entry = self._next_entry()
      if entry is None:
        row = self._packer.pop_fullest()
        break
      row = self._packer.add(entry)
    self._count(row)
    return row

  def see_the_end(self) -> None:
    """Of finite parts: counts what was left out behind the last example, should the rows so far hold all of them."""
    if self._choice is None and self._ahead is None:
      self._ahead = self._next_entry()

  def state(self) -> dict[str, Any]:
    """JSON-able position after the rows returned so far."""
    cursors = [list(part.cursor) for part in self._parts]
    if self._ahead is not None:
      cursors[self._ahead.address.part] = list(self._ahead.address.cursor)
    return {
      'cursors': cursors,
      'open': [[self._place(entry) for entry in row.entries] for row in self._packer.open],
      'stage': [self._stage, list(self._before_stage)],
      'sums': self.sums.as_dict(),
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes to a position that `state` returned, here or in another process. Makes the open rows' examples again."""
    self._ahead = None
    self._packer.open = [
      packing.Row.of([self._entry_at(place) for place in places], dict.fromkeys(self._sides))
      for places in state['open']
    ]
    for part, cursor in zip(self._parts, state['cursors'], strict=True):
      part.cursor = streams.Cursor(*cursor)
    self.sums = Sums(**Sums(**state['sums']).as_dict())  # a copy: what is counted here must not change the state
    self._stage, before_stage = state['stage']
    self._before_stage = list(before_stage)
    self._drawn = list(self.sums.part_tokens)
    for row in self._packer.open:
      for entry in row.entries:
        self._drawn[entry.address.part] += self._size(entry)

  def _left_open(self) -> packing.Row | None:
    """Finishes the oldest open row of a part that has no share now, where rows hold one part only; else None.

    No example will come that could finish it. Such rows are every second one that the shard returns, from the second
    of a stage on: however short a stage is, its own parts have rows in it.
    """
    if self._choice is None or self._across:
      return None
    stage = self._stage_now(self._choice)
    rows_of_stage = self.sums.rows - self._choice.first_step(stage) * self._rows_per_batch
    if rows_of_stage % 2 == 0:
      return None
    for index, row in enumerate(self._packer.open):
      if not self._choice.has_share(row.entries[0].address.part, stage):
        return self._packer.open.pop(index)
    return None

  def _stage_now(self, choice: PartChoice) -> int:
    return choice.stage(self.sums.rows // self._rows_per_batch)

  def _next_entry(self) -> packing.Entry | None:
    if self._choice is not None:
      return self._take(self._next_part(self._choice))
    if self._ahead is not None:
      ahead, self._ahead = self._ahead, None
      return ahead
    for index in range(len(self._parts)):
      entry = self._take(index)
      if entry is not None:
        return entry
    return None

  def _next_part(self, choice: PartChoice) -> int:
    if len(self._parts) == 1:
      return 0
    stage = self._stage_now(choice)
    if not choice.by_tokens:
      return choice.at_random(sum(part.cursor.example for part in self._parts), stage)
    if stage != self._stage:
      self._stage, self._before_stage = stage, list(self._drawn)
    since = [drawn - before for drawn, before in zip(self._drawn, self._before_stage, strict=True)]
    return choice.lagging(since, stage)

  def _place(self, entry: packing.Entry) -> list[int]:
    """What an entry of an open row can be made from again."""
    part = [] if entry.start == 0 and entry.is_last else [entry.start, entry.start + self._size(entry)]
    length = [] if entry.address.length is None else [entry.address.length]
    return [entry.address.part, *entry.address.cursor, *length, *part]

  def _entry_at(self, place: Sequence[int]) -> packing.Entry:
    part, *rest = place
    cursor, bounds = streams.Cursor(*rest[:3]), rest[3:]
    self._parts[part].cursor = cursor
    if len(bounds) == 1:
      return self._cut_entry(part, cursor, bounds[0])
    entry = self._take(part)
    assert entry is not None, f'no example at {cursor} of part {part}'
    return entry.part(self._sides[0], *bounds) if bounds else entry

  def _take(self, part: int) -> packing.Entry | None:
    cursor = self._parts[part].cursor
    example = self._parts[part].next()
    if isinstance(example, streams.TheEnd):
      self.sums.dropped[part] += example.dropped
      return None
    entry = self._entry(example, _Address(part, cursor, example.truncated, example.dropped))
    if self._cuts:
      entry.stream, entry.number = part, cursor.example
      if example.text:
        entry.text, entry.shorten = example.text, functools.partial(self._cut, self._parts[part].cursor)
    self._drawn[part] += self._size(entry)
    return entry

  def _entry(self, example: streams.TaskExample, address: _Address) -> packing.Entry:
    return packing.Entry(self._converter(example.features), address, 0 if self._across else address.part)

  def _cut_entry(self, part: int, cursor: streams.Cursor, length: int) -> packing.Entry:
    """The example of the `length` tokens at a place of joined documents, behind which the stream is then."""
    stream = self._parts[part]
    assert isinstance(stream, streams.TextStream), part
    stream.cursor = cursor
    example = stream.next_of(length)
    assert isinstance(example, streams.TaskExample), f'no text at {cursor} of part {part}'
    entry = self._entry(example, _Address(part, cursor, example.truncated, example.dropped, length))
    entry.stream, entry.number = part, cursor.example
    return entry

  def _cut(
    self, after: streams.Cursor, whole: packing.Entry, rooms: Mapping[str, int], least: int
  ) -> packing.Entry | None:
    """See `packing.Entry.cut`. The stream goes on behind the text of what is returned.

    Args:
      after: the place behind the whole example.
      whole: the example, which was taken last.
      rooms: tokens, by side.
      least: tokens of text.
    """
    part, cursor = whole.address.part, whole.address.cursor
    found: dict[int, streams.Cursor] = {}

    def make(length: int) -> packing.Entry:
      entry = self._cut_entry(part, cursor, length)
      found[length] = self._parts[part].cursor
      return entry

    entry = filling.longest(whole, rooms, least, make)
    if entry is None:
      self._parts[part].cursor = after
      return None
    self._parts[part].cursor = found[entry.address.length]
    self._drawn[part] += self._size(entry) - self._size(whole)
    return entry

  def _size(self, entry: packing.Entry) -> int:
    return sum(map(entry.length, self._sides))

  def _count(self, row: packing.Row | None) -> None:
    self.sums.rows += 1
    if row is None:
      return
    for side, used in row.used.items():
      self.sums.tokens[side] += used
    for entry in row.entries:
      part = entry.address.part
      self.sums.part_tokens[part] += self._size(entry)
      if entry.is_last:  # of an example in parts, the last one counts
        self.sums.examples[part] += 1
        self.sums.truncated[part] += entry.address.truncated
        self.sums.dropped[part] += entry.address.dropped
