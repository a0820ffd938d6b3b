"""The peer of `tpu.py`: T5X's own T5 1.1, its train step compiled for a TPU topology, as one line of JSON.

    <python with jax[tpu], flax, optax> experiments/benchmarks/tpu_peers.py T5X_CHECKOUT v5e:2x4 base 128 [--scanned]

Only the two files of T5X's example that define the network are loaded, so that nothing else of T5X need be installed:
`t5`, whose layers are unrolled, or `scalable_t5`, scanned, with full rematerialisation. Around them: bfloat16
activations, the z-loss, optax's Adafactor, the batch divided over all devices and the parameters on each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

INPUTS, TARGETS, VOCABULARY = 512, 114, 32128
SIZES = {  # emb_dim, mlp_dim, layers, heads, head_dim
  'small': (512, 1024, 8, 6, 64),
  'base': (768, 2048, 12, 12, 64),
  'large': (1024, 2816, 24, 16, 64),
  'xl': (2048, 5120, 24, 32, 64),
}


def network(checkout: pathlib.Path, example: str) -> types.ModuleType:
  """The module `network` of an example, and with it the one that it imports."""
  package = f't5x.examples.{example}'
  for name in ('t5x', 't5x.examples', package):
    sys.modules[name] = types.ModuleType(name)
  for part in ('layers', 'network'):
    spec = importlib.util.spec_from_file_location(
      f'{package}.{part}', checkout / 't5x' / 'examples' / example / f'{part}.py'
    )
    if spec is None or spec.loader is None or not pathlib.Path(spec.origin or '').exists():
      sys.exit(f'no T5X in {checkout}: expected its repository, with t5x/examples/{example}/{part}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    setattr(sys.modules[package], part, module)
  return sys.modules[f'{package}.network']


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('checkout', type=pathlib.Path)
  parser.add_argument('topology')
  parser.add_argument('size', choices=SIZES)
  parser.add_argument('rows', type=int)
  parser.add_argument('--scanned', action='store_true')
  args = parser.parse_args()
  net = network(args.checkout, 'scalable_t5' if args.scanned else 't5')
  emb_dim, mlp_dim, layers, heads, head_dim = SIZES[args.size]
  config = net.T5Config(
    vocab_size=VOCABULARY,
    dtype=jnp.bfloat16,
    emb_dim=emb_dim,
    mlp_dim=mlp_dim,
    num_heads=heads,
    head_dim=head_dim,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.0,
    logits_via_embedding=False,
    **({'remat_policy': 'full', 'scan_layers': True} if args.scanned else {}),
  )
  model, optimizer = net.Transformer(config), optax.adafactor(1e-3)

  def loss(params, batch):
    logits = model.apply(
      {'params': params},
      batch['inputs'],
      batch['shifted'],
      batch['targets'],
      encoder_segment_ids=batch['input_segments'],
      decoder_segment_ids=batch['target_segments'],
      enable_dropout=False,
    )
    log_z = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)
    chosen = jnp.take_along_axis(logits, batch['targets'][..., None], axis=-1)[..., 0]
    return jnp.sum((log_z - chosen) * (batch['targets'] > 0)) + 1e-4 * jnp.sum(log_z**2)

  def step(params, state, batch):
    value, gradients = jax.value_and_grad(loss)(params, batch)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  devices = topologies.get_topology_desc(platform='tpu', topology_name=args.topology).devices
  mesh = Mesh(np.array(devices), ('data',))

  def placed(tree, *axes):
    place = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)

  one = {name: jnp.ones((1, INPUTS if name == 'inputs' else TARGETS), jnp.int32) for name in ('inputs', 'targets')}
  init = lambda: model.init(jax.random.key(0), one['inputs'], one['targets'], one['targets'], enable_dropout=False)  # noqa: E731
  params = jax.eval_shape(init)['params']
  shapes = {name: INPUTS if name.startswith('input') else TARGETS for name in ('inputs', 'input_segments')}
  shapes |= dict.fromkeys(('targets', 'shifted', 'target_segments'), TARGETS)
  batch = {name: jax.ShapeDtypeStruct((args.rows, length), jnp.int32) for name, length in shapes.items()}
  start = time.perf_counter()
  lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
    placed(params), placed(jax.eval_shape(optimizer.init, params)), placed(batch, 'data')
  )
  memory = lowered.compile().memory_analysis()
  found = {'temporaries_bytes': memory.temp_size_in_bytes, 'compile_seconds': time.perf_counter() - start}
  print(json.dumps(found | {'devices': len(devices), 'parameters': sum(x.size for x in jax.tree.leaves(params))}))


if __name__ == '__main__':
  main()
