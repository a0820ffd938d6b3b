"""Rows of a batch as plain values: ids, masks and segments, and the text of each id by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from t5x_lite.core import errors
from t5x_lite.core.batch import INPUT_TOKENS, SEGMENT_IDS, TARGET_TOKENS, key
from t5x_lite.data.opened import OpenedDataset
from t5x_lite.data.vocabularies.tokenizers import Tokenizer

_MAX_ROWS = 4  # of a batch
_SPECIAL = ('pad', 'unk', 'bos', 'eos', 'cls', 'sep', 'mask')


@dataclasses.dataclass(frozen=True)
class Side:
  """One side of a row of a batch.

  Attributes:
    length: positions.
    used: positions that are not padding.
    segments: examples in the row.
    columns: the row by batch key, without the side's name: ids, masks, segments; `[length]` each.
    pieces: for each of the columns of ids the text of every id by itself.
  """

  length: int
  used: int
  segments: int
  columns: dict[str, list[float]]
  pieces: dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a batch: its number, and its sides by name."""

  index: int
  sides: dict[str, Side]


def fullest(data: OpenedDataset, batch: Mapping[str, np.ndarray]) -> list[Row]:
  """The rows of a batch that hold most examples, in order of that."""
  some_side = next(iter(data.side_lengths))
  counts = batch[key(some_side, SEGMENT_IDS)].max(axis=1)
  chosen = np.argsort(-counts, kind='stable')[:_MAX_ROWS].tolist()
  return [Row(index, {side: _side(data, batch, side, index) for side in data.side_lengths}) for index in chosen]


def _side(data: OpenedDataset, batch: Mapping[str, np.ndarray], side: str, index: int) -> Side:
  columns = {name.removeprefix(f'{side}_'): batch[name][index].tolist() for name in data.config.features.keys(side)}
  segments = batch[key(side, SEGMENT_IDS)][index]
  texts = {name: columns[name] for name in (INPUT_TOKENS, TARGET_TOKENS) if name in columns}
  return Side(
    length=len(segments),
    used=int(np.count_nonzero(segments)),
    segments=int(segments.max()),
    columns=columns,
    pieces={name: _pieces(data.tokenizer, ids) for name, ids in texts.items()},
  )


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
  """The text of each id by itself, without blanks around it; of one that has none, its name or number."""
  named = _special(tokenizer)

  @functools.cache
  def piece(token: int) -> str:
    return named.get(token) or tokenizer.decode([token]).strip() or f'#{token}'

  return [piece(int(token)) for token in ids]


def _special(tokenizer: Tokenizer) -> dict[int, str]:
  """The names of the special ids that the vocabulary has; of one with several, the most telling."""
  found = {}
  for name in _SPECIAL:
    with contextlib.suppress(errors.UsageError, AttributeError):  # it has no such id
      found[int(getattr(tokenizer, f'{name}_id'))] = f'<{name}>'
  return found
