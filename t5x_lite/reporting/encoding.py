"""Numbers as the page reads them: base64 of little-endian arrays, and JSON that may stand inside a script element."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np


def steps(values: np.ndarray) -> str:
  """Steps as unsigned 32-bit integers."""
  return base64.b64encode(np.clip(values, 0, 2**32 - 1).astype('<u4').tobytes()).decode()


def floats(values: np.ndarray) -> str:
  """Numbers in single precision, in which NaN marks a gap."""
  with np.errstate(over='ignore'):
    return base64.b64encode(values.astype('<f4').tobytes()).decode()


def number(value: float | None) -> float | None:
  """What JSON can say of a number."""
  return None if value is None or not math.isfinite(value) else float(value)


def script_json(value: Any) -> str:
  """JSON in which nothing ends a script element, opens a comment or breaks a line of a script."""
  text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
  for character in '<>&\u2028\u2029':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return text.encode('utf-8', 'backslashreplace').decode()  # halves of surrogate pairs, which UTF-8 cannot hold
