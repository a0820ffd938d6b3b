"""Folders that are whole or not there, and sizes."""

from __future__ import annotations

import os

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.interop import export


@pytest.mark.parametrize(
  ('text', 'size'), [('5GB', 5 * 10**9), ('200MiB', 200 * 2**20), (1000, 1000), ('1.5 kb', 1500), ('7', 7)]
)
def test_sizes(text, size):
  assert export.parse_size(text) == size


@pytest.mark.parametrize('text', ['', 'GB', '-1', '0', '5TB', '5 G B'])
def test_no_sizes(text):
  with pytest.raises(errors.UsageError, match='expected a number of bytes'):
    export.parse_size(text)


def test_a_folder_is_there_when_the_block_ends_and_as_a_new_one_would_be(tmp_path):
  target = tmp_path / 'deep' / 'model'
  with export.new_folder(target) as folder:
    (folder / 'x').write_text('1')
    assert not target.exists()
  assert (target / 'x').read_text() == '1' and [path.name for path in target.parent.iterdir()] == ['model']
  (tmp_path / 'other').mkdir()
  assert target.stat().st_mode == (tmp_path / 'other').stat().st_mode


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
  target = tmp_path / 'model'
  target.mkdir()
  (target / 'old').write_text('1')
  with pytest.raises(KeyError), export.new_folder(target, overwrite=True) as folder:
    (folder / 'x').write_text('1')
    raise KeyError
  with pytest.raises(errors.UsageError, match=r'cannot write .*: No space left'), export.new_folder(tmp_path / 'new'):
    raise OSError(28, 'No space left on device')
  assert [path.name for path in tmp_path.iterdir()] == ['model'] and os.listdir(target) == ['old']


def test_what_is_there_is_replaced_on_request_only(tmp_path):
  target = tmp_path / 'model'
  target.mkdir()
  with export.new_folder(target) as folder:  # an empty one may be there
    (folder / 'old').write_text('1')
  with pytest.raises(errors.UsageError, match='is there and not empty'), export.new_folder(target):
    pass
  with export.new_folder(target, overwrite=True) as folder:
    (folder / 'new').write_text('1')
  assert os.listdir(target) == ['new'] and os.listdir(tmp_path) == ['model']


def test_a_target_that_cannot_be_is_refused(tmp_path):
  (tmp_path / 'file').write_text('1')
  for target, told in (('file', 'is a file'), ('file/below', 'cannot write')):
    with pytest.raises(errors.UsageError, match=told), export.new_folder(tmp_path / target):
      pass


def test_shards_hold_no_more_than_asked_but_a_single_tensor_may_be_larger(tmp_path):
  arrays = {name: np.zeros(size, np.float32) for name, size in (('a', 10), ('b', 100), ('c', 10), ('d', 10), ('e', 5))}
  export.write_weights(tmp_path, arrays, arrays.items(), max_shard_size=80)
  files = [path.read_bytes() for path in sorted(tmp_path.glob('*.safetensors'))]
  assert [len(data) - 8 - int.from_bytes(data[:8], 'little') for data in files] == [40, 400, 80, 20]
