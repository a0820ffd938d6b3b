"""Sizes, and the shards that they bound."""

from __future__ import annotations

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


def test_shards_hold_no_more_than_asked_but_a_single_tensor_may_be_larger(tmp_path):
  arrays = {name: np.zeros(size, np.float32) for name, size in (('a', 10), ('b', 100), ('c', 10), ('d', 10), ('e', 5))}
  export.write_weights(tmp_path, arrays, arrays.items(), max_shard_size=80)
  files = [path.read_bytes() for path in sorted(tmp_path.glob('*.safetensors'))]
  assert [len(data) - 8 - int.from_bytes(data[:8], 'little') for data in files] == [40, 400, 80, 20]
