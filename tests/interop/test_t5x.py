"""T5X's checkpoints in all its formats: its own network's logits are ours. See experiments/golden/record_t5x.py."""

from __future__ import annotations

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import serialization, traverse_util

from t5x_lite.core.errors import UsageError
from t5x_lite.interop import loading, t5x
from t5x_lite.models.t5 import T5, T5Config

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'golden' / 't5x.npz')
CASES = json.loads(str(GOLDEN['cases']))


def parameters(case):
  """T5X's parameters by name."""
  sizes = [int(np.prod(shape)) for shape in CASES[case]['shapes'].values()]
  parts = np.split(GOLDEN[f'{case}/params'].astype(np.float32), np.cumsum(sizes)[:-1])
  return {name: part.reshape(shape) for (name, shape), part in zip(CASES[case]['shapes'].items(), parts, strict=True)}


def batch():
  arrays = {name.removeprefix('in/'): GOLDEN[name] for name in GOLDEN.files if name.startswith('in/')}
  for side in ('encoder', 'decoder'):
    arrays[f'{side}_positions'] = np.zeros_like(arrays[f'{side}_segment_ids'])
  return arrays


def write_zarr(folder, name, array):
  """An array in chunks, two along every axis; returns its `metadata`."""
  import tensorstore

  chunks = [-(-size // 2) for size in array.shape]
  metadata = {'chunks': chunks, 'compressor': {'id': 'gzip', 'level': 1}, 'shape': list(array.shape)}
  store = {'driver': 'file', 'path': f'{folder}/{name}/'}
  spec = {'driver': 'zarr', 'kvstore': store, 'metadata': metadata, 'dtype': str(array.dtype)}
  tensorstore.open(spec, create=True).result().write(array).result()
  return metadata


def write_native(folder, params):
  """As `checkpoints.Checkpointer.save` of T5X: arrays in zarr, their specs, and what is small, in one msgpack file."""
  folder.mkdir(parents=True)
  target = {}
  for name, array in params.items():
    path = f'target.{name.replace("/", ".")}'
    target[name] = {
      'driver': 'zarr',
      'dtype': str(array.dtype),
      'kvstore': {'driver': 'gfile', 'path': f'{path}/'},
      'metadata': write_zarr(folder, path, array),
    }
  scale = 'encoder/encoder_norm/scale'
  target[scale] = params[scale]  # what is not partitioned is in the file itself
  write_msgpack(folder / 'checkpoint', target)


def write_msgpack(file, target):
  """A train state as flax keeps it; leaves are arrays, specs or placeholders."""
  tree = traverse_util.unflatten_dict(target, sep='/')
  state = {'version': 3, 'optimizer': {'target': tree, 'state': {'step': np.int32(7), 'param_states': {}}}}
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(serialization.msgpack_serialize(state))


def write_orbax(folder, params, **format):
  """As Orbax's handler writes the item `state` of `OrbaxCheckpointManagerInterface` of T5X."""
  import orbax.checkpoint as ocp

  state = {
    'target': traverse_util.unflatten_dict(params, sep='/'),
    'state': {'step': np.int32(7), 'param_states': None},
  }
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**format)) as checkpointer:
    checkpointer.save(folder / 'state', args=ocp.args.PyTreeSave(state))


def write_placeholders(folder, params):
  """As Orbax did before it had metadata: names of zarr arrays in a msgpack file."""
  for name, array in params.items():
    write_zarr(folder / 'state', f'target.{name.replace("/", ".")}', array)
  target = {name: f'PLACEHOLDER://target.{name.replace("/", ".")}' for name in params}
  tree = traverse_util.unflatten_dict(target, sep='/')
  (folder / 'state' / 'checkpoint').write_bytes(serialization.msgpack_serialize({'target': tree, 'state': {'step': 7}}))


FORMATS = {
  'native': write_native,
  'orbax_ocdbt': write_orbax,
  'orbax_zarr': functools.partial(write_orbax, use_ocdbt=False),
  'orbax_zarr3': functools.partial(write_orbax, use_zarr3=True),
  'orbax_placeholders': write_placeholders,
  'msgpack': lambda folder, params: write_msgpack(folder, params),
}


def load(path, module=None):
  source, table = t5x.open_t5x(path, module)
  module = t5x.module_of(source) if module is None else module
  params, report = loading.load(table, source, abstract_params(module))
  return module, params, report


def abstract_params(module):
  return nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), batch())['params'])


def assert_golden(case, module, params):
  arrays = batch()
  logits = np.asarray(jax.jit(module.apply)({'params': params}, arrays))
  real = arrays['decoder_segment_ids'] > 0  # T5X's padding attends to nothing, ours to padding
  np.testing.assert_allclose(logits[real], GOLDEN[f'{case}/logits'][real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_a_checkpoint_gives_the_logits_of_t5xs_own_network(case, tmp_path):
  write_native(tmp_path / 'checkpoint_1000', parameters(case))
  assert t5x.is_t5x(tmp_path)
  module, params, report = load(tmp_path)
  assert not report.fresh and not report.ignored
  for field in (
    'vocab_size',
    'emb_dim',
    'num_heads',
    'head_dim',
    'mlp_dim',
    'num_encoder_layers',
    'num_decoder_layers',
  ):
    assert getattr(module.config, field) == CASES[case]['config'][field], field
  assert list(module.config.mlp_activations) == CASES[case]['config']['mlp_activations']
  assert_golden(case, module, params)


@pytest.mark.parametrize('case', ['t5_1_1', 'scanned_1_0'])
@pytest.mark.parametrize('kind', FORMATS)
def test_all_formats_hold_the_same(kind, case, tmp_path):
  path = tmp_path / 'run' / 'checkpoint_20'
  path.parent.mkdir()
  FORMATS[kind](path, parameters(case))
  for given in (path, path.parent):
    assert t5x.is_t5x(given)
    source, _ = t5x.open_t5x(given)
    whole = {name: array for name, array in parameters(case).items() if name in source.names()}
    assert {'token_embedder/embedding', 'decoder/decoder_norm/scale'} <= whole.keys()  # all but scanned stacks
    for name, array in whole.items():
      part = tuple(slice(1, size) for size in array.shape)
      np.testing.assert_array_equal(source.read(name, part), array[part], err_msg=name)
  module, params, _ = load(path)
  assert_golden(case, module, params)


@pytest.mark.parametrize('scan_layers', [True, False])
def test_either_layout_of_ours_and_either_axis_of_theirs(scan_layers, tmp_path):
  module = T5(
    T5Config(**CASES['scanned_1_1']['config'] | {'mlp_activations': ('gelu', 'linear'), 'scan_layers': scan_layers})
  )
  params = parameters('scanned_1_1')
  moved = {
    name: np.moveaxis(array, 1, 0) if name.startswith(('encoder/encoder/', 'decoder/decoder/')) else array
    for name, array in params.items()
  }
  write_msgpack(tmp_path / 'one', params)
  write_msgpack(tmp_path / 'two', moved)
  for name in ('one', 'two'):
    assert_golden('scanned_1_1', *load(tmp_path / name, module)[:2])


def test_the_newest_checkpoint_of_a_run_is_taken_and_a_head_is_fresh(tmp_path):
  for step in (9, 100, 20):
    params = parameters('t5_1_1')
    params['encoder/encoder_norm/scale'][:] = step
    write_native(tmp_path / f'checkpoint_{step}', params)
  (tmp_path / 'checkpoint_300.tmp-17').mkdir()
  source, table = t5x.open_t5x(tmp_path)
  assert source.read('encoder/encoder_norm/scale', (slice(0, 1),))[0] == 100
  config = T5Config(**CASES['t5_1_1']['config'] | {'mlp_activations': ('gelu', 'linear'), 'heads': ('lm', 'span')})

  def fresh(names):
    return {name: jax.numpy.zeros((config.emb_dim, 2) if 'kernel' in name else 2) for name in names}

  _, report = loading.load(table, source, abstract_params(T5(config)), fresh=fresh)
  assert set(report.fresh) == {'heads/span/kernel', 'heads/span/bias'}


def test_what_is_no_checkpoint_of_t5x(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  assert not t5x.is_t5x(tmp_path)
  assert not t5x.is_t5x(tmp_path / 'config.json')
  assert not t5x.is_t5x(tmp_path / 'nothing')
  import orbax.checkpoint as ocp

  with ocp.PyTreeCheckpointer() as checkpointer:  # ours has `params`
    checkpointer.save(tmp_path / 'checkpoint_3' / 'state', {'params': {'a': np.zeros(3)}, 'step': np.int32(3)})
  assert not t5x.is_t5x(tmp_path)
  with pytest.raises(UsageError, match='holds no parameters of T5X'):
    t5x.open_t5x(tmp_path)
  with pytest.raises(UsageError, match='no checkpoint of T5X'):
    t5x.open_t5x(tmp_path / 'nothing')


def damage_file(folder):
  file = folder / 'checkpoint'
  file.write_bytes(file.read_bytes()[:-100])


def damage_by_removal(folder):
  for chunk in (folder / 'target.decoder.logits_dense.kernel').iterdir():
    if chunk.name != '.zarray':
      chunk.unlink()


def damage_chunk(folder):
  next(folder.glob('target.decoder.logits_dense.kernel/0*')).write_bytes(b'abc')


def damage_folder(folder):
  (folder / 'target.decoder.logits_dense.kernel' / '.zarray').unlink()


def damage_tree(folder):
  write_msgpack(folder / 'checkpoint', {'something/else': np.zeros(3)})


def become_tensorflow(folder):
  (folder / 'checkpoint').write_bytes(b'model_checkpoint_path: "model.ckpt-1000000"\n')


def lead_outside(folder):
  spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': '../../secret/'}, 'metadata': {'shape': [3]}}
  write_msgpack(folder / 'checkpoint', {'token_embedder/embedding': spec})


def keep_as_uint16(folder):
  write_msgpack(folder / 'checkpoint', {'token_embedder/embedding': np.zeros((3, 4), np.uint16)})


def part_the_biases(folder):
  params = parameters('unrolled_1_1')
  params['encoder/layers_1/relpos_bias/rel_embedding'] += 1
  write_msgpack(folder / 'checkpoint', params)


@pytest.mark.parametrize(
  ('damage', 'told'),
  [
    (damage_file, 'cut short or damaged'),
    (damage_by_removal, 'cannot read decoder/logits_dense/kernel: .* is missing'),
    (damage_chunk, 'cannot read decoder/logits_dense/kernel'),
    (damage_folder, 'cannot open decoder/logits_dense/kernel'),
    (damage_tree, 'holds no T5 with an encoder and a decoder'),
    (become_tensorflow, 'is a checkpoint of TensorFlow'),
    (lead_outside, 'expected zarr, in a folder beside the file'),
    (keep_as_uint16, 'kept as uint16'),
    (part_the_biases, 'layers_0/relpos_bias/rel_embedding and encoder/layers_1/relpos_bias/rel_embedding differ'),
  ],
)
def test_a_damaged_checkpoint_is_told_in_one_line(damage, told, tmp_path):
  write_native(tmp_path / 'checkpoint_5', parameters('t5_1_1'))
  damage(tmp_path / 'checkpoint_5')
  assert t5x.is_t5x(tmp_path)
  with pytest.raises(UsageError, match=told) as raised:
    load(tmp_path)
  assert '\n' not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_another_model_is_refused(tmp_path):
  write_native(tmp_path / 'checkpoint_5', parameters('t5_1_1'))
  config = CASES['t5_1_1']['config'] | {'mlp_activations': ('gelu', 'linear')}
  for changes, told in (
    ({'logits_via_embedding': True}, 'logits are made by its own table there and by the embedding here'),
    ({'mlp_dim': 12}, r'mlp/wi_0/kernel is \[8, 10\], expected \[8, 12\]'),
    ({'mlp_activations': ('relu',)}, 'lacks .*encoder/layers_0/mlp/wi/kernel'),
    ({'num_encoder_layers': 1}, 'has more layers than this model'),
    ({'num_decoder_layers': 3}, 'lacks decoder/layers_2/'),
  ):
    with pytest.raises(UsageError, match=told):
      load(tmp_path, T5(T5Config(**config | changes)))


def test_slices_are_read_and_no_more(tmp_path, monkeypatch):
  """What is not asked for is not needed: the other chunks of an array may be gone."""
  write_native(tmp_path / 'checkpoint_5', parameters('scanned_1_1'))
  folder = tmp_path / 'checkpoint_5' / 'target.encoder.encoder.mlp.wo.kernel'
  for chunk in folder.glob('1.*'):
    chunk.unlink()
  source, _ = t5x.open_t5x(tmp_path)
  kernel = parameters('scanned_1_1')['encoder/encoder/mlp/wo/kernel']
  assert source.shape('encoder/layers_1/mlp/wo/kernel') == (10, 8)
  found = source.read('encoder/layers_1/mlp/wo/kernel', (slice(1, 4), slice(2, 8)))
  np.testing.assert_array_equal(found, kernel[1:4, 1, 2:8])
  with pytest.raises(UsageError, match='is missing'):
    source.read('encoder/layers_1/mlp/wo/kernel', (slice(1, 9), slice(2, 8)))
