"""Layouts: any slice of ours read through theirs is that slice, and no more of theirs is touched than holds it."""

from __future__ import annotations

import numpy as np
import pytest

from t5x_lite.interop.layouts import SAME, TRANSPOSED, Heads, Layout, Part, fused
from t5x_lite.interop.tensors import ArraySource

LAYOUTS = {
  'same': (SAME, (6, 8)),
  'transposed': (TRANSPOSED, (6, 8)),
  'fused': (fused(1, 3, axis=1), (6, 8)),
  'fused bias': (fused(2, 3, axis=0), (8,)),
  'fused transposed': (Layout(order=(1, 0), part=Part(0, 2, 3)), (6, 8)),
  'heads': (Layout(heads=Heads(1, 4)), (6, 8)),
  'heads of the output': (Layout(heads=Heads(0, 3), order=(2, 0, 1)), (6, 8)),
  'ones': (Layout(ones=2), (6,)),
  'scalar': (SAME, ()),
}


class Watched(ArraySource):
  """Counts the elements that are read."""

  read_elements = 0

  def read(self, name, index):
    part = super().read(name, index)
    self.read_elements += part.size
    return part


def theirs_of(layout, ours, rng):
  part = layout.to_theirs(ours)
  if layout.part is None:
    return part
  axis = layout.part.axis + layout.ones
  others = [rng.normal(size=part.shape) for _ in range(layout.part.count - 1)]
  others.insert(layout.part.index, part)
  return np.concatenate(others, axis=axis)


@pytest.mark.parametrize('name', LAYOUTS)
def test_every_slice_is_found(name):
  layout, shape = LAYOUTS[name]
  rng = np.random.default_rng(0)
  ours = rng.normal(size=shape)
  theirs = theirs_of(layout, ours, rng)
  assert theirs.shape == layout.their_shape(shape) and layout.our_shape(theirs.shape) == shape
  source = Watched({'x': theirs})
  for _ in range(30):
    ends = [sorted(rng.integers(0, length + 1, 2)) for length in shape]
    index = tuple(slice(int(start), int(stop)) for start, stop in ends)
    source.read_elements = 0
    np.testing.assert_array_equal(layout.read(source, 'x', shape, index), ours[index])
    # Whole heads are read where a slice begins or ends within one.
    slack = 1 if layout.heads is None else shape[layout.heads.axis] // layout.heads.count
    assert not ours[index].size or source.read_elements <= ours[index].size * slack
  np.testing.assert_array_equal(layout.read(source, 'x', shape, (slice(None),) * len(shape)), ours)


@pytest.mark.parametrize(
  ('layout', 'shape'),
  [
    (fused(0, 3, axis=1), (6, 8)),
    (fused(0, 3, axis=1), (6,)),
    (TRANSPOSED, (6,)),
    (Layout(heads=Heads(1, 4)), (6, 3, 2)),
    (Layout(heads=Heads(1, 4)), (6, 8)),
    (Layout(ones=2), (1, 6)),
  ],
)
def test_a_shape_that_cannot_be_theirs_is_none(layout, shape):
  assert layout.our_shape(shape) is None
