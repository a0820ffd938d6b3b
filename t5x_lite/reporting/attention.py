"""Attention maps of runs, as `infer --mode=attention` writes them in JSON lines, as many as a page can hold."""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.research import pictures

ENDING = '.jsonl'
PATTERN = f'attention*{ENDING}'  # in the folder of a run
_ORDER = ('encoder', 'decoder', 'cross', 'content', 'query')  # of stacks
_MOST_TEXTS = 8  # of a file
_MOST_BYTES = 2**28  # of a line
_SIDES = (128, 64, 32, 16, 8)  # pixels of a map; each divides the one before, so that patches of patches are patches
_BUDGET = 3_000_000  # pixels of all maps, a byte each
_SHADES = 255


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
  """The maps of one stack for one text.

  Attributes:
    name: of the stack, see `research.pictures.title_of`.
    layers: their numbers.
    shape: layers, heads, positions that see and positions that are seen.
    values: square roots of probabilities, of 255, uint8 `[Y, N, h, w]`: of every patch of a map its largest.
  """

  name: str
  layers: tuple[int, ...]
  shape: tuple[int, ...]
  values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
  """A line that a model has read: itself, the tokens of each side, and the maps of each stack."""

  shown: str
  tokens: Mapping[str, tuple[str, ...]]
  maps: tuple[Maps, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class File:
  """What a file holds: its first texts, and how many lines there are besides."""

  name: str
  texts: tuple[Text, ...]
  more: int


def map_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of maps in the folder of a run."""
  try:
    return sorted(path for path in folder.glob(PATTERN) if path.is_file())
  except OSError:
    return []


def check(path: pathlib.Path, word: str) -> None:
  """Raises UsageError for a file on the command line that holds no maps."""
  if not any(True for _ in _texts(path)):
    raise errors.UsageError(
      f'{word}: no attention maps, expected what `infer --mode=attention --output=maps.jsonl` writes'
    )


def read(path: pathlib.Path) -> File:
  """The maps of a file; a line that is incomplete or something else is left out."""
  found: list[Text] = []
  more = 0
  for text in _texts(path):
    if len(found) < _MOST_TEXTS:
      found.append(text)
    else:
      more += 1
  return File(path.stem, tuple(found), more)


def collect(read_files: Sequence[tuple[int | None, File]]) -> dict[str, Any]:
  """What the page shows of the maps.

  Each map is as large as the budget of the page allows for all of them, a pixel for a probability where it can be.
  Where even small ones are too many, the last texts of each file are left out.

  Args:
    read_files: the files, each with the place of its run; None: of none that is shown.
  """
  kept = [(run, file) for run, file in read_files if file.texts]
  while _size(kept, _SIDES[-1]) > _BUDGET:
    place = max(range(len(kept)), key=lambda place: len(kept[place][1].texts))
    run, file = kept[place]
    kept[place] = run, dataclasses.replace(file, texts=file.texts[:-1], more=file.more + 1)
  side = next((side for side in _SIDES if _size(kept, side) <= _BUDGET), _SIDES[-1])
  return {
    'ramp': pictures.colours(np.linspace(0, 1, 17) ** 2).tolist(),
    'files': [
      {
        'run': run,
        'name': file.name,
        'more': file.more,
        'texts': [_described(text, side) for text in file.texts],
      }
      for run, file in kept
      if file.texts
    ],
  }


def _size(kept: Sequence[tuple[int | None, File]], side: int) -> int:
  """Pixels of all maps, each at most `side` high and wide."""
  maps = [own for _, file in kept for text in file.texts for own in text.maps]
  return sum(own.shape[0] * own.shape[1] * min(own.shape[2], side) * min(own.shape[3], side) for own in maps)


def _described(text: Text, side: int) -> dict[str, Any]:
  described = []
  for own in text.maps:
    values = _shrunk(own.values, side)
    described.append(
      {
        'title': pictures.title_of(own.name),
        'layers': own.layers,
        'shape': own.shape,
        'size': values.shape[2:],
        'queries': 'encoder' if own.name == 'encoder' else 'decoder',
        'keys': 'encoder' if own.name in ('encoder', 'cross') else 'decoder',
        'values': base64.b64encode(values.tobytes()).decode(),
      }
    )
  return {'shown': text.shown, 'tokens': dict(text.tokens), 'maps': described}


def _shrunk(values: np.ndarray, side: int) -> np.ndarray:
  """Maps of at most `side` positions each way, of which each is the largest value of its patch."""
  for axis in (2, 3):
    length = values.shape[axis]
    if length > side:
      values = np.maximum.reduceat(values, -(-np.arange(side) * length // side), axis=axis)
  return values


def _texts(path: pathlib.Path) -> Iterator[Text]:
  try:
    with path.open('rb') as file:
      while line := file.readline(_MOST_BYTES):
        text = _text(line)
        if text is not None:
          yield text
  except OSError:
    return


def _text(line: bytes) -> Text | None:
  """The text of a line, or None where it is not one of `infer --mode=attention`."""
  try:
    row = json.loads(line)
    tokens = {str(side): tuple(map(str, own)) for side, own in row['tokens'].items()}
    stacks = sorted(row['attention'].items(), key=lambda stack: _ORDER.index(stack[0]))
    maps = tuple(_maps(row, name, arrays, tokens) for name, arrays in stacks)
  except (ValueError, KeyError, TypeError, AttributeError):
    return None
  shown = ' / '.join(str(row[name]) for name in ('text', 'pair', 'targets') if name in row)
  return Text(shown if len(shown) <= 80 else shown[:79] + '…', tokens, maps) if maps else None


def _maps(row: Mapping[str, Any], name: str, arrays: Any, tokens: Mapping[str, Sequence[str]]) -> Maps:
  """Raises ValueError, KeyError or TypeError where the parts do not fit together."""
  values = np.asarray(arrays, np.float32)
  layers = tuple(int(number) for number in row['layers'][name])
  sides = pictures.sides_of({'tokens': tokens}, name)
  pictures.title_of(name)
  if values.ndim != 4 or 0 in values.shape or values.shape[::2] != (len(layers), len(sides[0])):
    raise ValueError(values.shape)
  if values.shape[3] != len(sides[1]):
    raise ValueError(values.shape)
  roots = np.round(np.sqrt(np.clip(np.nan_to_num(values), 0.0, 1.0)) * _SHADES).astype(np.uint8)
  return Maps(name, layers, values.shape, _shrunk(roots, _SIDES[0]))
