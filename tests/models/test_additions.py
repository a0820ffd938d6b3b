"""Adapters and soft prompts: what they are at the start, and that they stand where they should."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import stored_models
from t5x_lite.core import errors, tree
from t5x_lite.core.batch import DECODER, ENCODER, INPUT_TOKENS, POSITIONS, SEGMENT_IDS, TOKEN_TYPE_IDS, key
from t5x_lite.interop.loading import Report
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.nn.adapter import is_addition
from t5x_lite.pretrained import Pretrained

SIZES = {'vocab_size': 24, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32, 'dropout_rate': 0.0}
MODELS = {
  't5': T5(T5Config(**SIZES, num_encoder_layers=2, num_decoder_layers=2)),
  'bert': Bert(BertConfig(**SIZES, num_layers=2, max_length=16, heads=('mlm', 'classification'))),
  'gpt': Gpt(GptConfig(**SIZES, num_layers=2, max_length=48)),
  'xlnet': Xlnet(XlnetConfig(**SIZES, num_layers=2)),
}
PROMPT = [9, 4, 17]


def with_config(module, **changes):
  return type(module)(dataclasses.replace(module.config, **changes))


def initialised(module):
  return nn.meta.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, stored_models._any_batch()))['params']


def without_additions(params):
  if not isinstance(params, dict):
    return params
  return {name: without_additions(part) for name, part in params.items() if not is_addition(name)}


def batch_of(rows, before=()):
  """Both sides read these rows, padded on the right; `before` is read first, in BERT as of its first sentence."""
  rows = [[*before, *row] for row in rows]
  length = max(map(len, rows))
  tokens = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
  segments = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows], np.int32)
  values = {INPUT_TOKENS: tokens, SEGMENT_IDS: segments, TOKEN_TYPE_IDS: segments * (np.arange(length) > 5)}
  values[POSITIONS] = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
  return {key(side, name): value for side in (ENCODER, DECODER) for name, value in values.items()}


ROWS = [[3, 8, 2, 7, 11, 1], [5, 6, 10]]


@pytest.mark.parametrize('name', list(MODELS))
def test_adapters_begin_as_the_identity_behind_every_sub_layer(name):
  plain, module = MODELS[name], with_config(MODELS[name], adapter_dim=3)
  params, batch = initialised(module), batch_of(ROWS)
  added = [each for each in tree.named_leaves(params) if is_addition(each)]
  kinds = {each.split('/')[-3] for each in added}
  expected = {'self_attention_adapter', 'mlp_adapter'} | ({'cross_attention_adapter'} if name == 't5' else set())
  assert kinds == expected
  run = jax.jit(lambda module, params: module.apply({'params': params}, batch), static_argnums=0)
  wanted = run(plain, without_additions(params))
  np.testing.assert_array_equal(run(module, params), wanted)
  slope = np.linspace(-1, 1, 16, dtype=np.float32)
  for kind in kinds:  # each of them is read
    changed = jax.tree_util.tree_map_with_path(
      lambda path, leaf, kind=kind: leaf + slope if f'{kind}/up/bias' in tree.path_name(path) else leaf, params
    )
    assert np.abs(run(module, changed) - wanted).max() > 1e-3


def prompted(name):
  """A model with a soft prompt of the vectors of tokens, and the same without, which has to read them."""
  module = with_config(MODELS[name], prompt_length=len(PROMPT))
  params = initialised(module)
  plain = jax.tree.map(lambda leaf: 2.5 * leaf, without_additions(params))  # far from uniform
  tokens = plain['embeddings']['tokens'] if name == 'bert' else plain['token_embedder' if name == 't5' else 'tokens']
  full = {**plain, 'soft_prompt': {'vectors': tokens['embedding'][np.array(PROMPT)]}}
  assert jax.tree.map(jnp.shape, full) == jax.tree.map(jnp.shape, params)
  return module, full, MODELS[name], plain


@pytest.mark.parametrize('name', ['t5', 'bert', 'gpt'])
def test_a_soft_prompt_of_the_vectors_of_tokens_is_read_as_those_tokens(name):
  module, full, plain, params = prompted(name)
  longer, batch = batch_of(ROWS, PROMPT), batch_of(ROWS)
  if name == 'bert':
    longer[key(ENCODER, TOKEN_TYPE_IDS)] = np.pad(batch[key(ENCODER, TOKEN_TYPE_IDS)], ((0, 0), (len(PROMPT), 0)))
  if name == 't5':  # the decoder's rows are as they were
    longer |= {each: value for each, value in batch.items() if each.startswith(DECODER)}
  read = jax.jit(
    lambda module, params, batch: module.apply({'params': params}, batch, method='outputs'), static_argnums=0
  )
  got, wanted = read(module, full, batch), read(plain, params, longer)
  for output in ('lm_logits', 'last_hidden_state'):
    own = wanted[output] if name == 't5' else wanted[output][:, len(PROMPT) :]
    real = batch[key(ENCODER, SEGMENT_IDS)] > 0
    np.testing.assert_allclose(got[output][real], own[real], rtol=1e-4, atol=1e-4)
  assert got['last_hidden_state'].shape == (2, 6, 16)
  if name == 't5':
    encoded = wanted['encoder_last_hidden_state'][:, len(PROMPT) :][real]
    np.testing.assert_allclose(got['encoder_last_hidden_state'][real], encoded, rtol=1e-4, atol=1e-4)


def pretrained_of(module, params):
  ids = {'eos_token_id': 5, 'pad_token_id': 0, 'bos_token_id': 1, 'decoder_start_token_id': 0}
  return Pretrained(module, params, stored_models.StoredModel('here', module, ids, None, lambda: None), Report())


@pytest.mark.slow
@pytest.mark.parametrize('name', ['t5', 'gpt'])
def test_a_model_writes_behind_its_soft_prompt(name):
  module, full, plain, params = prompted(name)
  model, other = pretrained_of(module, full), pretrained_of(plain, params)
  longer = [[*PROMPT, *row] for row in ROWS]
  for options in ({}, {'num_beams': 3, 'num_return_sequences': 2}, {'do_sample': True, 'num_return_sequences': 3}):
    got = model.generate(ROWS, max_new_tokens=7, seed=3, **options)
    wanted = other.generate(longer, max_new_tokens=7, seed=3, **options)
    assert [ids.tolist() for ids in got.new_ids] == [ids.tolist() for ids in wanted.new_ids]
  greedy = model.generate(ROWS, max_new_tokens=7)
  np.testing.assert_array_equal(model.generate(ROWS, max_new_tokens=7, assistant_model=model).ids, greedy.ids)


def test_the_vectors_count_where_there_is_a_greatest_length():
  module, full, *_ = prompted('gpt')
  model = pretrained_of(module, full)
  with pytest.raises(errors.UsageError, match='the model has positions for 45'):
    model.generate([[3] * 40], max_new_tokens=6)
  assert model.generate([[3] * 40], max_new_tokens=5).ids.shape[1] <= 45


def test_no_prompt_where_it_has_no_place():
  with pytest.raises(errors.UsageError, match=r'XlnetConfig.prompt_length is 2: expected 0'):
    with_config(MODELS['xlnet'], prompt_length=2)
  with pytest.raises(errors.UsageError, match=r'GptConfig.adapter_dim is -1: expected at least 0'):
    with_config(MODELS['gpt'], adapter_dim=-1)
  module, full, *_ = prompted('gpt')
  batch = batch_of(ROWS) | {'decoder_prefix': np.ones((2, 6), np.int32)}
  with pytest.raises(errors.UsageError, match='expected causal rows'):
    module.apply({'params': full}, batch)
