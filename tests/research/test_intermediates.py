"""What models leave on the way: attention probabilities and hidden states, of every family, scanned and unrolled."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.nn.intermediates import VECTORS
from t5x_lite.research import intermediates

SIZES = {'vocab_size': 40, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 24}
LENGTH, REAL = 9, 6
MODELS = {
  't5': (T5, T5Config(**SIZES, num_encoder_layers=2, num_decoder_layers=3)),
  'bert': (Bert, BertConfig(**SIZES, num_layers=2, heads=('mlm',))),
  'gpt': (Gpt, GptConfig(**SIZES, num_layers=2, layer_pattern=('dense', 'local'), attention_window=3, num_kv_heads=1)),
  'xlnet': (Xlnet, XlnetConfig(**SIZES, num_layers=2)),
}
NAMES = {'t5': ['cross', 'decoder', 'encoder'], 'bert': ['encoder'], 'gpt': ['decoder'], 'xlnet': ['content', 'query']}


def rows(name):
  """A full row and one of which a third is padding."""
  rng = np.random.default_rng(1)
  segments = np.asarray([[1] * LENGTH, [1] * REAL + [0] * (LENGTH - REAL)], np.int32)
  batch = {}
  for side in ('encoder', 'decoder'):
    batch[f'{side}_input_tokens'] = rng.integers(3, 40, segments.shape).astype(np.int32)
    batch[f'{side}_segment_ids'] = segments
    batch[f'{side}_positions'] = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), segments.shape)
  if name == 'xlnet':
    batch['decoder_order'] = np.maximum(batch['decoder_positions'] - 2, 0)
  return batch


def model_of(name, **changes):
  make, config = MODELS[name]
  return make(dataclasses.replace(config, **changes))


def made(name, **changes):
  model = model_of(name, **changes)
  params = nn.unbox(jax.jit(model.init)({'params': jax.random.key(0)}, rows(name)))['params']
  # Larger than they are initialised, so that attention is not even.
  larger = lambda path, x: x * 3 if path[-1].key == 'kernel' else x  # noqa: E731
  return model, jax.tree_util.tree_map_with_path(larger, params)


def unstacked(params):
  """Parameters of scanned layers as those of unrolled ones."""
  if not isinstance(params, dict):
    return params
  found = {name: unstacked(value) for name, value in params.items() if name != 'layers'}
  if 'layers' in params:
    count = jax.tree.leaves(params['layers'])[0].shape[0]
    found |= {f'layers_{i}': jax.tree.map(lambda x, i=i: x[i], params['layers']) for i in range(count)}
  return found


@functools.partial(jax.jit, static_argnums=0)
def look(model, params, batch):
  """Attention probabilities and hidden states."""
  return intermediates.attentions(model, params, batch), intermediates.hidden_states(model, params, batch)


@pytest.fixture(scope='module', params=list(MODELS))
def case(request):
  model, params = made(request.param)
  batch = rows(request.param)
  return request.param, model, params, batch, look(model, params, batch)


def test_rows_of_attention_sum_to_one_and_see_no_padding(case):
  name, _, _, _, (maps, _) = case
  assert sorted(maps) == NAMES[name]
  for weights in maps.values():
    assert weights.dtype == jnp.float32 and weights.shape[1:] == (2, 2, LENGTH, LENGTH)
    real = np.asarray(weights)[:, 1, :, :REAL]
    if name == 'xlnet':  # what predicts the first of an order sees the context alone, here all others see something
      assert np.all(np.isclose(real.sum(-1), 1, atol=1e-5) | (real.sum(-1) == 0))
    else:
      np.testing.assert_allclose(real.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(real[..., REAL:], 0, atol=1e-7)


def test_causal_attention_has_no_future(case):
  name, _, _, _, (maps, _) = case
  future = np.triu(np.ones((LENGTH, LENGTH), bool), 1)
  if name in ('t5', 'gpt'):
    assert np.all(np.asarray(maps['decoder'])[:, 0][..., future] == 0)
  if name == 'gpt':  # the second layer sees three positions, itself included
    assert np.all(np.asarray(maps['decoder'])[1, 0][:, np.tril(np.ones((LENGTH, LENGTH), bool), -3)] == 0)
    assert np.all(np.asarray(maps['decoder'])[0, 0][:, 5, :6] > 0)
  if name == 'bert':
    assert np.all(np.asarray(maps['encoder'])[:, 0] > 0)
  if name == 'xlnet':  # what is predicted, in the order of the text behind a context of three, does not see itself
    own_or_later = np.triu(np.ones((LENGTH, LENGTH), bool))
    assert np.all(np.asarray(maps['query'])[:, 0][..., own_or_later] == 0)
    assert np.all(np.asarray(maps['query'])[:, 0][..., 3:, :3] > 0)
    assert np.all(np.asarray(maps['content'])[:, 0][..., :3, :3] > 0)


def test_hidden_states_are_what_the_outputs_are_made_of(case):
  name, model, params, batch, (_, states) = case
  outputs = jax.jit(lambda p: model.apply({'params': p}, batch, method='outputs'))(params)
  last = {'t5': 'decoder', 'bert': 'encoder', 'gpt': 'decoder', 'xlnet': 'query'}[name]
  np.testing.assert_allclose(states[last][-1], outputs['last_hidden_state'], atol=1e-5)
  if name == 't5':
    np.testing.assert_allclose(states['encoder'][-1], outputs['encoder_last_hidden_state'], atol=1e-5)
    assert len(states['encoder']) == 3 and len(states['decoder']) == 4
  assert len({np.asarray(state).tobytes() for state in states[last]}) == len(states[last])


def test_given_vectors_take_the_place_of_those_of_the_tokens(case):
  _, model, params, batch, _ = case
  apply = jax.jit(lambda p, more: model.apply({'params': p, **more}, batch))
  expected = apply(params, {})
  _, left = jax.jit(lambda p: model.apply({'params': p}, batch, mutable=(VECTORS,)))(params)
  np.testing.assert_allclose(apply(params, left), expected, atol=1e-5)
  changed = jax.tree.map(lambda x: x.at[0, 1, 0].add(1.0), left)  # LayerNorm would not see all features moved
  assert np.max(np.abs(apply(params, changed)[0] - expected[0])) > 1e-3
  np.testing.assert_allclose(apply(params, changed)[1], expected[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', list(MODELS))
def test_scanned_and_unrolled_layers_leave_the_same(name):
  scanned, params = made(name)
  unrolled, batch = model_of(name, scan_layers=False, remat_policy='minimal'), rows(name)
  for found, expected in zip(look(unrolled, unstacked(params), batch), look(scanned, params, batch), strict=True):
    assert sorted(found) == sorted(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), found, expected)


@pytest.mark.parametrize('name', list(MODELS))
def test_nothing_is_left_where_nobody_asks(name):
  make, config = MODELS[name]
  model, batch = make(config), rows(name)
  variables = jax.eval_shape(lambda: model.init({'params': jax.random.key(0)}, batch))
  assert sorted(variables) == ['params']
  plain, _ = jax.eval_shape(lambda v: model.apply(v, batch, mutable=()), nn.unbox(variables))
  assert plain.dtype == jnp.float32
