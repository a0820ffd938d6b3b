"""Attention maps as a picture: SVG, with text as text, in which every map is a PNG of one pixel for a probability."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The colours of probabilities from 0 to 1, between which others lie: light to dark, told apart in grey too.
_RAMP = np.asarray([(247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)], np.float64)
_CELL = 120  # units of a map
_LARGE = 480
_GAP = 8
_MARGIN = 56
_MOST_LABELLED = 64  # tokens
_NAMES = {
  'encoder': 'Encoder: what each token sees',
  'decoder': 'Decoder: what each token sees',
  'cross': 'Decoder to encoder',
  'content': 'Content stream',
  'query': 'Query stream',
}


def title_of(name: str) -> str:
  """What the maps of a stack are called (see `intermediates.attentions`)."""
  return _NAMES[name]


def png(pixels: np.ndarray) -> bytes:
  """A PNG file (ISO/IEC 15948) of uint8 `[height, width, 3]`."""
  height, width, channels = pixels.shape
  assert pixels.dtype == np.uint8 and channels == 3, pixels.dtype
  # Each line of the image has a byte in front that says how it is filtered: not at all.
  lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1)
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  parts = ((b'IHDR', header), (b'IDAT', zlib.compress(lines.tobytes(), 9)), (b'IEND', b''))
  chunks = (
    struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data)) for kind, data in parts
  )
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def colours(weights: np.ndarray) -> np.ndarray:
  """Probabilities `[...]` as uint8 `[..., 3]`; by their square roots, so that small ones are told from 0."""
  places = np.sqrt(np.clip(weights, 0.0, 1.0)) * (len(_RAMP) - 1)
  below = np.minimum(places.astype(int), len(_RAMP) - 2)
  share = (places - below)[..., None]
  return np.round(_RAMP[below] * (1 - share) + _RAMP[below + 1] * share).astype(np.uint8)


def attention(row: Mapping[str, Any]) -> str:
  """All maps of a row of `infer --mode=attention`: layers one below the other, heads side by side.

  Of one layer and one head alone, with the tokens beside it.
  """
  parts, top, width = [], _GAP, 0
  for name, maps in row['attention'].items():
    if maps.shape[:2] == (1, 1) and max(maps.shape[2:]) <= _MOST_LABELLED:
      part, size = _labelled(row, name, maps[0, 0])
    else:
      part, size = _grid(row, name, maps)
    parts.append(f'<g transform="translate({_GAP} {top})">{part}</g>')
    top, width = top + size[1] + 2 * _GAP, max(width, size[0])
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2 * _GAP} {top}" width="{width + 2 * _GAP}" '
    f'height="{top}" font-family="sans-serif" font-size="11" fill="#1c1c1c">'
    f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
  )


def _grid(row: Mapping[str, Any], name: str, maps: np.ndarray) -> tuple[str, tuple[int, int]]:
  layers, num_heads = maps.shape[:2]
  parts = [f'<text y="14" font-size="14" font-weight="600">{html.escape(title_of(name))}</text>']
  for head in range(num_heads):
    parts.append(_text(f'head {head}', _MARGIN + head * (_CELL + _GAP) + _CELL / 2, 34, 'middle'))
  for place, number in enumerate(row['layers'][name]):
    y = 42 + place * (_CELL + _GAP)
    parts.append(_text(f'layer {number}', 0, y + _CELL / 2, 'start'))
    for head in range(num_heads):
      parts.append(_image(maps[place, head], _MARGIN + head * (_CELL + _GAP), y, (_CELL, _CELL)))
  return ''.join(parts), (_MARGIN + num_heads * (_CELL + _GAP), 42 + layers * (_CELL + _GAP))


def _labelled(row: Mapping[str, Any], name: str, weights: np.ndarray) -> tuple[str, tuple[int, int]]:
  queries, keys = sides_of(row, name)
  cell = max(10, min(28, _LARGE // max(weights.shape)))
  left = 12 + 7 * max(map(len, queries))
  above = 24 + 7 * max(map(len, keys))
  title = f'{title_of(name)}, layer {row["layers"][name][0]}'
  parts = [f'<text y="14" font-size="14" font-weight="600">{html.escape(title)}</text>']
  parts += [_text(token, left - 6, above + place * cell + cell / 2 + 4, 'end') for place, token in enumerate(queries)]
  for place, token in enumerate(keys):
    x = left + place * cell + cell / 2 + 4
    parts.append(
      f'<text transform="translate({x:.1f} {above - 6}) rotate(-90)" xml:space="preserve">{html.escape(token)}</text>'
    )
  size = (weights.shape[1] * cell, weights.shape[0] * cell)
  parts.append(_image(weights, left, above, size))
  return ''.join(parts), (left + size[0], above + size[1])


def sides_of(row: Mapping[str, Any], name: str) -> tuple[Sequence[str], Sequence[str]]:
  """The tokens that see, and those that are seen."""
  tokens = row['tokens']
  queries = tokens['encoder' if name == 'encoder' else 'decoder']
  return queries, tokens['encoder'] if name in ('encoder', 'cross') else tokens['decoder']


def _image(weights: np.ndarray, x: float, y: float, size: tuple[int, int]) -> str:
  data = base64.b64encode(png(colours(weights))).decode()
  return (
    f'<image x="{x}" y="{y}" width="{size[0]}" height="{size[1]}" preserveAspectRatio="none" '
    f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
  )


def _text(text: str, x: float, y: float, anchor: str) -> str:
  return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" xml:space="preserve">{html.escape(text)}</text>'
