"""Whether a mesh divides what it is to divide; if not, what does not fit, and which meshes of as many devices would.

The dimensions are those of the parameters, which carry their logical names, and those of the activations, which are
read off the constraints of one abstract trace of the model: heads, keys' heads, MLP width, length, experts. So a model
says nothing here, and none can be forgotten.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh

from t5x_lite.core import axes, tree
from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning import mesh as mesh_lib
from t5x_lite.partitioning import rules as rules_lib
from t5x_lite.partitioning.rules import Rules

_MOST_TOLD = 4  # meshes in one error
_REGISTER = 128  # lanes of a TPU's registers, of which T5's published vocabularies are multiples
# In what a name of `core.axes` is told: without the prefix of activations.
_PREFIX = 'act_'


@dataclasses.dataclass(frozen=True)
class Dimension:
  """A dimension that a rule may cut.

  Attributes:
    owner: what it is of, such as `parameter encoder/layers/mlp/wi/kernel: dimension 2`.
    name: its logical name.
    length: how long it is.
    mesh_axes: what the rules cut it over.
  """

  owner: str
  name: str
  length: int
  mesh_axes: tuple[str, ...]

  def fits(self, sizes: dict[str, int]) -> bool:
    """Whether mesh axes of these sizes divide it."""
    return self.length % math.prod(sizes[axis] for axis in self.mesh_axes) == 0


def trace(make: Callable[..., Any], *args: Any, mesh: Mesh, rules: Rules) -> tuple[Any, list[Dimension]]:
  """The abstract value of `make(*args)`, and the dimensions of all activations that it constrains.

  The mesh of this trace has one device, all axes of `mesh`, and one axis for each logical name, so that a constraint
  tells the names it was written with, and nothing in it can fail to divide.
  """
  names = tuple(dict.fromkeys(name for name, _ in rules))
  marked = tuple((name, (*rules_lib.as_tuple(mesh_axes), _marker(name))) for name, mesh_axes in rules)
  axis_names = (*mesh.axis_names, *map(_marker, names))
  alone = Mesh(
    np.asarray(mesh.devices.flat[0]).reshape((1,) * len(axis_names)),
    axis_names,
    axis_types=(AxisType.Auto,) * len(axis_names),
  )
  with jax.set_mesh(alone), nn.logical_axis_rules(marked):
    jaxpr, abstract = jax.make_jaxpr(make, return_shape=True)(*args)
  markers = {_marker(name): name for name in names}
  found: dict[tuple[str, int, tuple[str, ...]], Dimension] = {}
  for equation in _equations(jaxpr.jaxpr):
    if equation.primitive.name != 'sharding_constraint':
      continue
    shape = equation.outvars[0].aval.shape
    for dim, cut in enumerate(equation.params['sharding'].spec):
      told = rules_lib.as_tuple(cut)
      name = next((markers[axis] for axis in told if axis in markers), None)
      mesh_axes = tuple(axis for axis in told if axis in mesh.axis_names)
      if name is not None and mesh_axes:
        where = f'activation {list(shape)} of {_module(equation)}: dimension {dim}'
        found.setdefault((name, shape[dim], mesh_axes), Dimension(where, name, shape[dim], mesh_axes))
  return abstract, list(found.values())


def _marker(name: str) -> str:
  return f'logical:{name}'


def _equations(jaxpr: Any) -> Iterator[Any]:
  """All equations, those of inner programs (scans, remat, custom derivatives) included."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, (tuple, list)) else (value,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _equations(inner)


def _module(equation: Any) -> str:
  """The module that an equation is of, and its method, as flax names them: `layers/self_attention.keys_values`."""
  return re.sub(r'/?\w+\._\w+', '', str(equation.source_info.name_stack)) or 'the model'


def of_parameters(boxed: Any, rules: Rules) -> list[Dimension]:
  """The dimensions of parameters.

  Args:
    boxed: as `module.init` gives them, leaves boxed by `nn.with_logical_partitioning`.
    rules: logical axis -> mesh axes.
  """
  found = []
  shapes, specs = tree.named_leaves(nn.meta.unbox(boxed)), tree.named_leaves(nn.get_partition_spec(boxed))
  for path, leaf in shapes.items():
    names = tuple(specs[path])
    for dim, (name, mesh_axes) in enumerate(zip(names, rules_lib.spec(names, rules), strict=True)):
      cut = rules_lib.as_tuple(mesh_axes)
      if cut:
        found.append(Dimension(f'parameter {path}: dimension {dim}', name, leaf.shape[dim], cut))
  return found


def of_batch(rows: int, rules: Rules) -> Dimension:
  """The rows of a batch, or of one of its microbatches."""
  return Dimension('batch', axes.ACT_BATCH, rows, rules_lib.as_tuple(rules_lib.spec((axes.ACT_BATCH,), rules)[0]))


def check(dimensions: Iterable[Dimension], mesh: Mesh) -> None:
  """Raises UsageError for the first dimension that the mesh does not divide; says which meshes divide all of them.

  An axis for experts is refused where nothing but rows would be cut over it: that is what `data` and `fsdp` are for.
  """
  dimensions = list(dimensions)
  size = mesh.shape.get(mesh_lib.EXPERT, 1)
  if size > 1 and not _has_experts(dimensions):
    raise UsageError(
      f'the mesh has expert={size}, and the model has no experts: expected expert=1; {suggestion(dimensions, mesh)}'
    )
  for dimension in dimensions:
    if not dimension.fits(dict(mesh.shape)):
      raise UsageError(f'{_complaint(dimension, mesh)}; {suggestion(dimensions, mesh)}')


def _has_experts(dimensions: list[Dimension]) -> bool:
  return any(mesh_lib.EXPERT in each.mesh_axes and each.name != axes.ACT_BATCH for each in dimensions)


def _complaint(dimension: Dimension, mesh: Mesh) -> str:
  over = ' * '.join(f'{axis}={mesh.shape[axis]}' for axis in dimension.mesh_axes if mesh.shape[axis] > 1)
  fits = [number for number in mesh_lib.divisors(dimension.length) if number <= mesh.size]
  return (
    f'{dimension.owner} ({dimension.name.removeprefix(_PREFIX)}) of {dimension.length} does not divide over {over}: '
    f'sizes {fits} would fit{_longer(dimension, mesh)}'
  )


def _longer(dimension: Dimension, mesh: Mesh) -> str:
  """A vocabulary may have rows that no token has: the next sizes that fit, as they are and in whole registers."""
  if dimension.name not in (axes.VOCAB, axes.ACT_VOCAB):
    return ''
  parts = math.prod(mesh.shape[axis] for axis in dimension.mesh_axes)
  sizes = sorted({-(-dimension.length // step) * step for step in (parts, math.lcm(parts, _REGISTER))})
  return f', or a vocab_size of {" or ".join(map(str, sizes))}, the last rows being of no token'


def suggestion(dimensions: Iterable[Dimension], mesh: Mesh) -> str:
  """`meshes of 8 devices that fit: fsdp=8, data=4 tensor=2`, the most alike first."""
  fitting = meshes_that_fit(dimensions, mesh)
  if not fitting:
    return f'no mesh of {mesh.size} devices fits'
  told = ', '.join(mesh_lib.text(sizes) for sizes in fitting[:_MOST_TOLD])
  return f'meshes of {mesh.size} devices that fit: {told}'


def meshes_that_fit(dimensions: Iterable[Dimension], mesh: Mesh) -> list[tuple[int, ...]]:
  """Sizes of all meshes of as many devices that divide all dimensions, in the order of `MESH_AXES`.

  The most like `mesh` come first. Axes for sequences and experts only where it has them, that for experts only where
  the model has some, and whole slices along `data`.
  """
  wanted = [mesh.shape[name] for name in mesh_lib.MESH_AXES]
  slices, dimensions = mesh_lib.count_slices(list(mesh.devices.flat)), list(dimensions)
  optional = {axis for axis in (mesh_lib.SEQUENCE, mesh_lib.EXPERT) if mesh.shape[axis] > 1}
  if not _has_experts(dimensions):
    optional.discard(mesh_lib.EXPERT)
  constraints = list({(each.length, each.mesh_axes): each for each in dimensions}.values())
  found = []
  for sizes in factorisations(mesh.size, len(wanted)):
    named = dict(zip(mesh_lib.MESH_AXES, sizes, strict=True))
    asked = all(axis in optional or named[axis] == 1 for axis in (mesh_lib.SEQUENCE, mesh_lib.EXPERT))
    if asked and named[mesh_lib.DATA] % slices == 0 and all(each.fits(named) for each in constraints):
      found.append(sizes)
  return sorted(found, key=lambda sizes: sum(abs(math.log(a / b)) for a, b in zip(sizes, wanted, strict=True)))


def factorisations(number: int, parts: int) -> Iterator[tuple[int, ...]]:
  """All ways to write a number as a product of that many factors, in order."""
  if parts == 1:
    yield (number,)
    return
  for first in mesh_lib.divisors(number):
    for rest in factorisations(number // first, parts - 1):
      yield first, *rest
