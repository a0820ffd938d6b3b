"""Adafactor as T5X has it, layer by layer; weight decay and clipping of all optimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_lite.core import tree
from t5x_lite.training import optimizers

OPTIMIZERS = (optimizers.adafactor, optimizers.adamw, optimizers.sgd, optimizers.lion, optimizers.lamb)


def run(optimizer, params, steps):
  """Parameters after the given gradients."""
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for grads in steps:
    updates, state = update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


def random_tree(shapes, rng, scale=1.0):
  def draw(shape):
    return jnp.asarray(scale * rng.normal(size=shape) * rng.lognormal(0, 1, size=shape), jnp.float32)

  return jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))


def t5x_adafactor(param, steps, learning_rate, factored, momentum=None, decay=None):
  """Algorithm 4 to 6 of the paper in T5X's order, for one matrix or vector, in float64."""
  v = v_row = v_col = m = 0.0
  param = np.asarray(param, np.float64)
  for t, grad in enumerate(steps, start=1):
    beta = 1 - t**-0.8
    grad = np.asarray(grad, np.float64)
    square = grad**2 + 1e-30
    if factored:
      v_row = beta * v_row + (1 - beta) * square.mean(axis=1)
      v_col = beta * v_col + (1 - beta) * square.mean(axis=0)
      update = grad / np.sqrt(np.outer(v_row, v_col) / v_row.mean())
    else:
      v = beta * v + (1 - beta) * square
      update = grad / np.sqrt(v)
    update /= max(1.0, np.sqrt(np.mean(update**2)) / 1.0)
    update *= learning_rate(t - 1) * max(1e-3, np.sqrt(np.mean(param**2)))
    if momentum is not None:
      update = m = momentum * m + (1 - momentum) * update
    param = (1 - (decay or 0.0)) * param - update
  return param


@pytest.mark.parametrize('settings', [{}, {'beta1': 0.9, 'weight_decay_rate': 0.01}])
def test_adafactor_is_that_of_t5x(settings):
  rng = np.random.default_rng(0)
  shapes = {'kernel': (130, 140), 'narrow': (127, 140), 'scale': (140,), 'small': {'zero': (4, 3)}}
  params = random_tree(shapes, rng, 0.1)
  params['small']['zero'] *= 0.0  # held up by eps2 alone
  steps = [random_tree(shapes, rng, scale) for scale in (1.0, 10.0, 0.1, 0.0, 1.0)]

  def schedule(step):
    return 0.3 / (jnp.asarray(step, jnp.float32) + 1.0)

  found = run(optimizers.adafactor(schedule, **settings), params, steps)
  for name, factored in (('kernel', True), ('narrow', False), ('scale', False)):
    expected = t5x_adafactor(
      params[name],
      [grads[name] for grads in steps],
      lambda step: float(schedule(step)),
      factored,
      settings.get('beta1'),
      settings.get('weight_decay_rate'),
    )
    np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=2e-6, err_msg=name)
  assert 0 < float(jnp.max(jnp.abs(found['small']['zero']))) < 1e-3


def test_adafactor_without_a_stack_is_that_of_optax():
  rng = np.random.default_rng(1)
  shapes = {'wide': (128, 200), 'tall': (200, 128), 'vector': (30,)}
  params, steps = random_tree(shapes, rng), [random_tree(shapes, rng) for _ in range(3)]
  found = run(optimizers.adafactor(0.1), params, steps)
  expected = run(optax.adafactor(0.1), params, steps)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize('make', [optimizers.adafactor, optimizers.lamb])
def test_scanned_layers_train_as_unrolled_ones(make):
  rng = np.random.default_rng(2)
  block = {'mlp': {'kernel': (128, 132)}, 'norm': {'scale': (128,)}, 'relpos': (8, 4)}
  # Layers whose scales and gradients are far apart: statistics shared over layers would show.
  layers = [random_tree(block, rng, scale) for scale in (1e-4, 1.0, 30.0)]
  steps = [[random_tree(block, rng, scale) for scale in (100.0, 1e-3, 1.0)] for _ in range(3)]

  def scanned(trees):
    return {'decoder': {'layers': jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)}}

  def unrolled(trees):
    return {'decoder': {f'layers_{i}': layer for i, layer in enumerate(trees)}}

  optimizer = make(0.1)
  together = run(optimizer, scanned(layers), [scanned(grads) for grads in steps])['decoder']['layers']
  apart = run(optimizer, unrolled(layers), [unrolled(grads) for grads in steps])
  expected = scanned([apart['decoder'][f'layers_{i}'] for i in range(3)])['decoder']['layers']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), together, expected)


def test_a_short_stack_is_not_factored_over_its_layers():
  params = {'layers': {'kernel': jnp.ones((128, 20, 130)), 'scale': jnp.ones((130, 140))}}
  state = optimizers.adafactor(0.1).init(params)[0]
  assert jax.tree.map(jnp.shape, state.v) == {'layers': {'kernel': (128, 20, 130), 'scale': (130, 140)}}
  assert jax.tree.map(jnp.shape, state.v_row) == {'layers': {'kernel': (1,), 'scale': (1,)}}


def test_accumulators_and_updates_are_float32_for_half_precision_parameters():
  params = {'kernel': jnp.ones((128, 128), jnp.bfloat16)}
  optimizer = optimizers.adafactor(0.1)
  updates, state = optimizer.update(params, optimizer.init(params), params)
  assert updates['kernel'].dtype == state[0].v_row['kernel'].dtype == jnp.float32


@pytest.mark.parametrize('make', [optimizers.adamw, optimizers.lion, optimizers.lamb])
def test_weight_decay_leaves_biases_and_norm_scales_alone(make):
  names = ('kernel', 'bias', 'scale', 'embedding')
  params = {'layers': {name: jnp.full((2, 3), 2.0) for name in names}}
  zeros = jax.tree.map(jnp.zeros_like, params)
  found = run(make(0.1, weight_decay=0.5), params, [zeros])['layers']
  for name in names:
    moved = float(jnp.max(jnp.abs(found[name] - 2.0)))
    assert (moved > 0) == (name in ('kernel', 'embedding')), name


@pytest.mark.parametrize('make', OPTIMIZERS)
def test_clipping_takes_the_global_norm(make):
  """A gradient above the norm does what one of that norm does, and one below it is not touched."""
  rng = np.random.default_rng(3)
  shapes = {'a': (5, 4), 'b': (6,)}
  params, grads = random_tree(shapes, rng), random_tree(shapes, rng)

  def after(optimizer, norm):
    return run(optimizer, params, [jax.tree.map(lambda g: g * norm / optax.tree.norm(grads), grads)])

  plain, clipped = make(0.1), make(0.1, max_grad_norm=1.0)
  for given, kept in ((100.0, 1.0), (1000.0, 1.0), (0.1, 0.1)):
    found, expected = after(clipped, given), after(plain, kept)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


@pytest.mark.parametrize('make', OPTIMIZERS)
def test_schedules_are_followed(make):
  params = {'kernel': jnp.ones((4, 4))}
  grads = {'kernel': jnp.full((4, 4), 0.5)}
  optimizer = make(lambda step: jnp.where(step == 0, 0.0, 0.1))
  state = optimizer.init(params)
  first, state = optimizer.update(grads, state, params)
  second, _ = optimizer.update(grads, state, params)
  assert float(optax.tree.norm(first)) == 0.0
  assert float(second['kernel'][0, 0]) < 0.0


@pytest.mark.parametrize('max_grad_norm', [None, 0.5])
def test_adamw_is_that_of_optax_state_and_all(max_grad_norm):
  rng = np.random.default_rng(3)
  shapes = {'kernel': (7, 5), 'bias': (5,)}
  params = random_tree(shapes, rng)
  steps = [random_tree(shapes, rng, scale) for scale in (1.0, 1e-3, 30.0, 0.0, 1.0)]
  ours = optimizers.adamw(1e-2, weight_decay=0.1, max_grad_norm=max_grad_norm)
  theirs = optax.adamw(1e-2, weight_decay=0.1, mask=optimizers.decayed)
  if max_grad_norm is not None:
    theirs = optax.chain(optax.clip_by_global_norm(max_grad_norm), theirs)
  with jax.numpy_dtype_promotion('standard'):
    expected = run(theirs, params, steps)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7), run(ours, params, steps), expected)
  plain = theirs.init(params) if max_grad_norm is not None else (theirs.init(params),)
  assert jax.tree.structure(ours.init(params)) == jax.tree.structure(plain)


def test_adafactor_counts_updates_from_one_whatever_is_taken_off():
  params = {'w': jnp.ones((4, 4))}
  grads = {'w': jnp.full((4, 4), 0.5)}
  found = []
  for offset in (0, 1_000_000):
    optimizer = optimizers.adafactor(0.1, step_offset=offset)
    found.append(optimizer.update(grads, optimizer.init(params), params)[0]['w'])
  assert np.isfinite(found[1]).all()
  np.testing.assert_array_equal(found[0], found[1])


def test_layers_below_learn_less_and_heads_in_full():
  leaf = np.zeros(2)
  params = {
    'embeddings': {'word': leaf},
    'token_embedder': {'embedding': leaf},
    'mask_emb': leaf,
    'layers_0': {'kernel': leaf},
    'layers_1': {'kernel': leaf},
    'logits_dense': {'embedding': leaf},
    'heads': {'kernel': leaf},
  }
  factors = tree.named_leaves(optimizers.depth_factors(params, 0.5))
  assert factors == {
    'embeddings/word': 0.125,
    'token_embedder/embedding': 0.125,
    'mask_emb': 0.125,
    'layers_0/kernel': 0.25,
    'layers_1/kernel': 0.5,
    'logits_dense/embedding': 1.0,
    'heads/kernel': 1.0,
  }
