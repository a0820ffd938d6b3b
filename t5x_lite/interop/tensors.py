"""Where tensors are read from: by name, and only the part that is wanted.

The safetensors format is eight bytes of length, a JSON header and the bytes of the tensors. It is read here, and not
through the library of that name, because a memory map gives any slice of a tensor without the rest, bfloat16 included,
and because a damaged file is then told in our words.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from t5x_lite.core.errors import UsageError

WEIGHTS_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'

# The names that safetensors has for dtypes.
DTYPES: dict[str, np.dtype] = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(jnp.bfloat16),
  'I64': np.dtype(np.int64),
  'I32': np.dtype(np.int32),
  'I16': np.dtype(np.int16),
  'I8': np.dtype(np.int8),
  'U8': np.dtype(np.uint8),
  'BOOL': np.dtype(np.bool_),
}
_LARGEST_HEADER = 100_000_000  # bytes, as in the library

Index = tuple[slice, ...]


class TensorSource(Protocol):
  """Named tensors that are read lazily."""

  @property
  def origin(self) -> str:
    """What errors call it: a path."""

  def names(self) -> Iterable[str]:
    """The names of all tensors."""

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor. Raises KeyError where there is none of that name."""

  def dtype(self, name: str) -> np.dtype:
    """The dtype that a tensor is stored in. Raises KeyError where there is none of that name."""

  def read(self, name: str, index: Index) -> np.ndarray:
    """The part of a tensor that `index` means: one slice for each axis, none with a step."""


class ArraySource:
  """Tensors in memory.

  Args:
    arrays: by name.
    origin: what errors call them.
  """

  def __init__(self, arrays: Mapping[str, np.ndarray], origin: str = 'these arrays'):
    self._arrays, self._origin = dict(arrays), origin

  @property
  def origin(self) -> str:
    """What errors call it."""
    return self._origin

  def names(self) -> Iterable[str]:
    """The names of all tensors."""
    return self._arrays

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor."""
    return tuple(self._arrays[name].shape)

  def dtype(self, name: str) -> np.dtype:
    """The dtype of a tensor."""
    return np.dtype(self._arrays[name].dtype)

  def read(self, name: str, index: Index) -> np.ndarray:
    """A part of a tensor."""
    return np.asarray(self._arrays[name][index])


class _File:
  """One safetensors file: its header checked, its tensors mapped when they are read.

  Raises:
    UsageError: it is not there, is cut short, or is no such file.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    try:
      size = path.stat().st_size
      with path.open('rb') as file:
        start = file.read(8)
        length = struct.unpack('<Q', start)[0] if len(start) == 8 else _LARGEST_HEADER + 1
        if length > min(_LARGEST_HEADER, size - 8):
          raise UsageError(f'{path} is cut short, or no safetensors file: it has {size} bytes')
        header = json.loads(file.read(length))
    except FileNotFoundError as error:
      raise UsageError(f'{path} is missing') from error
    except OSError as error:
      raise UsageError(f'cannot read {path}: {error.strerror}') from error
    except ValueError as error:
      if isinstance(error, UsageError):
        raise
      raise UsageError(f'{path} is no safetensors file: its header is no JSON') from error
    self._start = 8 + length
    self.entries = {name: self._entry(name, value) for name, value in header.items() if name != '__metadata__'}
    needed = self._start + max((stop for _, _, _, stop in self.entries.values()), default=0)
    if size < needed:
      raise UsageError(f'{path} is cut short: it has {size} bytes, and its header speaks of {needed}')

  def _entry(self, name: str, value: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Dtype, shape, first byte and the byte after the last one, of one entry of the header."""
    try:
      shape = tuple(map(int, value['shape']))
      start, stop = map(int, value['data_offsets'])
      kind = str(value['dtype'])
    except (KeyError, TypeError, ValueError) as error:
      raise UsageError(f'{self.path} is no safetensors file: its entry {name!r} is {value!r}') from error
    if kind not in DTYPES:
      raise UsageError(f'{self.path}: {name} is of dtype {kind}, which is not read here: expected {", ".join(DTYPES)}')
    if min((*shape, start)) < 0 or stop - start != math.prod(shape) * DTYPES[kind].itemsize:
      raise UsageError(f'{self.path} is damaged: {name} of {kind} {list(shape)} cannot have {stop - start} bytes')
    return DTYPES[kind], shape, start, stop

  def read(self, name: str, index: Index) -> np.ndarray:
    """A copy of a part of a tensor, read from the file's pages that hold it."""
    dtype, shape, start, _ = self.entries[name]
    if 0 in shape:
      return np.zeros(shape, dtype)[index]
    # Mapped afresh each time: the pages that were read are then not held in memory for good.
    mapped = np.memmap(self.path, np.uint8, 'r', self._start + start, (math.prod(shape) * dtype.itemsize,))
    return np.array(mapped.view(dtype).reshape(shape)[index])


class SafetensorsSource:
  """The weights of a Hugging Face directory: `model.safetensors`, or the shards that its index names.

  All headers are read and checked at once, tensors when they are asked for.

  Args:
    directory: the directory, or one safetensors file.

  Raises:
    UsageError: no such weights, a shard that is missing, a file that is cut short, an index that does not fit.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    self._directory = pathlib.Path(directory)
    self._files: dict[str, _File] = {}
    single = self._directory if self._directory.is_file() else self._directory / WEIGHTS_FILE
    index = self._directory / INDEX_FILE
    if single.is_file():
      file = _File(single)
      self._files = dict.fromkeys(file.entries, file)
    elif index.is_file():
      self._read_index(index)
    else:
      raise UsageError(f'{self._directory} has no weights: expected {WEIGHTS_FILE}, or {INDEX_FILE} and its shards')

  def _read_index(self, path: pathlib.Path) -> None:
    try:
      places = dict(json.loads(path.read_text(encoding='utf-8'))['weight_map'])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UsageError(f'{path} is no index of shards ({type(error).__name__})') from error
    shards = sorted(set(places.values()))
    for shard in shards:
      if pathlib.PurePath(shard).name != shard:
        raise UsageError(f'{path} names the shard {shard!r}: expected a file beside it')
    missing = [shard for shard in shards if not (path.parent / shard).is_file()]
    if missing:
      raise UsageError(f'{path.parent} lacks {len(missing)} of {len(shards)} shards: {", ".join(missing[:3])}')
    files = {shard: _File(path.parent / shard) for shard in shards}
    for name, shard in places.items():
      if name not in files[shard].entries:
        raise UsageError(f'{path.parent / shard} lacks {name}, which {INDEX_FILE} says is there')
      self._files[name] = files[shard]

  @property
  def origin(self) -> str:
    """The directory."""
    return str(self._directory)

  def names(self) -> Iterable[str]:
    """The names of all tensors."""
    return self._files

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor."""
    return self._files[name].entries[name][1]

  def dtype(self, name: str) -> np.dtype:
    """The dtype that a tensor is stored in."""
    return self._files[name].entries[name][0]

  def read(self, name: str, index: Index) -> np.ndarray:
    """A part of a tensor."""
    return self._files[name].read(name, index)
