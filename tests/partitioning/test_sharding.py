"""Placement: every parameter, statistic and row where the rules say."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

import t5x_lite
from t5x_lite.core import axes, tree
from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.partitioning.rules import STANDARD_RULES


def boxed(**leaves):
  """Abstract parameters: name=(shape, logical names)."""
  return {
    name: nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, np.float32), names)
    for name, (shape, names) in leaves.items()
  }


KERNELS = {
  'wi': ((2, 16, 32), (axes.LAYERS, axes.EMBED, axes.MLP)),
  'query': ((16, 24), (axes.EMBED, axes.JOINED_KV)),
  'embedding': ((40, 16), (axes.VOCAB, axes.EMBED)),
  'relpos': ((31, 8), (axes.RELPOS_BUCKETS, axes.HEADS)),
  'scale': ((16,), (axes.EMBED,)),
}


def test_parameters_follow_the_rules():
  mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
  places = sharding.param_shardings(boxed(**KERNELS), mesh, STANDARD_RULES)
  assert {name: place.spec for name, place in places.items()} == {
    'wi': P(None, 'fsdp', 'tensor'),
    'query': P('fsdp', 'tensor'),
    'embedding': P('tensor', 'fsdp'),
    'relpos': P(None, 'tensor'),
    'scale': P('fsdp'),
  }


def test_a_mesh_that_does_not_divide_a_parameter_names_it_and_what_fits():
  mesh = make_mesh(MeshShape(data=1, tensor=8))
  with pytest.raises(UsageError) as error:
    sharding.param_shardings({'mlp': boxed(wi=((16, 36), (axes.EMBED, axes.MLP)))}, mesh, STANDARD_RULES)
  for word in ('mlp/wi', 'dimension 1 (mlp)', '36', 'tensor=8', '[1, 2, 3, 4, 6]'):
    assert word in str(error.value)


def test_a_rule_for_an_unknown_mesh_axis_is_refused():
  with pytest.raises(UsageError, match="'tensr': did you mean 'tensor'"):
    sharding.param_shardings(boxed(**KERNELS), make_mesh(), ((axes.MLP, 'tensr'),))
  with pytest.raises(UsageError, match="'dat': did you mean 'data'"):
    sharding.check_batch(8, make_mesh(), ((axes.ACT_BATCH, ('dat', 'fsdp')),))


def test_a_parameter_without_names_is_replicated():
  plain = {'table': jax.ShapeDtypeStruct((7, 3), np.float32)}
  assert sharding.param_shardings(plain, make_mesh(), STANDARD_RULES)['table'].is_fully_replicated


def test_optimizer_statistics_live_with_their_parameters():
  mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
  square = ((16, 16), (axes.EMBED, axes.MLP))
  experts = ((2, 4, 16, 32), (axes.LAYERS, axes.EXPERT, axes.EMBED, axes.MLP))
  tree_of = boxed(**KERNELS, square=square, experts=experts)
  params, places = nn.unbox(tree_of), sharding.param_shardings(tree_of, mesh, STANDARD_RULES)
  rows = {name: jax.ShapeDtypeStruct(leaf.shape[:-1], np.float32) for name, leaf in params.items()}
  columns = {
    name: jax.ShapeDtypeStruct((*leaf.shape[:-2], leaf.shape[-1]), np.float32) for name, leaf in params.items()
  }
  state = {
    'adam': jax.eval_shape(optax.adam(1e-3).init, params),
    'v_row': rows,
    'v_col': columns,
    'placeholder': {name: jax.ShapeDtypeStruct((1,), np.float32) for name in params},
  }
  found = tree.named_leaves(sharding.optimizer_shardings(state, params, places, mesh))
  for name, place in places.items():
    assert found[f'adam/0/mu/{name}'].spec == found[f'adam/0/nu/{name}'].spec == place.spec
    assert found[f'placeholder/{name}'].spec == P()
  assert found['adam/0/count'].spec == P()
  assert found['v_row/wi'].spec == P(None, 'fsdp')
  assert found['v_col/wi'].spec == P(None, 'tensor')
  assert found['v_row/square'].spec == P('fsdp')
  assert found['v_col/square'].spec == P('tensor')
  assert found['v_row/experts'].spec == P(None, 'expert', 'fsdp')
  assert found['v_col/experts'].spec == P(None, 'expert', 'tensor')


@pytest.mark.parametrize('shape', [MeshShape(), MeshShape(1, 2, 4), MeshShape(2, 2, 2), MeshShape(2, 1, 2, 2)])
def test_a_sharded_batch_is_the_batch(shape):
  mesh = make_mesh(shape)
  host = {'a': np.arange(16 * 3).reshape(16, 3), 'b': np.arange(16.0, dtype=np.float32).reshape(16, 1)}
  rows = sharding.process_rows(mesh, STANDARD_RULES, 16)
  np.testing.assert_array_equal(rows, np.arange(16))
  placed = sharding.shard_batch(host, mesh, STANDARD_RULES, 16)
  for name, value in host.items():
    np.testing.assert_array_equal(placed[name], value)
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    assert {shard.data.shape[0] for shard in placed[name].addressable_shards} == {16 // ways}


def test_bad_batches_say_what_fits():
  mesh = make_mesh(MeshShape(data=2, fsdp=4))
  with pytest.raises(UsageError, match=r'batch of 100 rows .* data=2 \* fsdp=4: 96 or 104 would fit'):
    sharding.process_rows(mesh, STANDARD_RULES, 100)
  with pytest.raises(UsageError, match=r'batch of 16 rows .* 4 microbatches on data=2 \* fsdp=4: 32 would fit'):
    sharding.check_batch(16, mesh, STANDARD_RULES, num_microbatches=4)
  with pytest.raises(UsageError, match='x has 3 rows, but this process supplies 8 of 8'):
    sharding.shard_batch({'x': np.zeros((3, 2))}, mesh, STANDARD_RULES, 8)


PROCESS = """
import sys
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(f'127.0.0.1:{sys.argv[2]}', 2, int(sys.argv[1]))
import numpy as np
from t5x_lite.partitioning import mesh as mesh_lib, rules, sharding
batch = np.arange(24, dtype=np.int32).reshape(8, 3)
devices = np.asarray(jax.devices()).reshape(2, 2)
# Once rows are cut over processes, once (devices transposed) every row is held by both.
for order in (devices, devices.T):
  mesh = mesh_lib.make_mesh(mesh_lib.MeshShape(data=2, tensor=2), list(order.flat))
  rows = sharding.process_rows(mesh, rules.STANDARD_RULES, 8)
  placed = sharding.shard_batch({'x': batch[rows]}, mesh, rules.STANDARD_RULES, 8)['x']
  for shard in placed.addressable_shards:
    np.testing.assert_array_equal(np.asarray(shard.data), batch[shard.index])
  total = jax.jit(lambda x: (x * x).sum(), out_shardings=sharding.replicated(mesh))(placed)
  print(f'<{len(rows)} rows, sum {int(total)}>', flush=True)
"""


@pytest.mark.slow
def test_two_processes_supply_their_rows_and_share_those_of_a_spanning_tensor_axis():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = str(probe.getsockname()[1])
  env = os.environ | {'PYTHONPATH': str(pathlib.Path(t5x_lite.__file__).parent.parent)}
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', PROCESS, str(index), port],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  finished = [(*process.communicate(timeout=120), process.returncode) for process in processes]
  total = int(np.sum(np.arange(24) ** 2))
  for out, err, code in finished:
    assert code == 0, err
    assert re.findall('<.*?>', out) == [f'<4 rows, sum {total}>', f'<8 rows, sum {total}>']
