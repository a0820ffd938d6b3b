"""Packing that fills: rows of examples of all sizes, on one side or two, are finished by an example made to fit.

First fit leaves a row as it is once no whole example has room in it. That is little where examples all have one size,
and much where they vary, or where one side of a row is full and the other is not. Here

- an example goes where it leaves the room of the two sides most alike, of some dozens of open rows;
- the last example of a row is made of as much text as the row still has room for. What is left of the text begins the
  next example, so that no token is lost. Only text that is cut into chunks anyway can be cut so: joined documents.

Which text an example has follows from the rows that are open, and these from the addresses of the examples in them, so
that a stream is resumed as it is with the other packers. An example made of less text has the same random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data.packing import Entry, Row

OPEN_ROWS = 32  # half of them leave 1 to 2 points more padding where both sides vary
_LITTLE = 0.01  # share of a row that may stay empty without anyone waiting for a better example
_FULL = 1 / 64  # of a side: with less room than that a row gets no more
_LEAST = 1 / 16  # of an example's text: it is not cut to less than that
_PATIENCE = 32  # examples of a stream, for each open row, that may come after the first of a row
_TRIES = 12  # of lengths; two or three are the rule


class FillingPacker:
  """Fills rows with whole examples, and each up with one that is made to fit.

  Args:
    side_lengths: length of a row, by side.
    open_rows: how many rows of a group are kept open; 0 gives every example a row of its own.
  """

  cuts: ClassVar[bool] = True

  def __init__(self, side_lengths: Mapping[str, int], open_rows: int = OPEN_ROWS):
    self._lengths = dict(side_lengths)
    self._positions = sum(side_lengths.values())
    self._side_lengths = np.array(list(side_lengths.values()), np.float64)
    self._full = np.maximum(_FULL * self._side_lengths, 1)
    self._max_open = open_rows
    self.open: list[Row] = []

  def add(self, entry: Entry) -> Row | None:
    """Takes an example, whole or in part; returns the row that this finishes, if any.

    Raises:
      UsageError: however short it is made, it is too long for a row.
    """
    entry = self._fitting(entry)
    if self._max_open == 0:
      return Row.of([entry], self._lengths)
    own = [index for index, row in enumerate(self.open) if row.entries[0].group == entry.group]
    if not own:
      return self._opened(entry)
    stale = next((index for index in own if self._is_stale(self.open[index], entry)), None)
    if stale is not None:
      return self._finish(stale, entry)
    rooms = np.array([self._rooms(self.open[index]) for index in own], np.float64)
    as_last, as_other = self._costs(entry, rooms)
    last, other = int(as_last.argmin()), int(as_other.argmin())
    if as_last[last] <= _LITTLE * self._positions:
      return self._finish(own[last], entry)
    has_place = len(own) < self._max_open
    if as_other[other] <= 0.0 or (as_other[other] < math.inf and not has_place):
      self.open[own[other]].add(entry)
      return None
    if has_place:
      return self._opened(entry)
    left = rooms.sum(1)
    fullest = int(left.argmin())
    if as_last[last] <= left[fullest]:
      return self._finish(own[last], entry)
    return self._replaced(own[fullest], entry)

  def pop_fullest(self) -> Row | None:
    """Finishes the fullest open row, the oldest of equals; None if no row is open."""
    if not self.open:
      return None
    return self.open.pop(min(range(len(self.open)), key=lambda index: self._left(self.open[index])))

  def _fitting(self, entry: Entry) -> Entry:
    """The example, no longer than an empty row."""
    if self._holds(self._lengths, entry):
      return entry
    cut = entry.cut(self._lengths, 1)
    if cut is None:
      sizes = {side: entry.length(side) for side in self._lengths}
      raise errors.UsageError(
        f'an example has {_told(sizes)}: got feature lengths for {_told(self._lengths)}, expected longer ones'
      )
    return cut

  def _costs(self, entry: Entry, rooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What it costs to have the example in each row; infinite where it cannot be.

    Args:
      entry: the example.
      rooms: tokens, `[rows, sides]`.

    Returns:
      As the last one of a row: positions that stay empty, `[rows]`. As one that others follow: how much less even the
      room of the sides becomes, `[rows]`, which may be less than nothing.
    """
    size = np.array([entry.length(side) for side in self._lengths], np.float64)
    left = rooms - size
    is_whole, is_last = (left >= 0).all(1), (left < self._full).any(1)
    share = np.where(
      is_whole, 1.0, ((rooms - 1) / np.maximum(size - 1, 1)).min(1)
    )  # its EOS stays, however short it is
    can_be_last = np.where(is_whole, is_last, (share >= _LEAST) & (entry.text > 0))
    as_last = np.where(can_be_last, rooms.sum(1) - share * size.sum(), math.inf)
    as_other = np.where(is_whole & ~is_last, self._unevenness(left) - self._unevenness(rooms), math.inf)
    return as_last, as_other

  def _unevenness(self, rooms: np.ndarray) -> np.ndarray:
    """How far apart the sides are in the share of them that is empty: `[rows, sides]` -> `[rows]`, from 0 to 1."""
    return np.ptp(rooms / self._side_lengths, axis=1)

  def _finish(self, index: int, entry: Entry) -> Row:
    """The row, with the example or the part of it that fits; if none does, the example opens another row."""
    row = self.open[index]
    rooms = {side: length - row.used[side] for side, length in self._lengths.items()}
    if not self._holds(rooms, entry):
      cut = entry.cut(rooms, max(int(_LEAST * entry.text), 1))
      if cut is None:
        return self._replaced(index, entry)
      entry = cut
    row.add(entry)
    return self.open.pop(index)

  def _replaced(self, index: int, entry: Entry) -> Row:
    """The row as it is; the example opens another, which stays open however full it is."""
    finished = self.open.pop(index)
    self.open.append(Row.of([entry], self._lengths))
    return finished

  def _opened(self, entry: Entry) -> Row | None:
    row = Row.of([entry], self._lengths)
    if (np.array(self._rooms(row)) < self._full).any():
      return row
    self.open.append(row)
    return None

  def _is_stale(self, row: Row, entry: Entry) -> bool:
    """Whether so many examples came after its first that it is done with, for nothing may wait for ever."""
    first = row.entries[0]
    return first.stream == entry.stream and entry.number - first.number > _PATIENCE * self._max_open

  def _holds(self, rooms: Mapping[str, int], entry: Entry) -> bool:
    return all(entry.length(side) <= room for side, room in rooms.items())

  def _rooms(self, row: Row) -> list[int]:
    return [length - row.used[side] for side, length in self._lengths.items()]

  def _left(self, row: Row) -> int:
    return self._positions - sum(row.used.values())


def longest(whole: Entry, rooms: Mapping[str, int], least: int, make: Callable[[int], Entry]) -> Entry | None:
  """The example made of about as much text as there is room for; None if that is less than `least` tokens.

  Sizes go nearly in proportion to the text, so that a few tries suffice.

  Args:
    whole: the example made of all its text, for which there is no room.
    rooms: tokens, by side.
    least: tokens of text.
    make: makes the example of so many tokens of its text.
  """
  rates = {side: max(whole.length(side) - 1, 0.5) / whole.text for side in rooms}
  best, most, too_much = None, least - 1, whole.text
  guess = int(min((room - 1) / rates[side] for side, room in rooms.items()))
  step = 1  # at least, downwards: where the text is cut by a token, not every side is shorter
  for _ in range(_TRIES):
    guess = max(most + 1, min(guess, too_much - 1))
    if guess >= too_much:
      break
    made = make(guess)
    gap = min((room - made.length(side)) / rates[side] for side, room in rooms.items())
    if gap < 0:
      too_much, guess, step = guess, guess - max(math.ceil(-gap), step), 2 * step
      continue
    best, most = made, guess
    if gap < 1:
      break
    guess += int(gap)
  return best


def _told(tokens: Mapping[str, int]) -> str:
  return ' and '.join(f'{count} tokens of the {side}' for side, count in tokens.items())
