"""Parameters as the files of a Hugging Face directory, written tensor by tensor."""

from __future__ import annotations

import collections
import json
import math
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.interop.names import Entry, Place, places_of
from t5x_lite.interop.tensors import DTYPES, INDEX_FILE, WEIGHTS_FILE

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_UNITS = {'': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30}
_ALIGNMENT = 8


# --- Their tensors of our parameters ----------------------------------------------------------------------------------


def _pieces(table: Iterable[Entry], params: Any) -> dict[str, list[tuple[Place, int | None]]]:
  """Our leaves and layers, by the name of the tensor of theirs that they make up, in the order of their parts."""
  pieces: dict[str, list[tuple[Place, int | None]]] = collections.defaultdict(list)
  for place in places_of(table, params):
    for layer in place.parts():
      pieces[place.names(layer)[0]].append((place, layer))

  def order(piece: tuple[Place, int | None]) -> int:
    part = piece[0].entry.layout.part
    return 0 if part is None else part.index

  ordered = {name: sorted(joined, key=order) for name, joined in pieces.items()}
  for name, joined in ordered.items():
    part = joined[0][0].entry.layout.part
    assert len(joined) == (1 if part is None else part.count), (name, [place.name for place, _ in joined])
  return ordered


def their_specs(table: Iterable[Entry], params: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """Name, shape and dtype of every tensor that `export` gives, in its order; `params` may be arrays or shapes."""
  leaves = tree.named_leaves(params)
  return {
    name: jax.ShapeDtypeStruct(place.entry.layout.their_shape(place.shape), leaves[place.name].dtype)
    for name, ((place, _), *_rest) in _pieces(table, params).items()
  }


def export(table: Iterable[Entry], params: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Their tensors, one by one, of our parameters: values bit by bit those of ours.

  Args:
    table: of the module that the parameters belong to.
    params: the parameters, all of whose parts this process holds.

  Yields:
    Their name and the tensor, in our dtype.
  """
  leaves = tree.named_leaves(params)
  for name, joined in _pieces(table, params).items():
    arrays = []
    for place, layer in joined:
      leaf = leaves[place.name]
      arrays.append(place.entry.layout.to_theirs(np.asarray(leaf[layer] if place.stacked else leaf)))
    layout = joined[0][0].entry.layout
    if layout.part is not None:
      arrays = [np.concatenate(arrays, axis=layout.ones + layout.part.axis)]
    yield name, np.ascontiguousarray(arrays[0])


# --- Files ------------------------------------------------------------------------------------------------------------


def parse_size(size: int | str) -> int:
  """Bytes of `5GB`, `200MiB` or a number. Raises UsageError for anything else."""
  match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([KMG]I?B)?', str(size).strip().upper())
  if match is None or float(match[1]) <= 0:
    raise UsageError(f"size {size!r}: expected a number of bytes, or a text such as '5GB' or '200MiB'")
  return int(float(match[1]) * _UNITS[match[2] or ''])


def write_weights(
  folder: pathlib.Path,
  specs: Mapping[str, jax.ShapeDtypeStruct],
  tensors: Iterable[tuple[str, np.ndarray]],
  *,
  max_shard_size: int | str = '5GB',
) -> None:
  """Writes `model.safetensors`, or shards and their index where that would be larger than `max_shard_size`.

  Args:
    folder: where.
    specs: of all tensors.
    tensors: in the order of `specs`; one is held at a time.
    max_shard_size: bytes, or a text such as '5GB'. A larger tensor has a shard of its own.
  """
  limit = parse_size(max_shard_size)
  shards: list[dict[str, jax.ShapeDtypeStruct]] = [{}]
  filled = 0
  for name, spec in specs.items():
    if shards[-1] and filled + _num_bytes(spec) > limit:
      shards.append({})
      filled = 0
    shards[-1][name] = spec
    filled += _num_bytes(spec)
  count = len(shards)
  files = [WEIGHTS_FILE] if count == 1 else [f'model-{i + 1:05d}-of-{count:05d}.safetensors' for i in range(count)]
  rest = iter(tensors)
  for file, shard in zip(files, shards, strict=True):
    _write_file(folder / file, shard, rest)
  if count > 1:
    places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    index = {'metadata': {'total_size': sum(map(_num_bytes, specs.values()))}, 'weight_map': places}
    write_json(folder / INDEX_FILE, index)


def _num_bytes(spec: jax.ShapeDtypeStruct) -> int:
  return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _write_file(
  path: pathlib.Path, specs: Mapping[str, jax.ShapeDtypeStruct], tensors: Iterator[tuple[str, np.ndarray]]
) -> None:
  """One safetensors file of the next tensors."""
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}  # transformers asks for it
  start = 0
  for name, spec in specs.items():
    stop = start + _num_bytes(spec)
    header[name] = {
      'dtype': _CODES[np.dtype(spec.dtype)],
      'shape': list(spec.shape),
      'data_offsets': [start, stop],
    }
    start = stop
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % _ALIGNMENT)
  with path.open('wb') as file:
    file.write(struct.pack('<Q', len(text)) + text)
    for name, spec in specs.items():
      given, array = next(tensors)
      assert (given, array.shape, array.dtype) == (name, spec.shape, spec.dtype), (given, name)
      file.write(array.reshape(-1).view(np.uint8).data)


def write_json(path: pathlib.Path, value: Mapping[str, Any] | Sequence[Any]) -> None:
  """Writes an object or a list as transformers does: two spaces, sorted, a line feed at the end."""
  path.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n', encoding='utf-8')
