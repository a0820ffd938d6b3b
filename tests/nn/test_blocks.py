"""Properties of the shared blocks, in every flavour that a model family uses."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core.errors import UsageError
from t5x_lite.nn.cache import KVCache, LayerCache
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.mlp import MLP, activation
from t5x_lite.nn.norm import LayerNorm, RMSNorm
from t5x_lite.nn.transformer import BlockConfig, Context, Stack

FLAVOURS = [
  {'norm': norm, 'norm_placement': placement, 'use_bias': bias, 'activations': acts}
  for norm, placement, bias, acts in (
    ('rms', 'pre', False, ('relu',)),  # T5 1.0
    ('rms', 'pre', False, ('gelu', 'linear')),  # T5 1.1
    ('layer', 'post', True, ('gelu_exact',)),  # BERT
    ('layer', 'pre', True, ('gelu',)),  # GPT-2
  )
]


def make(flavour, *, scan=True, remat='none', layers=3, **kwargs):
  config = BlockConfig(features=16, num_heads=2, head_dim=8, mlp_dim=24, **flavour, **kwargs)
  return Stack(config, num_layers=layers, scan=scan, remat_policy=remat)


def init(stack, x, context):
  return nn.unbox(jax.jit(stack.init)({'params': jax.random.key(0)}, x, context))['params']


@functools.partial(jax.jit, static_argnums=0)
def apply(stack, params, x, context, cache=None):
  """Jitted: a scan that is not is compiled anew at each call."""
  return stack.apply({'params': params}, x, context, cache)


def inputs(length=10, batch=2):
  return jax.random.normal(jax.random.key(1), (batch, length, 16))


def unstack(params, layers=3):
  return {f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], params['layers']) for i in range(layers)}


@pytest.mark.parametrize('flavour', FLAVOURS)
def test_causal_stack_has_zero_gradient_from_the_future(flavour):
  stack, x, context = make(flavour), inputs(), Context(mask=Mask(causal=True))
  params = init(stack, x, context)
  gradient = jax.jit(jax.grad(lambda x, t: jnp.sum(stack.apply({'params': params}, x, context)[0][:, t])))
  for t in (0, 4, 9):
    grad = gradient(x, t)
    assert np.all(np.asarray(grad)[:, t + 1 :] == 0)
    assert np.any(np.asarray(grad)[:, t] != 0)


@pytest.mark.slow
@pytest.mark.parametrize('flavour', FLAVOURS)
def test_scanned_equals_unrolled(flavour):
  x, context = inputs(), Context(mask=Mask(causal=True))
  params = init(make(flavour), x, context)

  def loss(params, x, scan):
    return jnp.sum(jnp.sin(make(flavour, scan=scan).apply({'params': params}, x, context)[0]))

  run = jax.jit(jax.value_and_grad(loss), static_argnums=2)
  value, grads = run(params, x, True)
  other, other_grads = run(unstack(params), x, False)
  np.testing.assert_allclose(value, other, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), unstack(grads), other_grads)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('scan', 'remat'), [*itertools.product((True, False), ('elementwise', 'minimal', 'full', 'offload'))]
)
def test_remat_changes_nothing(scan, remat):
  flavour, x, context = {**FLAVOURS[1], 'dropout_rate': 0.3}, inputs(), Context(mask=Mask(causal=True))
  plain, rematted = make(flavour, scan=scan), make(flavour, scan=scan, remat=remat)
  params = init(plain, x, context)

  def loss(params, stack):
    rngs = {'dropout': jax.random.key(7)}
    return jnp.sum(jnp.sin(stack.apply({'params': params}, x, context, deterministic=False, rngs=rngs)[0]))

  def primitives(stack):
    return str(jax.make_jaxpr(jax.grad(lambda p: loss(p, stack)))(params))

  assert 'checkpoint' not in primitives(plain) and 'remat' not in primitives(plain)
  assert 'checkpoint' in primitives(rematted) or 'remat' in primitives(rematted)
  got, expected = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, stack) for stack in (rematted, plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=3e-5), got, expected)


@pytest.mark.slow
def test_remat_multiplies_again_what_it_did_not_keep():
  x, context = inputs(), Context(mask=Mask(causal=True))

  def products(remat):
    stack = make(FLAVOURS[1], scan=True, remat=remat)
    params = init(stack, x, context)
    step = jax.jit(jax.grad(lambda params: jnp.sum(stack.apply({'params': params}, x, context)[0])))
    return len(re.findall(r' dot\(', step.lower(params).compile().as_text()))

  plain, elementwise, minimal, full, offload = (
    products(remat) for remat in ('none', 'elementwise', 'minimal', 'full', 'offload')
  )
  assert plain == elementwise
  assert minimal == offload
  # Those of attention alone; those of the projections too.
  assert plain < minimal < full


@pytest.mark.parametrize('scan', [True, False])
def test_cached_steps_equal_the_whole_sequence(scan):
  stack, x = make(FLAVOURS[3], scan=scan), inputs()
  params = init(stack, x, Context(mask=Mask(causal=True)))
  whole, none = apply(stack, params, x, Context(mask=Mask(causal=True)))
  assert none is None
  cache = LayerCache(KVCache.empty(2, 10, 2, 8, jnp.float32))
  cache = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), cache)
  steps, at = [], 0
  for width in (4, 1, 1, 3, 1):  # a prefix at once, then single steps and a chunk
    context = Context(mask=Mask(causal=True), index=jnp.asarray(at, jnp.int32))
    y, cache = apply(stack, params, x[:, at : at + width], context, cache)
    steps.append(y)
    at += width
  np.testing.assert_allclose(np.concatenate(steps, 1), whole, atol=1e-5)


def test_segments_do_not_see_each_other():
  segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0, 0, 0]] * 2, jnp.int32)
  stack, x, context = make(FLAVOURS[2]), inputs(), Context(mask=Mask(segments, segments))
  params = init(stack, x, context)
  grad = jax.jit(jax.grad(lambda x: jnp.sum(stack.apply({'params': params}, x, context)[0][:, 3:7])))(x)
  assert np.all(np.asarray(grad)[:, :3] == 0) and np.all(np.asarray(grad)[:, 7:] == 0)
  assert np.all(np.any(np.asarray(grad)[:, 3:7] != 0, axis=-1))


def test_dropout_masks_are_shared_along_the_length():
  x = jnp.ones((2, 10, 16))
  mlp = MLP(mlp_dim=24, dropout_rate=0.5)
  params = jax.jit(mlp.init)({'params': jax.random.key(0)}, x)
  y = jax.jit(lambda params: mlp.apply(params, x, deterministic=False, rngs={'dropout': jax.random.key(3)}))(params)
  # Every position has the same input, so only its mask could tell it from its neighbours; rows have masks of their own.
  np.testing.assert_allclose(y, jnp.broadcast_to(y[:, :1], y.shape), rtol=1e-6)
  assert np.any(np.asarray(y[0]) != np.asarray(y[1]))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_activations_have_the_asked_dtype_and_parameters_are_float32(dtype):
  stack, x, context = make(FLAVOURS[1], dtype=dtype), inputs().astype(dtype), Context()
  params = init(stack, x, context)
  assert apply(stack, params, x, context)[0].dtype == dtype
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}


def test_rms_norm_keeps_the_mean_and_layer_norm_removes_it():
  x = inputs() * 3 + 5
  rms = RMSNorm().init_with_output(jax.random.key(0), x)[0]
  np.testing.assert_allclose(np.mean(np.square(rms), -1), 1, rtol=1e-4)
  assert np.all(np.mean(rms, -1) > 0.5)
  layer = LayerNorm().init_with_output(jax.random.key(0), x)[0]
  np.testing.assert_allclose(np.mean(layer, -1), 0, atol=1e-5)
  np.testing.assert_allclose(np.var(layer, -1), 1, rtol=1e-4)


def test_gated_mlp_is_the_product_of_its_branches():
  x = inputs()
  mlp = MLP(mlp_dim=24, activations=('silu', 'linear'))
  params = nn.unbox(jax.jit(mlp.init)(jax.random.key(0), x))['params']
  hidden = jax.nn.silu(x @ params['wi_0']['kernel']) * (x @ params['wi_1']['kernel'])
  np.testing.assert_allclose(mlp.apply({'params': params}, x), hidden @ params['wo']['kernel'], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('call', 'nearest'),
  [
    (lambda: activation('rellu'), 'relu'),
    (lambda: BlockConfig(8, 1, 8, 8, norm='rmss'), 'rms'),
    (lambda: BlockConfig(8, 1, 8, 8, norm_placement='pree'), 'pre'),
    (lambda: make(FLAVOURS[0], remat='ful').init(jax.random.key(0), inputs(), Context()), 'full'),
  ],
)
def test_misspelt_names_are_refused_with_the_nearest(call, nearest):
  with pytest.raises(UsageError, match=f"did you mean '{nearest}'"):
    call()
