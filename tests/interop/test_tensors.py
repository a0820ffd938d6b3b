"""Safetensors files: the library's own bytes are read back, any slice alone, and a damaged file is told as such."""

from __future__ import annotations

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.interop import tensors
from t5x_lite.interop.tensors import SafetensorsSource


@pytest.fixture
def file(tmp_path):
  """A file of two tensors, and its path."""
  header = {
    '__metadata__': {'format': 'pt'},
    'b': {'dtype': 'F32', 'shape': [4, 3], 'data_offsets': [0, 48]},
    'a': {'dtype': 'BF16', 'shape': [2], 'data_offsets': [48, 52]},
  }
  text = json.dumps(header).encode()
  matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
  data = matrix.tobytes() + np.array([1.5, -2.0], jnp.bfloat16).tobytes()
  path = tmp_path / 'model.safetensors'
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  return path


def test_slices_and_half_precision(file):
  source = SafetensorsSource(file.parent)
  assert set(source.names()) == {'a', 'b'} and source.shape('b') == (4, 3) and source.dtype('a') == jnp.bfloat16
  np.testing.assert_array_equal(source.read('b', (slice(1, 3), slice(2, 3))), [[5.0], [8.0]])
  np.testing.assert_array_equal(source.read('a', (slice(0, 2),)).astype(np.float32), [1.5, -2.0])


def test_files_of_the_library_are_read_and_ours_by_it(tmp_path):
  library = pytest.importorskip('safetensors.numpy')
  from t5x_lite.interop import export

  rng = np.random.default_rng(0)
  arrays = {
    'f32': rng.normal(size=(5, 7)).astype(np.float32),
    'f16': rng.normal(size=(3,)).astype(np.float16),
    'scalar': np.array(3, np.int64),
    'empty': np.zeros((0, 4), np.float32),
    'bool': np.array([True, False]),
  }
  library.save_file(arrays, tmp_path / 'model.safetensors')
  source = SafetensorsSource(tmp_path)
  for name, array in arrays.items():
    got = source.read(name, (slice(None),) * array.ndim)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)
  (tmp_path / 'ours').mkdir()
  specs = {name: tensors.np.broadcast_to(array, array.shape) for name, array in arrays.items()}
  export.write_weights(tmp_path / 'ours', specs, arrays.items())
  for name, array in library.load_file(tmp_path / 'ours' / 'model.safetensors').items():
    np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize('keep', [0, 4, 30, 200])
def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(file, keep):
  file.write_bytes(file.read_bytes()[:keep])
  with pytest.raises(errors.UsageError, match='cut short'):
    SafetensorsSource(file.parent)


@pytest.mark.parametrize(
  ('change', 'told'),
  [
    (('[4, 3]', '[4, 4]'), 'damaged: b of F32'),
    (('F32', 'F33'), 'dtype F33'),
    (('"shape"', '"shope"'), 'no safetensors file: its entry'),
    (('{"__meta', 'X"__meta'), 'header is no JSON'),
  ],
)
def test_a_header_that_is_wrong_is_refused(file, change, told):
  file.write_bytes(file.read_bytes().replace(change[0].encode(), change[1].encode(), 1))
  with pytest.raises(errors.UsageError, match=told):
    SafetensorsSource(file.parent)


def test_shards_are_read_as_one_and_a_missing_one_is_named(tmp_path, recorded):
  golden = recorded('t5_tagging')
  folder = golden.write(tmp_path / 'model', max_shard_size=1000)
  shards = sorted(path.name for path in folder.glob('*.safetensors'))
  assert len(shards) > 2 and shards[0] == f'model-00001-of-{len(shards):05d}.safetensors'
  assert all((folder / name).stat().st_size < 2200 for name in shards)
  source = SafetensorsSource(folder)
  assert set(source.names()) == set(golden.state)
  for name, array in golden.state.items():
    np.testing.assert_array_equal(source.read(name, (slice(None),) * array.ndim), array)
  (folder / shards[1]).unlink()
  with pytest.raises(errors.UsageError, match=f'lacks 1 of {len(shards)} shards: {shards[1]}'):
    SafetensorsSource(folder)


def test_an_index_that_does_not_fit_is_refused(tmp_path, recorded):
  folder = recorded('t5_tagging').write(tmp_path / 'model', max_shard_size=1000)
  path = folder / tensors.INDEX_FILE
  index = json.loads(path.read_text())
  shard = next(iter(index['weight_map'].values()))
  path.write_text(json.dumps({'weight_map': {**index['weight_map'], 'more': shard}}))
  with pytest.raises(errors.UsageError, match='lacks more, which'):
    SafetensorsSource(folder)
  path.write_text(json.dumps({'weight_map': {'x': '../model.safetensors'}}))
  with pytest.raises(errors.UsageError, match='expected a file beside it'):
    SafetensorsSource(folder)
  path.write_text('[]')
  with pytest.raises(errors.UsageError, match='no index of shards'):
    SafetensorsSource(folder)


def test_a_directory_without_weights_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match=r'has no weights: expected model\.safetensors'):
    SafetensorsSource(tmp_path)
