"""What the compiler is told, and what it makes of it: which arrays cross the mesh, along which of its axes."""

from __future__ import annotations

import importlib.util
import math
import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest

from t5x_lite.core import tree
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training.steps import Trainer

_SPEC = importlib.util.spec_from_file_location('trajectories', pathlib.Path(__file__).with_name('trajectories.py'))
runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(runs)

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')


class Collective(NamedTuple):
  """One of a compiled program.

  Attributes:
    kind: in `KINDS`.
    shapes: of its results on one device.
    axes: mesh axes along which its devices differ.
  """

  kind: str
  shapes: tuple[tuple[int, ...], ...]
  axes: frozenset[str]


def collectives(text: str, mesh: jax.sharding.Mesh) -> list[Collective]:
  """All of them; of a permutation the axes are not read."""
  found = []
  for result, kind, rest in re.findall(rf'= (.*?) ({"|".join(KINDS)})(?:-start)?\((.*)', text):
    shapes = tuple(tuple(map(int, filter(None, dims.split(',')))) for dims in re.findall(r'\w+\[([\d,]*)\]', result))
    groups = re.search(r'replica_groups=(.*?)(?:, [a-z_]+=|$)', rest)
    axes = frozenset() if groups is None else _axes(_group(groups[1], mesh.size), mesh)
    found.append(Collective(kind, shapes, axes))
  return found


def _group(text: str, size: int) -> list[int]:
  """The first group of devices, in any of the ways that XLA writes groups."""
  if text.startswith('{'):
    first = re.search(r'\{([\d,]+)\}', text)
    return list(range(size)) if first is None else [int(each) for each in first[1].split(',')]
  named = re.match(r'mesh\[(.*?)\](?: \{(.*?)\})?', text)
  if named is not None:
    sizes = [int(each) for each in re.findall(r"'=(\d+)", named[1])]
    used = range(len(sizes)) if named[2] is None else [int(each) for each in re.findall(r'axis_(\d+)', named[2])]
    ids = np.arange(size).reshape(sizes)
    return list(ids[tuple(slice(None) if axis in used else 0 for axis in range(len(sizes)))].flat)
  shape, order, turned = re.match(r'\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text).groups()
  ids = np.arange(size).reshape([int(each) for each in order.split(',')])
  if turned:
    ids = ids.transpose([int(each) for each in turned.split(',')])
  return list(ids.reshape([int(each) for each in shape.split(',')])[0])


def _axes(group: list[int], mesh: jax.sharding.Mesh) -> frozenset[str]:
  places = np.stack(np.unravel_index(group, mesh.devices.shape))
  return frozenset(name for name, along in zip(mesh.axis_names, places, strict=True) if len(set(along)) > 1)


def compiled(family: str, shape: MeshShape, **config) -> tuple[Trainer, list[Collective]]:
  trainer = runs.make_trainer(family, runs.Arrangement(shape, config=config))
  return trainer, collectives(trainer.compile().as_text(), trainer.mesh)


def kernels(trainer: Trainer) -> set[tuple[int, ...]]:
  """Shapes of parameters of two dimensions or more, of one layer, on one device but for `fsdp`."""
  shapes = set()
  for name, leaf in tree.named_leaves(trainer.abstract_state.params).items():
    spec = tuple(leaf.sharding.spec) + (None,) * (leaf.ndim - len(leaf.sharding.spec))
    shape = tuple(
      size // (1 if axes in (None, 'fsdp') else trainer.mesh.shape[axes])
      for size, axes in zip(leaf.shape, spec, strict=True)
    )
    shape = shape[1:] if tree.is_stacked(name) else shape
    if len(shape) > 1:
      shapes.add(shape)
  return shapes


def sizes(found: list[Collective], kind: str, axis: str) -> set[int]:
  """Elements of the results of that kind along an axis."""
  return {math.prod(shape) for each in found if each.kind == kind and axis in each.axes for shape in each.shapes}


ROWS = r'\[\{"data", "fsdp", "expert"\}'
GRADIENT = r'<@mesh, \[\{"tensor"\}, \{"fsdp"\}\]> : tensor<64x16xf32>'
CONSTRAINTS = {
  'residual stream': rf'{ROWS}, \{{"sequence"\}}, \{{\}}\]> : tensor<16x16x16xf32>',
  'queries': rf'{ROWS}, \{{"sequence"\}}, \{{"tensor"\}}, \{{\}}\]> : tensor<16x16x4x4xf32>',
  'keys of all positions': rf'{ROWS}, \{{\}}, \{{"tensor"\}}, \{{\}}\]> : tensor<16x16x4x4xf32>',
  'MLP': rf'{ROWS}, \{{"sequence"\}}, \{{"tensor"\}}\]> : tensor<16x16x32xf32>',
  'logits': rf'{ROWS}, \{{"sequence"\}}, \{{"tensor"\}}\]> : tensor<16x16x64xf32>',
  'gradient of the table': GRADIENT,
}


@pytest.mark.parametrize('family', ['t5', 'bert', 'gpt', 'xlnet'])
def test_the_lowered_step_is_told_where_everything_is(family):
  text = runs.make_trainer(family, runs.ARRANGEMENTS['tensor and sequence']).lower().as_text()
  told = '\n'.join(re.findall('sharding_constraint.*', text))
  for name, constraint in CONSTRAINTS.items():
    assert re.search(constraint, told), name
  if family == 't5':
    assert re.search(r'\[\{\}, \{"tensor"\}, \{"sequence"\}, \{\}\]> : tensor<1x4x16x16xf32>', told), 'position bias'


def test_only_fsdp_gathers_parameters_and_only_sequences_gather_keys():
  """Of the three axes in one program, each does its own and nothing else."""
  trainer, found = compiled('gpt', MeshShape(data=1, fsdp=2, tensor=2, sequence=2))
  whole = kernels(trainer)
  gathered = {axis: set() for axis in ('fsdp', 'tensor', 'sequence')}
  for each in found:
    if each.kind == 'all-gather':
      assert len(each.axes) == 1, each
      gathered[next(iter(each.axes))] |= set(each.shapes)
  assert whole <= gathered['fsdp'] <= whole | {(16,)}  # and the biases of the model's width
  assert gathered['sequence'] == {(8, 16, 2, 4)}  # rows, keys, heads, width of a head
  # Of the logits, each part's maximum and where it is.
  assert gathered['tensor'] <= {(8, 8, 2)}


@pytest.mark.slow
def test_without_fsdp_no_parameter_moves():
  for shape in (MeshShape(), MeshShape(data=2, tensor=4), MeshShape(data=2, sequence=4)):
    trainer, found = compiled('t5', shape)
    gathers = [each for each in found if each.kind == 'all-gather']
    # What is gathered is of rows and positions: of the logits' maxima, and of keys and values.
    rows = runs.ROWS // (shape.data if shape.data > 0 else 8)
    assert all(part[:2] == (rows, runs.LENGTH) for each in gathers for part in each.shapes), gathers
    assert bool(gathers) == (shape != MeshShape())
    assert not any(part in kernels(trainer) for each in gathers for part in each.shapes)


@pytest.mark.slow
def test_a_look_up_reads_part_of_the_table_and_logits_stay_in_parts():
  vocab = 256
  _, found = compiled('gpt', MeshShape(data=2, tensor=4), vocab_size=vocab)
  part_of_table, part_of_logits = vocab // 4 * 16, 8 * 16 * vocab // 4
  crossing = sizes(found, 'all-gather', 'tensor') | sizes(found, 'all-reduce', 'tensor')
  assert max(crossing) == 8 * 16 * 16 < part_of_logits  # looked-up vectors, and what a sub-layer adds
  assert part_of_table not in crossing


@pytest.mark.slow
def test_tokens_travel_to_their_experts_and_kernels_stay():
  trainer, found = compiled('experts', MeshShape(data=2, expert=4))
  travelling = {each.kind for each in found if 'expert' in each.axes}
  assert 'all-to-all' in travelling
  gathered = {part for each in found if each.kind == 'all-gather' for part in each.shapes}
  assert not gathered & kernels(trainer)


@pytest.mark.slow
def test_on_a_tpu_gradients_are_reduce_scattered(tpu_devices):
  """ZeRO 3 as its compiler does it, with parts of 128 columns: sums of whole gradients end in parts at once."""
  config = {'emb_dim': 256, 'head_dim': 64, 'mlp_dim': 512, 'vocab_size': 1024, 'num_layers': 1}
  alike = runs.make_trainer('gpt', runs.Arrangement(MeshShape(data=1, fsdp=8), config=config))
  mesh = make_mesh(MeshShape(data=2, fsdp=2), tpu_devices('v5e:2x2'))
  text = Trainer(alike.learner, mesh, alike.batch_spec).compile().as_text()
  made = re.findall(r'%all-reduce-scatter[\w.]* \(.*?\) -> (.*) \{', text) + re.findall(
    r'= (.*) reduce-scatter\(', text
  )
  parts = {tuple(map(int, dims.split(','))) for result in made for dims in re.findall(r'f32\[([\d,]+)\]', result)}
  # The table's, and those of kernels from and to the model's width.
  assert {(1024, 128), (128, 512), (512, 128), (128, 256), (256, 128)} <= parts
