"""How T5X keeps its train state, as a source of tensors: the parameters of one checkpoint, read slice by slice.

There are three formats, and `checkpoints.py` of T5X writes all of them or did so once:

- native: a folder with a msgpack file `checkpoint` (flax.serialization), in which a leaf is an array or, if it was
  partitioned, the TensorStore spec of a zarr array beside it, such as `target.encoder.encoder_norm.scale`;
- Orbax: a folder `state`, whose tree is in a file `_METADATA`, or in a `checkpoint` of `PLACEHOLDER://NAME`s (older),
  and whose arrays are zarr folders beside it or entries of one OCDBT database;
- a single msgpack file with all arrays in it.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from t5x_lite.core.errors import UsageError
from t5x_lite.interop.tensors import Index

STATE_FILE, METADATA_FILE = 'checkpoint', '_METADATA'
_STATE_FOLDER = 'state'
_TARGET = 'target'  # of the train state, its parameters
_STEP = re.compile(r'checkpoint_(\d+)')
_PLACEHOLDER = 'PLACEHOLDER://'
_TENSORFLOW = b'model_checkpoint_path'
_OCDBT_FILE = 'manifest.ocdbt'
_CACHE_BYTES = 256 * 2**20  # a chunk of a scanned stack holds many layers, which are asked for one after the other
_FLOATS = tuple(map(np.dtype, (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)))


def find(path: pathlib.Path) -> pathlib.Path | None:
  """The `checkpoint` or `_METADATA` file that describes the checkpoint at `path`, None where there is none.

  Args:
    path: the folder of a run (its newest checkpoint is taken), one checkpoint, its `state` folder, or a msgpack file.
  """
  if path.is_file():
    return path
  candidates = _candidates(path)
  if path.is_dir():
    steps = {int(match[1]): step for step in path.iterdir() if (match := _STEP.fullmatch(step.name))}
    for number in sorted(steps, reverse=True):
      candidates += [steps[number], *_candidates(steps[number])]
  return next((file for file in candidates if file.is_file()), None)


def _candidates(folder: pathlib.Path) -> list[pathlib.Path]:
  return [part / name for part in (folder, folder / _STATE_FOLDER) for name in (METADATA_FILE, STATE_FILE)]


def is_train_state(path: pathlib.Path) -> bool:
  """Whether the file that `find` found describes a train state of T5X. Reads little of it; a damaged one may pass."""
  if path.name == METADATA_FILE:
    try:
      return any(keys[:1] == [_TARGET] for keys, _ in _orbax_leaves(path))
    except UsageError:
      return False
  import msgpack

  with path.open('rb') as file:
    if file.read(len(_TENSORFLOW)) == _TENSORFLOW:
      return True
    file.seek(0)
    unpacker = msgpack.Unpacker(file, raw=False)
    try:
      for _ in range(unpacker.read_map_header()):
        if unpacker.unpack() in ('optimizer', _TARGET):
          return True
        unpacker.skip()
    except Exception:  # no msgpack, or cut short: of a file that is called so it is told when it is opened
      return path.name == STATE_FILE
  return False


class T5XSource:
  """The parameters of a T5X checkpoint by their path in the model, such as `encoder/encoder_norm/scale`.

  Args:
    path: see `find`.

  Raises:
    UsageError: no such checkpoint, one that is damaged, or pieces of it that are missing.
  """

  def __init__(self, path: pathlib.Path):
    file = find(path)
    if file is None:
      raise UsageError(
        f'{path} has no checkpoint of T5X: expected a folder with a file {STATE_FILE} or {METADATA_FILE}'
      )
    self._origin = file if path.is_file() else file.parent
    leaves = _orbax_target(file) if file.name == METADATA_FILE else _msgpack_target(file)
    if not leaves:
      raise UsageError(f'{file} holds no parameters of T5X: expected a train state with a {_TARGET!r}')
    self._arrays = _opened(leaves, str(self._origin))
    for name in self._arrays:
      if self.dtype(name) not in _FLOATS:  # such as the uint16 that bfloat16 was before version 3
        raise UsageError(
          f'{self._origin}: {name} is kept as {self.dtype(name)}: expected {", ".join(map(str, _FLOATS))}'
        )

  @property
  def origin(self) -> str:
    """The folder or file."""
    return str(self._origin)

  def names(self) -> Iterable[str]:
    """The names of all tensors."""
    return self._arrays

  def shape(self, name: str) -> tuple[int, ...]:
    """The shape of a tensor."""
    return tuple(self._arrays[name].shape)

  def dtype(self, name: str) -> np.dtype:
    """The dtype of a tensor."""
    array = self._arrays[name]
    return array.dtype if isinstance(array, np.ndarray) else array.dtype.numpy_dtype

  def read(self, name: str, index: Index) -> np.ndarray:
    """A part of a tensor. Raises UsageError where the piece of it that is wanted is missing or damaged."""
    array = self._arrays[name]
    if isinstance(array, np.ndarray):
      return array[index]
    try:
      return np.asarray(array[index].read().result())
    except (ValueError, OSError) as error:
      raise UsageError(f'{self._origin}: cannot read {name}: {_first_part(error)}') from error


def _opened(leaves: Mapping[str, Any], origin: str) -> dict[str, Any]:
  """Arrays, and TensorStores for specs, all opened at once; `leaves` are either."""
  import tensorstore

  context = tensorstore.Context({'cache_pool': {'total_bytes_limit': _CACHE_BYTES}})
  pending = {
    name: tensorstore.open(leaf, open=True, read=True, context=context)
    for name, leaf in leaves.items()
    if not isinstance(leaf, np.ndarray)
  }
  opened = {}
  for name, leaf in leaves.items():
    try:
      opened[name] = pending[name].result() if name in pending else leaf
    except (ValueError, OSError) as error:
      raise UsageError(f'{origin}: cannot open {name}: {_first_part(error)}') from error
  return opened


def _first_part(error: Exception) -> str:
  """TensorStore's message without the spec that it ends with."""
  return ' '.join(str(error).partition(' [')[0].split())


# --- Orbax ------------------------------------------------------------------------------------------------------------


def _orbax_leaves(file: pathlib.Path) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
  """The path and the entry of each leaf in `_METADATA`."""
  try:
    for entry in json.loads(file.read_text(encoding='utf-8'))['tree_metadata'].values():
      yield [str(part['key']) for part in entry['key_metadata']], entry['value_metadata']
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(f'{file} is damaged, or no metadata of Orbax ({type(error).__name__})') from error


def _orbax_target(file: pathlib.Path) -> dict[str, Any]:
  leaves = {}
  for keys, value in _orbax_leaves(file):
    if keys[0] == _TARGET and not value.get('skip_deserialize'):
      leaves['/'.join(keys[1:])] = _spec(file.parent, '.'.join(keys))
  return leaves


def _spec(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """The TensorStore spec of the array called `name` in a folder."""
  if (folder / _OCDBT_FILE).is_file():
    base = {'driver': 'file', 'path': f'{folder}/'}
    store: dict[str, Any] = {'driver': 'ocdbt', 'base': base, 'path': f'{name}/'}
  else:
    store = {'driver': 'file', 'path': f'{folder / name}/'}
  # A chunk that is missing would read as zeros.
  driver = 'zarr3' if _is_zarr3(folder) else 'zarr'
  return {'driver': driver, 'kvstore': store, 'fill_missing_data_reads': False}


def _is_zarr3(folder: pathlib.Path) -> bool:
  metadata = folder / METADATA_FILE
  return metadata.is_file() and bool(json.loads(metadata.read_text(encoding='utf-8')).get('use_zarr3'))


# --- msgpack ----------------------------------------------------------------------------------------------------------


def _msgpack_target(file: pathlib.Path) -> dict[str, Any]:
  from flax import serialization

  with file.open('rb') as opened:
    if opened.read(len(_TENSORFLOW)) == _TENSORFLOW:
      raise UsageError(f'{file.parent} is a checkpoint of TensorFlow: expected one that T5X has converted')
  try:
    state = serialization.msgpack_restore(file.read_bytes())
    target = state.get('optimizer', state).get(_TARGET, {})
  except Exception as error:  # of msgpack, flax and NumPy, whichever stumbles first
    raise UsageError(f'{file} is cut short or damaged ({type(error).__name__})') from error
  return dict(_flattened(target, file, ()))


def _flattened(value: Any, file: pathlib.Path, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
  name = '/'.join(path)
  if isinstance(value, Mapping) and 'driver' not in value:
    for key, inner in value.items():
      yield from _flattened(inner, file, (*path, str(key)))
  elif isinstance(value, Mapping):
    yield name, _spec(file.parent, _beside(value, file, name))
  elif isinstance(value, str) and value.startswith(_PLACEHOLDER):
    yield name, _spec(file.parent, value.removeprefix(_PLACEHOLDER))
  elif value is not None:
    yield name, np.asarray(value)


def _beside(spec: Mapping[str, Any], file: pathlib.Path, name: str) -> str:
  """The folder of a zarr array beside `file`, from the spec that T5X has written, in files or in a bucket."""
  store = spec.get('kvstore', {})
  path = str(store.get('path') or spec.get('path') or '').strip('/')
  if spec['driver'] != 'zarr' or not path or pathlib.PurePath(path).name != path:
    raise UsageError(
      f'{file}: {name} is kept in {spec["driver"]} at {path!r}: expected zarr, in a folder beside the file'
    )
  return path
