"""The masked CRC-32C that TFRecord files carry (Castagnoli's polynomial, RFC 3720, appendix B.4)."""

from __future__ import annotations

import functools
from collections.abc import Callable

_MASK_DELTA = 0xA282EAD8


@functools.cache
def _checksum() -> Callable[[bytes], int]:
  import google_crc32c

  return google_crc32c.value


def masked(data: bytes) -> int:
  """The checksum of `data`, rotated right by 15 bits and shifted by a constant: data may hold checksums themselves."""
  crc = _checksum()(data)
  return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
