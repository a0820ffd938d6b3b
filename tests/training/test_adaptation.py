"""Low-rank updates, frozen parameters, and rates that fall with depth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from t5x_lite.core import errors, tree
from t5x_lite.training import adaptation, optimizers

LAYERS, WIDTH, RANK = 3, 4, 2


def boxed(value, *names):
  return nn.LogicallyPartitioned(jnp.asarray(value, jnp.float32), names)


def params():
  rng = np.random.default_rng(0)
  kernel = boxed(rng.normal(size=(LAYERS, WIDTH, 2 * WIDTH)), 'layers', 'embed', 'joined_kv')
  return {
    'embeddings': {'tokens': {'embedding': boxed(rng.normal(size=(8, WIDTH)), 'vocab', 'embed')}},
    'blocks': {
      'layers': {
        'self_attention': {
          'query': {'kernel': kernel},
          'norm': {'scale': boxed(np.ones((LAYERS, WIDTH)), 'layers', 'embed')},
        }
      }
    },
    'heads': {'classification': {'kernel': boxed(rng.normal(size=(WIDTH, 2)), 'embed', 'labels')}},
  }


def test_updates_begin_as_nothing_and_are_then_a_product_of_low_rank():
  lora = adaptation.Lora(rank=RANK, alpha=6.0)
  added = lora.add(params(), jax.random.key(0))
  specs = tree.named_leaves(nn.get_partition_spec(added))
  query = 'blocks/layers/self_attention/query'
  assert tuple(specs[f'{query}/lora_a']) == ('layers', 'embed', None)
  assert tuple(specs[f'{query}/lora_b']) == ('layers', None, 'joined_kv')
  plain, full = nn.unbox(params()), nn.unbox(added)
  assert set(tree.named_leaves(full)) - set(tree.named_leaves(plain)) == {
    f'{query}/{leaf}' for leaf in adaptation.LEAVES
  }
  jax.tree.map(np.testing.assert_array_equal, adaptation.merged(full), plain)
  jax.tree.map(np.testing.assert_array_equal, adaptation.without_updates(full), plain)
  part = full['blocks']['layers']['self_attention']['query']
  assert np.all(np.abs(part['lora_a']) <= WIDTH**-0.5) and np.std(part['lora_a']) > 0
  part['lora_b'] = jnp.ones_like(part['lora_b'])
  delta = np.asarray(adaptation.merged(full)['blocks']['layers']['self_attention']['query']['kernel'] - part['kernel'])
  for layer in range(LAYERS):
    expected = 6.0 / RANK * np.asarray(part['lora_a'][layer]) @ np.ones((RANK, 2 * WIDTH))
    np.testing.assert_allclose(delta[layer], expected, rtol=1e-5, atol=1e-6)


def test_leaves_move_from_one_tree_to_another():
  full = nn.unbox(adaptation.Lora(rank=RANK).add(params(), jax.random.key(0)))
  again = adaptation.with_updates_of(adaptation.without_updates(full), full)
  assert jax.tree.structure(again) == jax.tree.structure(full)
  jax.tree.map(np.testing.assert_array_equal, again, full)


def test_what_is_not_trained_has_no_state_and_stays():
  plain = nn.unbox(params())
  optimizer = adaptation.of_trained(optimizers.adamw(0.1, max_grad_norm=1.0), lambda name: name.startswith('heads/'))
  state = optimizer.init(plain)
  arrays = [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, 'ndim', 0)]
  assert {leaf.shape for leaf in arrays} == {(WIDTH, 2)}
  updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, plain), state, plain)
  moved = {
    name
    for name, leaf in tree.named_leaves(optax.apply_updates(plain, updates)).items()
    if not np.array_equal(leaf, tree.named_leaves(plain)[name])
  }
  assert moved == {'heads/classification/kernel'}


def test_no_gradient_of_what_is_held_back():
  plain = nn.unbox(params())
  grads = jax.grad(
    lambda own: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(adaptation.held_back(own, lambda name: 'query' in name)))
  )(plain)
  assert {name for name, leaf in tree.named_leaves(grads).items() if np.any(leaf)} == {
    'blocks/layers/self_attention/query/kernel'
  }


@pytest.mark.parametrize(
  ('settings', 'words'),
  [({'rank': 0}, 'rank >= 1'), ({'alpha': 0.0}, 'alpha > 0'), ({'kernels': ('(',)}, 'is no regular expression')],
)
def test_impossible_updates_are_refused(settings, words):
  with pytest.raises(errors.UsageError, match=words):
    adaptation.Lora(**settings)


def test_kernels_that_are_not_there_are_refused_and_those_that_are_told():
  with pytest.raises(errors.UsageError, match='self_attention/query/kernel'):
    adaptation.Lora(kernels=('mlp',)).add(params(), jax.random.key(0))


@pytest.mark.parametrize('stacked', [True, False])
def test_rates_fall_with_depth(stacked):
  plain = nn.unbox(params())
  if not stacked:
    layers = plain['blocks'].pop('layers')
    plain['blocks'] = {f'layers_{n}': jax.tree.map(lambda leaf, n=n: leaf[n], layers) for n in range(LAYERS)}
  factors = tree.named_leaves(optimizers.depth_factors(plain, 0.5))
  assert factors['heads/classification/kernel'] == 1.0
  assert factors['embeddings/tokens/embedding'] == 0.5 ** (LAYERS + 1)
  if stacked:
    found = factors['blocks/layers/self_attention/query/kernel'].ravel().tolist()
  else:
    found = [factors[f'blocks/layers_{n}/self_attention/query/kernel'] for n in range(LAYERS)]
  assert found == [0.125, 0.25, 0.5]
  one, half = (optimizers.adamw(0.1, weight_decay=0.01, layer_decay=decay) for decay in (None, 0.5))
  grads = jax.tree.map(jnp.ones_like, plain)
  full, less = (each.update(grads, each.init(plain), plain)[0] for each in (one, half))
  name = 'embeddings/tokens/embedding'
  np.testing.assert_allclose(tree.named_leaves(less)[name], tree.named_leaves(full)[name] / 16, rtol=1e-6)


def test_a_decay_above_one_is_refused():
  with pytest.raises(errors.UsageError, match='layer_decay='):
    optimizers.adamw(0.1, layer_decay=1.5)
