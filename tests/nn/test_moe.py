"""The router and the mixture of experts: where tokens go, what is dropped, and that a causal model stays causal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core.logits import LAYER_LOSSES
from t5x_lite.nn.masks import Mask
from t5x_lite.nn.mlp import MLP
from t5x_lite.nn.moe import MixtureOfExperts, Routing, route
from t5x_lite.nn.transformer import BlockConfig, Context, Stack


def logits(batch=2, length=12, experts=4, seed=0):
  return jax.random.normal(jax.random.key(seed), (batch, length, experts)) * 3


def everything(batch=2, length=12):
  return jnp.ones((batch, length), bool)


@pytest.mark.parametrize('choices', [1, 2])
def test_no_expert_takes_more_than_its_room_and_no_place_is_taken_twice(choices):
  routing = Routing(4, choices, capacity_factor=1.0)
  combine, _ = route(logits(), everything(), routing)
  assert combine.shape[-1] == routing.capacity(12) == 3 * choices
  assert np.max(np.sum(np.asarray(combine) > 0, axis=1)) == 1


@pytest.mark.parametrize('choices', [1, 2])
def test_with_room_for_all_every_token_is_at_its_likeliest_experts(choices):
  routing = Routing(4, choices, capacity_factor=4.0)
  combine, _ = route(logits(), everything(), routing)
  sent = np.sum(np.asarray(combine) > 0, axis=-1)
  likeliest = np.argsort(np.asarray(logits()), axis=-1)[..., -choices:]
  for place in np.ndindex(2, 12):
    assert set(np.flatnonzero(sent[place])) == set(likeliest[place])


def test_the_gates_of_two_choices_add_up_to_one_and_one_choice_keeps_its_probability():
  two, _ = route(logits(), everything(), Routing(4, 2, capacity_factor=4.0))
  np.testing.assert_allclose(np.sum(two, axis=(-1, -2)), 1.0, rtol=1e-6)
  one, _ = route(logits(), everything(), Routing(4, 1, capacity_factor=4.0))
  np.testing.assert_allclose(np.sum(one, axis=(-1, -2)), np.max(jax.nn.softmax(logits()), axis=-1), rtol=1e-6)


@pytest.mark.parametrize('choices', [1, 2])
def test_later_tokens_do_not_change_where_earlier_ones_go(choices):
  routing = Routing(4, choices, capacity_factor=0.6)  # little room: most tokens compete
  whole, _ = route(logits(), everything(), routing)
  other, _ = route(logits().at[:, 7:].set(logits(seed=1)[:, 7:]), everything(), routing)
  np.testing.assert_array_equal(whole[:, :7], other[:, :7])
  assert np.any(np.asarray(whole[:, 7:]) != np.asarray(other[:, 7:]))


def test_padding_is_sent_nowhere_and_takes_no_room():
  routing = Routing(4, 1, capacity_factor=1.0)
  valid = everything().at[:, ::2].set(False)
  combine, balance = route(logits(), valid, routing)
  assert np.all(np.asarray(combine)[:, ::2] == 0)
  same, same_balance = route(logits().at[:, ::2].add(5.0 * logits(seed=2)[:, ::2]), valid, routing)
  np.testing.assert_array_equal(combine, same)
  np.testing.assert_allclose(balance, same_balance, rtol=1e-6)


def test_the_load_balancing_loss_is_one_for_even_shares_and_grows_with_unevenness():
  even = jnp.tile(jnp.eye(4) * 20.0, (1, 3, 1))
  _, balanced = route(even, everything(1), Routing(4))
  np.testing.assert_allclose(balanced, 1.0, rtol=1e-4)
  _, collapsed = route(jnp.zeros((1, 12, 4)).at[..., 0].set(20.0), everything(1), Routing(4))
  np.testing.assert_allclose(collapsed, 4.0, rtol=1e-4)


def test_experts_of_equal_weights_and_even_gates_are_one_mlp():
  x = jax.random.normal(jax.random.key(0), (2, 12, 16))
  moe = MixtureOfExperts(Routing(4, 2, capacity_factor=4.0), mlp_dim=24, activations=('gelu', 'linear'))
  params = nn.unbox(jax.jit(moe.init)(jax.random.key(1), x))['params']
  same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), params)
  mlp = {name: {'kernel': same[name][0]} for name in ('wi_0', 'wi_1', 'wo')}
  plain = MLP(24, ('gelu', 'linear')).apply({'params': mlp}, x)
  np.testing.assert_allclose(moe.apply({'params': same}, x), plain, rtol=1e-5, atol=1e-6)


def make_stack(scan):
  config = BlockConfig(features=16, num_heads=2, head_dim=8, mlp_dim=24, routing=Routing(4, 2, capacity_factor=0.5))
  return Stack(config, num_layers=2, scan=scan)


def test_a_causal_stack_of_experts_has_zero_gradient_from_the_future():
  x, context = jax.random.normal(jax.random.key(0), (2, 10, 16)), Context(mask=Mask(causal=True))
  params = nn.unbox(jax.jit(make_stack(True).init)(jax.random.key(1), x, context))['params']
  grad = jax.jit(jax.grad(lambda x: jnp.sum(make_stack(True).apply({'params': params}, x, context)[0][:, 4])))(x)
  assert np.all(np.asarray(grad)[:, 5:] == 0)
  assert np.any(np.asarray(grad)[:, 4] != 0)


def test_scanned_layers_leave_the_losses_that_unrolled_ones_leave():
  x, context = jax.random.normal(jax.random.key(0), (2, 10, 16)), Context()
  params = nn.unbox(jax.jit(make_stack(True).init)(jax.random.key(1), x, context))['params']
  unrolled = {f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], params['layers']) for i in range(2)}

  @functools.partial(jax.jit, static_argnums=0)
  def run(scan, params):
    return make_stack(scan).apply({'params': params}, x, context, mutable=(LAYER_LOSSES,))

  ((out, _), left), ((other, _), left_other) = run(True, params), run(False, unrolled)
  np.testing.assert_allclose(out, other, rtol=1e-5, atol=1e-6)
  sums = [sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(tree)) for tree in (left, left_other)]
  np.testing.assert_allclose(*sums, rtol=1e-5)
  assert sums[0] > 2 * 0.01 * 0.99  # two layers, each at least the weight times one
