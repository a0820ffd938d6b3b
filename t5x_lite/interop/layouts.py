"""How one tensor of ours lies in one of theirs: turned, split into heads, a part of a fused one.

A layout maps a wanted slice of ours to the slice of theirs that holds it, so that of a file only that slice is read.
All of it is exact: values are moved and never computed with.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from t5x_lite.core.errors import UsageError
from t5x_lite.interop.tensors import Index, TensorSource

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Heads:
  """An axis of ours that is two axes of theirs, `[..., N * H, ...]` and `[..., N, H, ...]`.

  Attributes:
    axis: of ours.
    count: N.
  """

  axis: int
  count: int


@dataclasses.dataclass(frozen=True)
class Part:
  """One of `count` equal parts that theirs joins along an axis, such as the keys in GPT-2's `c_attn`.

  Attributes:
    axis: of theirs, the axes of length 1 in front not counted.
    index: which part, from 0.
    count: how many parts there are.
  """

  axis: int
  index: int
  count: int


@dataclasses.dataclass(frozen=True)
class Layout:
  """From a tensor of ours (of one layer) to theirs, in this order:

  Attributes:
    heads: first, an axis is split in two.
    order: then, the axes are taken in this order, as by `numpy.transpose`; None: as they are.
    part: then, it is joined with other tensors of ours.
    ones: then, so many axes of length 1 are put in front.
  """

  heads: Heads | None = None
  order: tuple[int, ...] | None = None
  part: Part | None = None
  ones: int = 0

  def their_shape(self, shape: Shape) -> Shape:
    """The shape of their tensor, for one of ours with that shape."""
    theirs = [self._split(shape)[axis] for axis in self._order(shape)]
    if self.part is not None:
      theirs[self.part.axis] *= self.part.count
    return (1,) * self.ones + tuple(theirs)

  def our_shape(self, shape: Shape) -> Shape | None:
    """The shape of our tensor, for one of theirs with that shape; None where theirs cannot be that."""
    if len(shape) < self.ones or set(shape[: self.ones]) - {1}:
      return None
    theirs = list(shape[self.ones :])
    if self.part is not None:
      if self.part.axis >= len(theirs) or theirs[self.part.axis] % self.part.count:
        return None
      theirs[self.part.axis] //= self.part.count
    if self.order is not None:
      if len(self.order) != len(theirs):
        return None
      theirs = [theirs[axis] for axis in np.argsort(self.order)]
    if self.heads is not None:
      axis = self.heads.axis
      if len(theirs) < axis + 2 or theirs[axis] != self.heads.count:
        return None
      theirs[axis : axis + 2] = [math.prod(theirs[axis : axis + 2])]
    return tuple(theirs)

  def read(self, source: TensorSource, name: str, shape: Shape, index: Index) -> np.ndarray:
    """Our tensor, of `shape` in all, at `index`; reads no more of theirs than holds it."""
    bounds = [wanted.indices(length)[:2] for wanted, length in zip(index, shape, strict=True)]
    cut = [slice(None)] * len(shape)
    if self.heads is not None:
      axis, width = self.heads.axis, shape[self.heads.axis] // self.heads.count
      start, stop = bounds[axis]
      first, last = start // width, -(-stop // width)  # whole heads; what is too much is cut off below
      cut[axis] = slice(start - first * width, stop - first * width)
      bounds[axis : axis + 1] = [(first, last), (0, width)]
    order = self._order(shape)
    theirs = [bounds[axis] for axis in order]
    if self.part is not None:
      offset = self._split(shape)[order[self.part.axis]] * self.part.index
      start, stop = theirs[self.part.axis]
      theirs[self.part.axis] = (start + offset, stop + offset)
    wanted = (slice(0, 1),) * self.ones + tuple(slice(*bound) for bound in theirs)
    array = source.read(name, wanted)
    array = array.reshape(array.shape[self.ones :]).transpose(np.argsort(order))
    if self.heads is not None:
      axis = self.heads.axis
      array = array.reshape(*array.shape[:axis], math.prod(array.shape[axis : axis + 2]), *array.shape[axis + 2 :])
    return array[tuple(cut)]

  def to_theirs(self, array: np.ndarray) -> np.ndarray:
    """Their tensor, or its part that is ours, of our whole one."""
    array = array.reshape(self._split(array.shape)).transpose(self._order(array.shape))
    return array.reshape((1,) * self.ones + array.shape)

  def _split(self, shape: Shape) -> Shape:
    """Our shape with the axis of heads in two."""
    if self.heads is None:
      return tuple(shape)
    axis, count = self.heads.axis, self.heads.count
    if shape[axis] % count:
      raise UsageError(f'an axis of {shape[axis]} does not divide into {count} heads')
    return (*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])

  def _order(self, shape: Shape) -> tuple[int, ...]:
    return tuple(range(len(shape) + (self.heads is not None))) if self.order is None else self.order


SAME = Layout()
TRANSPOSED = Layout(order=(1, 0))  # torch.nn.Linear keeps [out, in], we keep [in, out]


def fused(index: int, count: int, axis: int) -> Layout:
  """Part `index` of `count` along `axis` of a tensor that is laid out as ours."""
  return Layout(part=Part(axis, index, count))
