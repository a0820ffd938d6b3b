"""Tables of names at work: sharded reads, heads and vocabularies that theirs lacks, and what does not fit, by name."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t5x_lite.core import errors
from t5x_lite.interop.export import export, their_specs
from t5x_lite.interop.layouts import TRANSPOSED, fused
from t5x_lite.interop.loading import load
from t5x_lite.interop.names import Entry, prefixed, with_endings
from t5x_lite.interop.tensors import ArraySource
from t5x_lite.partitioning.mesh import MeshShape, make_mesh

TABLE = (
  *prefixed(
    'bert.',
    (
      Entry('table', 'words.weight', tied=('out.weight',), vocabulary=0),
      Entry('blocks/{layer}/key', 'h.{layer}.attn.weight', fused(1, 2, axis=1)),
      Entry('blocks/{layer}/query', 'h.{layer}.attn.weight', fused(0, 2, axis=1)),
      *with_endings(
        {'LayerNorm.weight': 'LayerNorm.gamma'}, [Entry('blocks/{layer}/norm', 'h.{layer}.LayerNorm.weight')]
      ),
    ),
  ),
  Entry('head', 'classifier.weight', TRANSPOSED, head=True),
  Entry('unused', 'pooler.weight'),
)
LAYERS, TOKENS, WIDTH = 3, 8, 4


def ours(scan, seed=0):
  rng = np.random.default_rng(seed)
  stacked = {
    'key': rng.normal(size=(LAYERS, WIDTH, 6)).astype(np.float32),
    'query': rng.normal(size=(LAYERS, WIDTH, 6)).astype(np.float32),
    'norm': rng.normal(size=(LAYERS, WIDTH)).astype(np.float32),
  }
  blocks = {'layers': stacked}
  if not scan:
    blocks = {f'layers_{i}': {name: array[i] for name, array in stacked.items()} for i in range(LAYERS)}
  table = rng.normal(size=(TOKENS, WIDTH)).astype(np.float32)
  return {'table': table, 'blocks': blocks, 'head': rng.normal(size=(WIDTH, 2)).astype(np.float32)}


def abstract(params, sharding=None):
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), params)


def theirs(params):
  return dict(export(TABLE, params))


@pytest.mark.parametrize('scan', [True, False])
def test_there_and_back_and_the_other_layout_of_layers(scan):
  params = ours(scan)
  tensors = theirs(params)
  assert {name: (spec.shape, spec.dtype) for name, spec in their_specs(TABLE, params).items()} == {
    name: (array.shape, array.dtype) for name, array in tensors.items()
  }
  assert tensors['bert.h.1.attn.weight'].shape == (WIDTH, 12) and tensors['classifier.weight'].shape == (2, WIDTH)
  for other in (True, False):
    loaded, report = load(TABLE, ArraySource(tensors), abstract(ours(other)))
    jax.tree.map(np.testing.assert_array_equal, loaded, ours(other))
    assert not report.lines()


def test_other_names_are_found_and_copies_must_be_equal():
  tensors = {
    name.removeprefix('bert.').replace('norm.weight', 'norm.gamma'): x for name, x in theirs(ours(True)).items()
  }
  tensors = {name.replace('LayerNorm.weight', 'LayerNorm.gamma'): x for name, x in tensors.items()}
  tensors['out.weight'] = tensors['words.weight']
  loaded, report = load(TABLE, ArraySource(tensors), abstract(ours(True)))
  jax.tree.map(np.testing.assert_array_equal, loaded, ours(True))
  assert report.ignored == ()
  tensors['out.weight'] = tensors['words.weight'] + 1
  with pytest.raises(errors.UsageError, match=r'words\.weight and out\.weight differ'):
    load(TABLE, ArraySource(tensors), abstract(ours(True)))


def test_every_device_reads_its_own_part_and_none_twice():
  mesh = make_mesh(MeshShape(data=2, fsdp=4))
  params = ours(True)
  reads = []

  class Watched(ArraySource):
    def read(self, name, index):
      reads.append((name, np.prod([part.stop - part.start for part in index])))
      return super().read(name, index)

  split = PartitionSpec(None, 'fsdp')
  places = {
    'table': PartitionSpec('fsdp', None),
    'blocks': {'layers': {'key': split, 'query': split, 'norm': PartitionSpec()}},
    'head': PartitionSpec(),
  }
  wanted = jax.tree.map(
    lambda leaf, spec: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)), params, places
  )
  loaded, _ = load(TABLE, Watched(theirs(params)), wanted)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert loaded['table'].sharding == wanted['table'].sharding
  of_table = [size for name, size in reads if name == 'bert.words.weight']
  assert of_table == [TOKENS * WIDTH // 4] * 4
  assert sum(size for name, size in reads if '.attn.' in name) == 2 * LAYERS * WIDTH * 6


def test_half_precision_becomes_ours():
  import jax.numpy as jnp

  tensors = {name: np.asarray(x).astype(jnp.bfloat16) for name, x in theirs(ours(True)).items()}
  loaded, _ = load(TABLE, ArraySource(tensors), abstract(ours(True)))
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded))
  np.testing.assert_array_equal(loaded['table'], tensors['bert.words.weight'].astype(np.float32))


def fresh_of(params):
  return lambda names: {name: jax.numpy.asarray(params[name]) for name in names}


def test_a_head_that_is_lacking_is_fresh_and_said_to_be():
  tensors = {name: x for name, x in theirs(ours(True)).items() if name != 'classifier.weight'}
  other = ours(True, seed=1)
  loaded, report = load(TABLE, ArraySource(tensors), abstract(ours(True)), fresh=fresh_of(other))
  np.testing.assert_array_equal(loaded['head'], other['head'])
  assert report.fresh == ('head',) and 'head' not in report.loaded
  assert report.lines() == ['newly initialised: head']
  with pytest.raises(errors.UsageError, match=r'lacks classifier\.weight'):
    load(TABLE, ArraySource(tensors), abstract(ours(True)))


@pytest.mark.parametrize('sharded', [False, True])
@pytest.mark.parametrize('rows', [12, 4])
def test_the_vocabulary_is_resized_on_request_only(rows, sharded):
  sharding = NamedSharding(make_mesh(MeshShape(data=2, fsdp=4)), PartitionSpec('fsdp')) if sharded else None
  params = ours(True)
  source = ArraySource(theirs(params))
  other = {'table': np.full((rows, WIDTH), 7.0, np.float32)}
  wanted = abstract(params) | {'table': jax.ShapeDtypeStruct((rows, WIDTH), np.float32, sharding=sharding)}
  place = {'table': jax.device_put(other['table'], sharding)}

  def fresh(names):
    return {name: place[name] for name in names}

  with pytest.raises(errors.UsageError, match=f'words.weight has {TOKENS} tokens, expected {rows}'):
    load(TABLE, source, wanted, fresh=fresh)
  loaded, report = load(TABLE, source, wanted, fresh=fresh, resize=True)
  table = np.asarray(loaded['table'])
  np.testing.assert_array_equal(table[:TOKENS], params['table'][:rows])
  np.testing.assert_array_equal(table[TOKENS:], 7.0)
  told = '4 rows newly initialised' if rows > TOKENS else '4 rows dropped'
  assert report.resized == (f'table: {TOKENS} tokens there, {rows} here: {told}',)


def test_what_does_not_fit_is_refused_by_name_before_anything_is_read():
  class Unread(ArraySource):
    def read(self, name, index):
      raise AssertionError(name)

  good = theirs(ours(True))
  for change, told in (
    ({'bert.h.1.attn.weight': np.zeros((WIDTH, 10))}, r'bert\.h\.1\.attn\.weight is \[4, 10\], expected \[4, 12\]'),
    ({'bert.words.weight': np.zeros((TOKENS, 5))}, r'words\.weight is \[8, 5\], expected \[8, 4\]'),
    ({'bert.h.3.LayerNorm.weight': np.zeros(WIDTH)}, r'more layers than this model: bert\.h\.3\.LayerNorm\.weight'),
  ):
    with pytest.raises(errors.UsageError, match=told):
      load(TABLE, Unread(good | change), abstract(ours(True)), fresh=fresh_of(ours(True)), resize=True)
  lacking = {name: x for name, x in good.items() if '.2.' not in name}
  with pytest.raises(errors.UsageError, match=r'lacks bert\.h\.2\..*: it holds another model'):
    load(TABLE, Unread(lacking), abstract(ours(True)))


def test_what_is_not_read_is_listed_alike_names_together():
  tensors = theirs(ours(True)) | {f'h.{i}.attn.mask': np.zeros(1) for i in range(3)} | {'step': np.zeros(1)}
  _, report = load(TABLE, ArraySource(tensors), abstract(ours(True)))
  assert report.ignored == ('h.0.attn.mask', 'h.1.attn.mask', 'h.2.attn.mask', 'step')
  assert report.lines() == ['not loaded: h.*.attn.mask (3), step']


def test_a_parameter_without_a_name_is_refused():
  with pytest.raises(errors.UsageError, match='without a counterpart there: router/kernel'):
    load(TABLE, ArraySource({}), abstract({'router': {'kernel': np.zeros(3)}}))
