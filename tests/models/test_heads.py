"""Properties of the heads, on hidden states that no stack made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.models import heads
from t5x_lite.nn.embed import Embed

POOLED = ('pooler', 'nsp', 'classification', 'multiple_choice')
SEGMENTS = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], np.int32)
HIDDEN = jax.random.normal(jax.random.key(1), (4, 5, 8))


def make(**fields):
  module = heads.TaskHeads(**{'names': heads.TASK_HEADS, 'num_labels': 3, **fields})
  variables = nn.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, HIDDEN, SEGMENTS))
  return module, variables


@pytest.mark.parametrize(('pool', 'places'), [('first', [0, 0, 0, 0]), ('last', [4, 2, 4, 2])])
@pytest.mark.parametrize('pooler', [True, False])
def test_pooled_heads_read_one_position_and_the_others_each_their_own(pool, places, pooler):
  module, variables = make(pool=pool, pooler=pooler)
  for name in (*POOLED[1:], 'span', 'tagging'):
    output = heads.OUTPUTS[name]
    gradient = jax.grad(lambda h, o=output: jnp.sum(module.apply(variables, h, SEGMENTS)[o] ** 2))(HIDDEN)
    read = np.any(np.asarray(gradient) != 0, axis=-1)
    expected = np.ones((4, 5), bool) if name in ('span', 'tagging') else np.arange(5) == np.array(places)[:, None]
    np.testing.assert_array_equal(read, expected, err_msg=name)


def test_a_row_of_padding_pools_its_first_position():
  np.testing.assert_array_equal(heads.take_position(HIDDEN, np.zeros_like(SEGMENTS), 'last'), HIDDEN[:, 0])


@pytest.mark.parametrize('name', heads.TASK_HEADS)
def test_a_head_has_its_own_parameters_and_no_others(name):
  _, variables = make(names=(name,))
  own = {name} | ({'pooler'} if name in POOLED else set())
  assert set(variables['params']) == own
  sizes = {'pooler': 8, 'nsp': 2, 'classification': 3, 'multiple_choice': 1, 'span': 2, 'tagging': 3}
  assert variables['params'][name]['kernel'].shape == (8, sizes[name])


def test_there_are_no_parameters_without_heads():
  module, variables = make(names=())
  assert not variables
  assert module.apply(variables, HIDDEN, SEGMENTS) == {}


def test_the_pooler_is_a_dense_layer_and_tanh_before_all_pooled_heads():
  module, variables = make()
  found = module.apply(variables, HIDDEN, SEGMENTS)
  params = variables['params']
  pooled = np.tanh(HIDDEN[:, 0] @ params['pooler']['kernel'] + params['pooler']['bias'])
  np.testing.assert_allclose(found['pooler_output'], pooled, atol=1e-6)
  for name in POOLED[1:]:
    expected = pooled @ params[name]['kernel'] + params[name]['bias']
    np.testing.assert_allclose(found[heads.OUTPUTS[name]], expected, atol=1e-6)


def test_only_pooled_outputs_lose_their_bias():
  _, variables = make(use_bias=False, pooler=False)
  assert {name for name, leaves in variables['params'].items() if 'bias' in leaves} == {'span', 'tagging'}


def test_outputs_are_float32_whatever_the_activations_are():
  module, variables = make(dtype=jnp.bfloat16)
  found = module.apply(variables, HIDDEN.astype(jnp.bfloat16), SEGMENTS)
  assert {value.dtype for value in found.values()} == {jnp.dtype(jnp.float32)}


def test_dropout_comes_before_every_output_but_that_of_spans():
  """As in transformers, whose span head has none."""
  module, variables = make(dropout_rate=0.5)
  still = module.apply(variables, HIDDEN, SEGMENTS)
  drawn = module.apply(variables, HIDDEN, SEGMENTS, deterministic=False, rngs={'dropout': jax.random.key(2)})
  changed = {name for name in still if np.any(still[name] != drawn[name])}
  assert changed == {heads.OUTPUTS[name] for name in ('nsp', 'classification', 'multiple_choice', 'tagging')}


@pytest.mark.parametrize(
  ('names', 'output'),
  [
    ((), 'last_hidden_state'),
    (('lm', 'span'), 'lm_logits'),
    (('mlm',), 'lm_logits'),
    (('pooler',), 'pooler_output'),
    (('tagging', 'mlm'), 'tagging_logits'),
    (('multiple_choice',), 'choice_logits'),
  ],
)
def test_the_first_head_gives_the_primary_output(names, output):
  assert heads.primary_output(names) == output


class Predictor(nn.Module):
  """A table and the head that predicts its rows."""

  @nn.compact
  def __call__(self, hidden):
    table = Embed(11, 8, name='table')
    return heads.MaskedLanguageModel(name='mlm')(hidden, table)


def test_the_masked_language_model_predicts_with_the_embedding_table():
  module = Predictor()
  params = nn.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, HIDDEN))['params']
  assert set(params['mlm']) == {'dense', 'norm', 'bias'}
  factored = module.apply({'params': params}, HIDDEN)
  assert factored.kernel.shape == (11, 8)
  np.testing.assert_array_equal(factored.kernel, params['table']['embedding'])
  np.testing.assert_allclose(np.mean(factored.hidden, axis=-1), 0.0, atol=1e-6)  # normalised
  shifted = {**params, 'mlm': {**params['mlm'], 'bias': jnp.arange(11.0)}}
  difference = module.apply({'params': shifted}, HIDDEN).logits() - factored.logits()
  np.testing.assert_allclose(difference, np.broadcast_to(np.arange(11.0), (4, 5, 11)), atol=1e-5)


@pytest.mark.parametrize('pooling', heads.POOLINGS)
def test_the_vector_of_a_text_is_the_same_alone_and_beside_others(pooling):
  module, variables = make(names=(heads.EMBEDDING,), pooling=pooling)
  assert not variables
  alone = module.apply(variables, HIDDEN[:2], SEGMENTS[:2])['embedding']
  expected = HIDDEN[:2, 0] if pooling == 'cls' else np.stack([HIDDEN[0].mean(0), HIDDEN[1, :3].mean(0)])
  np.testing.assert_allclose(alone, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
  row, segments = np.concatenate([HIDDEN[0], HIDDEN[1]])[None], np.array([[1] * 5 + [2] * 3 + [0] * 2], np.int32)
  found = module.apply(variables, row, segments, everywhere=True)['embedding']
  np.testing.assert_allclose(found[0, [0, 5]], alone, atol=1e-6)
  assert np.all(np.isfinite(found))
