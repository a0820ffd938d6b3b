"""Properties of XLNet as a whole."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.models.xlnet import Xlnet, XlnetConfig

TINY = {
  'vocab_size': 40, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 24, 'num_layers': 2,
  'initializer_range': 0.3, 'dropout_rate': 0.0,
}  # fmt: skip
ALL_HEADS = ('lm', 'pooler', 'classification', 'multiple_choice', 'span', 'tagging')


def make_batch(rows=2, length=8, seed=0, order=False):
  """Token types vary; tokens of a row are all different, so that a row of the embedding table is a position."""
  rng = np.random.default_rng(seed)
  batch = {
    'input_tokens': np.stack([rng.permutation(40)[:length] for _ in range(rows)]),
    'segment_ids': np.ones((rows, length)),
    'token_type_ids': rng.integers(0, 2, (rows, length)),
  }
  if order:  # the first place sees nothing unless there is context
    batch['order'] = np.stack([rng.permutation(length) for _ in range(rows)]) + 1
    batch['order'][1:, :2] = 0
  return {f'decoder_{name}': value.astype(np.int32) for name, value in batch.items()}


@functools.cache
def make(**changes):
  """A model and its parameters, which do not depend on anything but the shapes."""
  model = Xlnet(XlnetConfig(**{**TINY, **changes}))
  return model, nn.unbox(jax.jit(model.init)({'params': jax.random.key(0)}, make_batch()))


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, variables, batch, mems=None):
  return model.apply(variables, batch, mems=mems, method='outputs')


def hidden(model, variables, batch, mems=None):
  return np.asarray(outputs(model, variables, batch, mems)['last_hidden_state'])


def unstack(variables, layers=2):
  params = dict(variables['params'])
  stacked = params['blocks']['layers']
  params['blocks'] = {f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(layers)}
  return {'params': params}


def test_a_prediction_knows_nothing_of_its_own_token_and_of_later_ones():
  model, variables = make(heads=())
  batch = make_batch(order=True)
  order, tokens = batch['decoder_order'], batch['decoder_input_tokens']

  def at(table, row, t):
    params = {**variables['params'], 'tokens': {'embedding': table}}
    return jnp.sum(model.apply({'params': params}, batch)[row, t] ** 2)

  gradient = jax.jit(jax.grad(at))
  for row, t in itertools.product(range(2), range(8)):
    by_token = np.abs(gradient(variables['params']['tokens']['embedding'], row, t)).max(axis=1)
    known = by_token[tokens[row]] != 0
    np.testing.assert_array_equal(known, order[row] < order[row, t], err_msg=f'{row} {t}')


def test_an_order_is_a_perm_mask_and_a_target_mapping():
  model, variables = make()
  batch = make_batch(order=True)
  order = batch.pop('decoder_order')
  by_order = outputs(model, variables, {**batch, 'decoder_order': order})['lm_logits']
  hidden_pairs = (order[:, :, None] <= order[:, None, :]).astype(np.float32)
  # Context sees context, and itself: their mask of the query stream then has no place for it.
  targets = np.argsort(order, axis=1)[:, 2:]
  mapping = np.eye(8, dtype=np.float32)[targets]
  context = (order[:, :, None] == 0) & (order[:, None, :] == 0)
  explicit = {'decoder_perm_mask': hidden_pairs * ~context, 'decoder_target_mapping': mapping}
  by_mask = outputs(model, variables, {**batch, **explicit})['lm_logits']
  np.testing.assert_allclose(by_mask, np.take_along_axis(np.asarray(by_order), targets[..., None], 1), atol=1e-5)
  both = {**batch, 'decoder_order': order, 'decoder_target_mapping': mapping}
  np.testing.assert_allclose(outputs(model, variables, both)['lm_logits'], by_mask, atol=1e-5)


def test_factored_logits_are_the_logits_of_the_query_stream():
  model, variables = make()
  for batch in (make_batch(order=True), make_batch()):
    factored = jax.jit(lambda batch: model.apply(variables, batch, method='factored_logits'))(batch)
    assert factored.bias.shape == (40,)
    np.testing.assert_allclose(factored.logits(), outputs(model, variables, batch)['lm_logits'], atol=1e-5)


@pytest.mark.parametrize('order', [True, False])
def test_packing_equals_not_packing(order):
  model, variables = make()
  first, second = make_batch(length=5, seed=1, order=order), make_batch(length=7, seed=2, order=order)
  packed = {}
  for name, value in first.items():
    parts = [value, second[name] * (2 if name == 'decoder_segment_ids' else 1)]
    packed[name] = np.pad(np.concatenate(parts, axis=1), ((0, 0), (0, 3)))
  got = hidden(model, variables, packed)
  np.testing.assert_allclose(got[:, :5], hidden(model, variables, first), atol=1e-5)
  np.testing.assert_allclose(got[:, 5:12], hidden(model, variables, second), atol=1e-5)


def test_padding_on_either_side_changes_nothing():
  model, variables = make(heads=ALL_HEADS)
  batch = make_batch()
  expected = outputs(model, variables, batch)
  for left, right in ((3, 0), (0, 3), (1, 2)):
    padded = {name: np.pad(value, ((0, 0), (left, right))) for name, value in batch.items()}
    got = outputs(model, variables, padded)
    assert got.keys() == expected.keys()
    for name in got.keys() - {'mems'}:
      per_position = got[name].ndim == 3
      value = got[name][:, left : left + 8] if per_position else got[name]
      np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
  'changes',
  [{}, *(pytest.param(changes, marks=pytest.mark.slow) for changes in ({'clamp_len': 3}, {'scan_layers': False}))],
)
def test_memory_equals_one_long_text(changes):
  """Where no position sees a later one: then what was remembered is what would be computed again."""
  model, variables = make(attn_type='uni', **changes)
  text = make_batch(length=12)
  text['decoder_token_type_ids'][:, :8] = 0  # of what is remembered only the content is, not its segment
  whole = hidden(model, variables, text)
  mems, parts = None, []
  for start, stop in ((0, 3), (3, 8), (8, 12)):
    got = outputs(model, variables, {name: value[:, start:stop] for name, value in text.items()}, mems)
    mems = got['mems']
    parts.append(got['last_hidden_state'])
    assert mems.shape == (2, 2, stop, 16)
  np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


@pytest.mark.slow
def test_memory_is_as_long_as_configured_and_passes_no_gradient():
  model, variables = make(mem_len=6, reuse_len=3)
  first = outputs(model, variables, make_batch(seed=1))
  assert first['mems'].shape == (2, 2, 3, 16)
  embedded = np.asarray(variables['params']['tokens']['embedding'])[make_batch(seed=1)['decoder_input_tokens']]
  np.testing.assert_allclose(first['mems'][0], embedded[:, :3], atol=1e-6)
  second = outputs(model, variables, make_batch(seed=2), first['mems'])
  third = outputs(model, variables, make_batch(seed=3), tuple(second['mems']))
  assert third['mems'].shape == (2, 2, 6, 16)
  np.testing.assert_array_equal(third['mems'][:, :, :3], second['mems'][:, :, 3:])

  def loss(variables):
    return jnp.sum(jnp.sin(model.apply(variables, make_batch(), method='outputs')['mems']))

  assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables)))


def test_the_second_half_of_bi_data_is_read_backwards():
  plain, variables = make(clamp_len=4)
  both_ways = Xlnet(XlnetConfig(**TINY, clamp_len=4, bi_data=True))
  batch = make_batch()
  expected = hidden(plain, variables, batch)
  turned = {name: np.concatenate([value, value[:, ::-1]]) for name, value in batch.items()}
  got = hidden(both_ways, variables, turned)
  np.testing.assert_allclose(got[:2], expected, atol=1e-5)
  np.testing.assert_allclose(got[2:], expected[:, ::-1], atol=1e-5)
  with pytest.raises(UsageError, match='3 rows does not divide into halves'):
    both_ways.apply(variables, make_batch(rows=3))


def test_absent_token_types_are_zeros():
  model, variables = make()
  batch = make_batch()
  batch['decoder_token_type_ids'][:] = 0
  expected = hidden(model, variables, batch)
  del batch['decoder_token_type_ids']
  np.testing.assert_allclose(hidden(model, variables, batch), expected, atol=1e-5)


def test_scanned_equals_unrolled():
  (model, variables), batch = make(), make_batch(order=True)
  other = Xlnet(XlnetConfig(**TINY, scan_layers=False))
  mems = np.random.default_rng(5).normal(size=(2, 2, 3, 16)).astype(np.float32)
  expected = outputs(model, variables, batch, mems)
  got = outputs(other, unstack(variables), batch, mems)
  assert got.keys() == expected.keys()
  for name, value in got.items():
    np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_gradients_of_scanned_equal_those_of_unrolled():
  (model, variables), batch = make(), make_batch(order=True)
  other = Xlnet(XlnetConfig(**TINY, scan_layers=False, remat_policy='full'))

  def loss(variables, model):
    return jnp.sum(jnp.sin(model.apply(variables, batch)))

  run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  value, grads = run(variables, model)
  got, got_grads = run(unstack(variables), other)
  np.testing.assert_allclose(got, value, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got_grads, unstack(grads))


@pytest.mark.slow
@pytest.mark.parametrize('remat', ['minimal', 'full'])
def test_remat_changes_nothing(remat):
  batch = make_batch(order=True)
  (plain, variables), rematted = (
    make(dropout_rate=0.3),
    Xlnet(XlnetConfig(**{**TINY, 'dropout_rate': 0.3}, remat_policy=remat)),
  )

  def loss(variables, model):
    rngs = {'dropout': jax.random.key(7)}
    return jnp.sum(jnp.sin(model.apply(variables, batch, deterministic=False, rngs=rngs)))

  got, expected = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(variables, model) for model in (rematted, plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got, expected)


def test_bfloat16_is_near_float32_and_returns_float32():
  model, variables = make(heads=('lm', 'classification'), initializer_range=0.1)
  half = Xlnet(XlnetConfig(**{**TINY, 'heads': ('lm', 'classification'), 'dtype': 'bfloat16'}))
  exact = outputs(model, variables, make_batch(order=True))
  rounded = outputs(half, variables, make_batch(order=True))
  for name, value in rounded.items():
    assert value.dtype == jnp.float32
    assert float(jnp.linalg.norm(exact[name] - value) / jnp.linalg.norm(exact[name])) < 0.05, name


# The counts of transformers 5.23's XLNetLMHeadModel, tied weights once.
SIZES = {
  'xlnet-base-cased': ({}, 116_750_336),
  'xlnet-large-cased': ({'emb_dim': 1024, 'mlp_dim': 4096, 'num_heads': 16, 'num_layers': 24}, 360_300_800),
}


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('scan', [True, False])
def test_parameter_count_is_that_of_the_published_checkpoint(size, scan):
  dimensions, count = SIZES[size]
  model = Xlnet(XlnetConfig(**dimensions, scan_layers=scan))
  shapes = jax.eval_shape(model.init, {'params': jax.random.key(0)}, make_batch())
  assert tree.count_parameters(nn.unbox(shapes)) == count


@pytest.mark.parametrize('queries', ['none', 'all', 'few'])
def test_flops_are_those_of_the_products_in_the_program(queries):
  """Against XLA's own count of the forward pass, unrolled so that it counts every layer."""
  model = Xlnet(XlnetConfig(vocab_size=2048, emb_dim=256, num_heads=4, mlp_dim=1024, num_layers=2, scan_layers=False))
  batch = {name: np.resize(value, (2, 64)) for name, value in make_batch(order=queries == 'all').items()}
  if queries == 'few':
    batch['decoder_target_mapping'] = np.zeros((2, 11, 64), np.float32)
  shapes = nn.unbox(jax.eval_shape(model.init, {'params': jax.random.key(0)}, batch))
  counted = jax.jit(lambda v, b: model.apply(v, b)).lower(shapes, batch).compile().cost_analysis()['flops']
  spec = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  assert 0.9 < model.flops_per_step(spec) / 3 / counted <= 1.0  # XLA also counts norms, softmax and activations


@pytest.mark.parametrize(
  ('values', 'told'),
  [
    ({'attn_type': 'both'}, "unknown attn_type of XlnetConfig 'both': expected one of bi, uni"),
    ({'heads': ('taging',)}, "did you mean 'tagging'"),
    ({'heads': ('nsp',)}, "unknown head of XlnetConfig 'nsp'"),
    ({'mem_len': -1}, 'mem_len is -1: expected at least 0'),
    ({'num_layers': 0}, 'num_layers is 0: expected at least 1'),
    ({'num_kv_heads': 4}, 'no grouped heads'),
    ({'num_experts': 4}, 'num_experts is 4: expected 0'),
    ({'emb_dim': 7}, 'emb_dim is 7: expected an even number'),
  ],
)
def test_impossible_values_are_refused(values, told):
  with pytest.raises(UsageError, match=told):
    XlnetConfig(**values)
