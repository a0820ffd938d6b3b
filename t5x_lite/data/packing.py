"""Packing: several short examples share a row, so that less of the batch is padding.

First fit over a few open rows: an example goes to the oldest open row that has room for it on every side. Where none
has, the fullest open row is finished to make place for a new one. Examples are never split.

Concatenate and split: examples stand end to end, and where a row is full the example goes on in the next one, as a
segment of its own. Nothing is padding (Raffel et al. 2020; Brown et al. 2020). For models with one side only.

Fill: the last example of a row is made of as much text as there is room for, see `filling`.

Grain has first-fit packing too, but it finishes all its open rows together as soon as one example fits nowhere: with 4
open rows it leaves 2 to 7 points more padding than this, and 12 where full examples are mixed with short ones. It also
resumes by replaying its input; this one is resumed from the addresses of the few examples in its open rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from t5x_lite.core.batch import INPUT_TOKENS, LABEL_GROUP, LOSS_WEIGHTS, POSITIONS, SEGMENT_IDS, key
from t5x_lite.data import features

FIRST_FIT, SPLIT, FILL = MODES = ('first_fit', 'split', 'fill')


@dataclasses.dataclass(slots=True)
class Entry:
  """A model example, or a part of one, on its way into a row.

  Attributes:
    example: its arrays, by batch key.
    address: where it came from, for whoever has to make it again. Packing only carries it.
    group: entries of different groups never share a row.
    start: where in the whole example this part begins, in tokens.
    is_last: whether the example ends with this part.
    stream: which stream of examples it comes from.
    number: of the example in that stream.
    text: how many tokens of text it is made of, where it can be made of fewer; else 0.
    shorten: what `cut` does; None where examples are always whole.
  """

  example: features.ModelExample
  address: Any = None
  group: int = 0
  start: int = 0
  is_last: bool = True
  stream: int = 0
  number: int = 0
  text: int = 0
  shorten: Callable[[Entry, Mapping[str, int], int], Entry | None] | None = None

  def length(self, side: str) -> int:
    """Number of tokens on one side."""
    return len(self.example[key(side, INPUT_TOKENS)])

  def predictions(self, side: str) -> int:
    """Number of positions on one side that are predicted."""
    return int(np.count_nonzero(self.example[key(side, LOSS_WEIGHTS)]))

  def cut(self, rooms: Mapping[str, int], least: int) -> Entry | None:
    """The example made of less text, of which the rest is left to the examples that follow.

    Args:
      rooms: tokens that there is room for, by side.
      least: tokens of text.

    Returns:
      The example of about as much text as fits; None, with nothing changed, if that is less than the least.
    """
    return None if self.shorten is None else self.shorten(self, rooms, least)

  def part(self, side: str, start: int, stop: int) -> Entry:
    """Tokens `start` to `stop` of the only side; positions count from 0 again."""
    example = {name: array[start:stop] for name, array in self.example.items()}
    positions = key(side, POSITIONS)
    example[positions] = np.arange(stop - start, dtype=np.int32)
    is_last = self.is_last and stop == self.length(side)
    return dataclasses.replace(self, example=example, start=self.start + start, is_last=is_last)


@dataclasses.dataclass
class Row:
  """Examples that share a row, in the order of their segment ids.

  Attributes:
    entries: the examples, all of one group.
    used: tokens so far, by side.
  """

  entries: list[Entry]
  used: dict[str, int]

  @classmethod
  def of(cls, entries: list[Entry], sides: Mapping[str, Any]) -> Row:
    """A row of these entries."""
    return cls(entries, {side: sum(entry.length(side) for entry in entries) for side in sides})

  def add(self, entry: Entry) -> None:
    """Takes another entry, for which there is room."""
    self.entries.append(entry)
    for side in self.used:
      self.used[side] += entry.length(side)


class Packer(Protocol):
  """Packs a stream of examples into rows; deterministic.

  Attributes:
    open: rows that may get more.
    cuts: whether it may ask for an example made of less text (`Entry.cut`).
  """

  open: list[Row]
  cuts: ClassVar[bool]

  def add(self, entry: Entry) -> Row | None:
    """Takes an example, which must fit into an empty row; returns the row that this finishes, if any."""

  def pop_fullest(self) -> Row | None:
    """Finishes an open row; None if no row is open."""


class FirstFitPacker:
  """Never splits an example.

  Args:
    side_lengths: length of a row, by side.
    open_rows: how many rows of a group are kept open; 0 gives every example a row of its own.
    most_predictions: predicted positions that examples which share a row may have together, of the one side that there
      is; None: any number. Many short examples have more than one long one, and a model that computes logits for the
      predicted positions alone must have room for those of any row.
  """

  cuts: ClassVar[bool] = False

  def __init__(self, side_lengths: Mapping[str, int], open_rows: int, most_predictions: int | None = None):
    self._lengths = dict(side_lengths)
    self._max_open = open_rows
    self._most_predictions = most_predictions
    assert most_predictions is None or len(self._lengths) == 1
    self.open: list[Row] = []

  def add(self, entry: Entry) -> Row | None:
    """Takes an example, which must fit into an empty row; returns the row that this finishes, if any."""
    row = Row([entry], {side: entry.length(side) for side in self._lengths})
    assert all(0 < row.used[side] <= length for side, length in self._lengths.items()), (row.used, self._lengths)
    if self._max_open == 0 or self._is_full(row.used):
      return row
    own = [open_row for open_row in self.open if open_row.entries[0].group == entry.group]
    for open_row in own:
      if self._fits(open_row, row):
        open_row.add(entry)
        return self._pop(open_row) if self._is_full(open_row.used) else None
    finished = self._pop(self._fullest(own)) if len(own) == self._max_open else None
    self.open.append(row)
    return finished

  def pop_fullest(self) -> Row | None:
    """Finishes the fullest open row, the oldest of equals; None if no row is open."""
    return self._pop(self._fullest(self.open)) if self.open else None

  def _fits(self, open_row: Row, row: Row) -> bool:
    if any(open_row.used[side] + size > self._lengths[side] for side, size in row.used.items()):
      return False
    if self._most_predictions is None:
      return True
    (side,) = self._lengths
    return sum(entry.predictions(side) for entry in (*open_row.entries, *row.entries)) <= self._most_predictions

  def _pop(self, row: Row) -> Row:
    return self.open.pop(next(index for index, open_row in enumerate(self.open) if open_row is row))

  def _fullest(self, rows: list[Row]) -> Row:
    return max(rows, key=lambda row: max(row.used[side] / length for side, length in self._lengths.items()))

  def _is_full(self, used: Mapping[str, int]) -> bool:
    """Whether no further example can fit: each has at least one token on every side."""
    return any(used[side] >= length for side, length in self._lengths.items())


class SplitPacker:
  """Examples end to end, cut where a row is full.

  Args:
    side_lengths: length of a row, of the one side that there is.
  """

  cuts: ClassVar[bool] = False

  def __init__(self, side_lengths: Mapping[str, int]):
    ((self._side, self._length),) = side_lengths.items()
    self.open: list[Row] = []

  def add(self, entry: Entry) -> Row | None:
    """Takes an example no longer than a row; returns the row that this finishes, if any."""
    length = entry.length(self._side)
    assert 0 < length <= self._length, (length, self._length)
    own = next((i for i, row in enumerate(self.open) if row.entries[0].group == entry.group), None)
    row = Row([], {self._side: 0}) if own is None else self.open.pop(own)
    room = self._length - row.used[self._side]
    if length < room:
      row.add(entry)
      self.open.append(row)
      return None
    row.add(entry.part(self._side, 0, room) if length > room else entry)
    if length > room:
      self.open.append(Row.of([entry.part(self._side, room, length)], {self._side: None}))
    return row

  def pop_fullest(self) -> Row | None:
    """Finishes the oldest open row; None if no row is open."""
    return self.open.pop(0) if self.open else None


def write_row(row: Row, batch: Mapping[str, np.ndarray], index: int, converter: features.FeatureConverter) -> None:
  """Writes a row into `batch[...][index]`, which must hold zeros. Segment ids count from 1; padding stays 0.

  So do the numbers of questions that have choices.
  """
  for side in row.used:
    names = converter.keys(side)
    segment_key = key(side, SEGMENT_IDS)
    group_key = key(side, LABEL_GROUP)
    start = last_segment = last_group = 0
    for entry in row.entries:
      end = start + entry.length(side)
      for name in names:
        batch[name][index, start:end] = entry.example[name]
      segments = batch[segment_key][index, start:end]
      segments += last_segment  # an example has one segment, or several: those of a question's choices
      last_segment = int(segments[-1])
      if group_key in names:
        groups = batch[group_key][index, start:end]
        groups[groups > 0] += last_group
        last_group = max(last_group, int(groups.max()))
      start = end
