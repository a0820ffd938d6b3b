"""Properties of BERT as a whole, and of RoBERTa, which is a configuration of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import tree
from t5x_lite.models.bert import Bert, BertConfig

TINY = {
  'vocab_size': 40, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 24, 'num_layers': 2, 'max_length': 32,
  'initializer_range': 0.3, 'dropout_rate': 0.0, 'heads': ('mlm',),
}  # fmt: skip
# Two layers of a window of 2 see 2 positions to either side, and all that the first position knows.
LOCAL = {'attention_window': 2, 'num_global_tokens': 1}
POSITIONS = ('learned', 'sinusoidal', 'rotary', 'none')


def make_batch(rows=2, length=10, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'encoder_input_tokens': rng.integers(3, 40, (rows, length)).astype(np.int32),
    'encoder_segment_ids': np.ones((rows, length), np.int32),
    'encoder_positions': np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
    'encoder_token_type_ids': rng.integers(0, 2, (rows, length)).astype(np.int32),
  }


class Jitted:
  """A model whose methods are compiled: a scan that is not jitted is compiled anew at each call."""

  def __init__(self, **changes):
    self.model = Bert(BertConfig(**{**TINY, **changes}))
    self.apply = jax.jit(self.model.apply, static_argnames=('method', 'deterministic'))

  def init(self):
    return nn.unbox(jax.jit(self.model.init)({'params': jax.random.key(0)}, make_batch()))


@functools.cache
def make(**changes):
  """A model and its parameters, which depend on shapes only; made once, so that tests leave them as they are."""
  model = Jitted(**changes)
  return model, model.init()


def outputs(model, variables, batch):
  return model.apply(variables, batch, method='outputs')


def logits(model, variables, batch):
  return np.asarray(outputs(model, variables, batch)['lm_logits'])


@pytest.mark.parametrize('flavour', [*({'positions': kind} for kind in POSITIONS), LOCAL], ids=str)
def test_packed_equals_not_packed(flavour):
  model, variables = make(**flavour)
  parts = [make_batch(1, 6, seed=1), make_batch(1, 4, seed=2)]
  packed = {}
  for name in parts[0]:
    row = [part[name] * (i if name == 'encoder_segment_ids' else 1) for i, part in enumerate(parts, 1)]
    packed[name] = np.pad(np.concatenate(row, axis=1), ((0, 0), (0, 3)))
  together = logits(model, variables, packed)
  np.testing.assert_allclose(together[:, :6], logits(model, variables, parts[0]), atol=1e-5)
  np.testing.assert_allclose(together[:, 6:10], logits(model, variables, parts[1]), atol=1e-5)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_padding_changes_nothing(side):
  model, variables = make()
  batch, width = make_batch(), (3, 0) if side == 'left' else (0, 3)
  padded = {name: np.pad(value, ((0, 0), width)) for name, value in batch.items()}
  found = logits(model, variables, padded)[:, width[0] : width[0] + 10]
  np.testing.assert_allclose(found, logits(model, variables, batch), atol=1e-5)


def test_every_position_sees_every_other_one():
  model, variables = make(num_layers=1)
  batch = make_batch()
  for at in (0, 9):
    other = {**batch, 'encoder_input_tokens': batch['encoder_input_tokens'].copy()}
    other['encoder_input_tokens'][:, at] = 1
    assert np.all(np.any(logits(model, variables, other) != logits(model, variables, batch), axis=-1))


def test_local_attention_sees_its_window_and_the_global_tokens_only():
  model, variables = make(num_layers=1, **LOCAL)
  batch = make_batch(1, 10)
  before = logits(model, variables, batch)
  for at in range(10):
    other = {**batch, 'encoder_input_tokens': batch['encoder_input_tokens'].copy()}
    other['encoder_input_tokens'][:, at] = 1
    changed = np.any(logits(model, variables, other) != before, axis=(0, 2))
    seen_by = [place for place in range(10) if abs(place - at) < 2 or 0 in (place, at)]
    assert np.flatnonzero(changed).tolist() == seen_by


def test_token_types_count_and_are_zeros_where_there_are_none():
  model, variables = make()
  batch = make_batch()
  without = {name: value for name, value in batch.items() if name != 'encoder_token_type_ids'}
  zeros = {**batch, 'encoder_token_type_ids': np.zeros_like(batch['encoder_token_type_ids'])}
  np.testing.assert_array_equal(logits(model, variables, without), logits(model, variables, zeros))
  assert np.any(logits(model, variables, batch) != logits(model, variables, zeros))


def test_roberta_is_a_bert_whose_position_table_starts_two_rows_later():
  bert, variables = make(max_length=12)
  roberta = Jitted(max_length=14, first_position=2)
  shifted = jax.tree.map(lambda x: x, variables)
  table = shifted['params']['embeddings']['positions']['table']
  table['embedding'] = jnp.concatenate([jnp.full((2, 16), jnp.nan), table['embedding']])
  np.testing.assert_array_equal(logits(roberta, shifted, make_batch()), logits(bert, variables, make_batch()))


@pytest.mark.parametrize('flavour', [{}, {'positions': 'rotary', 'num_kv_heads': 1}, LOCAL], ids=str)
def test_scanned_equals_unrolled(flavour):
  scanned, variables = make(**flavour)
  unrolled = Jitted(**flavour, scan_layers=False)
  layers = variables['params']['blocks']['layers']
  blocks = {f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(2)}
  apart = {'params': {**variables['params'], 'blocks': blocks}}
  np.testing.assert_allclose(logits(unrolled, apart, make_batch()), logits(scanned, variables, make_batch()), atol=1e-5)


def test_bfloat16_is_near_float32_and_returns_float32():
  heads = ('mlm', 'pooler', 'nsp', 'tagging')
  exact, variables = make(heads=heads, initializer_range=0.1)
  expected_outputs = outputs(exact, variables, make_batch())
  for name, value in outputs(Jitted(heads=heads, dtype='bfloat16'), variables, make_batch()).items():
    expected = expected_outputs[name]
    assert value.dtype == jnp.float32
    assert float(jnp.linalg.norm(value - expected) / jnp.linalg.norm(expected)) < 0.05, name


def test_outputs_of_all_heads_and_which_one_is_called():
  heads = ('nsp', 'mlm', 'pooler', 'classification', 'multiple_choice', 'span', 'tagging')
  model, variables = make(heads=heads, num_labels=3)
  batch = make_batch()
  found = outputs(model, variables, batch)
  assert {name: value.shape for name, value in found.items()} == {
    'last_hidden_state': (2, 10, 16),
    'lm_logits': (2, 10, 40),
    'pooler_output': (2, 16),
    'nsp_logits': (2, 2),
    'classification_logits': (2, 3),
    'choice_logits': (2, 1),
    'span_logits': (2, 10, 2),
    'tagging_logits': (2, 10, 3),
  }
  np.testing.assert_allclose(model.apply(variables, batch), found['nsp_logits'], atol=1e-6)
  factored = model.apply(variables, batch, method='factored_logits')
  np.testing.assert_allclose(factored.logits(), found['lm_logits'], atol=1e-5)
  bare, variables = make(heads=())
  assert set(variables['params']) == {'embeddings', 'blocks'}
  assert bare.apply(variables, batch).shape == (2, 10, 16)


def test_dropout_is_drawn_from_its_key_and_off_where_deterministic():
  model, variables = make(dropout_rate=0.5)

  def drawn(key):
    return model.apply(variables, make_batch(), deterministic=False, rngs={'dropout': key})

  assert np.any(drawn(jax.random.key(1)) != drawn(jax.random.key(2)))
  np.testing.assert_array_equal(drawn(jax.random.key(1)), drawn(jax.random.key(1)))
  np.testing.assert_array_equal(logits(model, variables, make_batch()), logits(Jitted(), variables, make_batch()))


LARGE = {'emb_dim': 1024, 'num_layers': 24, 'num_heads': 16, 'mlp_dim': 4096}
CASED = {'vocab_size': 28996}
ROBERTA = {'vocab_size': 50265, 'max_length': 514, 'first_position': 2, 'num_token_types': 1}
# Published sizes; the counts are those of transformers' classes: with the heads of pretraining, bare with a pooler.
SIZES = {
  'bert-base-uncased': ({}, ('mlm', 'nsp'), 110_106_428, 109_482_240),
  'bert-large-uncased': (LARGE, ('mlm', 'nsp'), 336_226_108, 335_141_888),
  'bert-base-cased': (CASED, ('mlm', 'nsp'), 108_932_934, 108_310_272),
  'bert-large-cased': ({**LARGE, **CASED}, ('mlm', 'nsp'), 334_661_958, 333_579_264),
  'roberta-base': (ROBERTA, ('mlm',), 124_697_433, 124_645_632),
  'roberta-large': ({**LARGE, **ROBERTA}, ('mlm',), 355_412_057, 355_359_744),
}


@pytest.mark.parametrize('size', SIZES)
def test_parameter_count_is_that_of_the_published_checkpoint(size):
  fields, heads, pretraining, bare = SIZES[size]
  for names, count in ((heads, pretraining), (('pooler',), bare)):
    model = Bert(BertConfig(**fields, heads=names))
    shapes = jax.eval_shape(model.init, {'params': jax.random.key(0)}, make_batch())
    assert tree.count_parameters(nn.unbox(shapes)) == count


def test_flops_are_those_of_the_products_in_the_program():
  """Against XLA's own count of the forward pass, unrolled so that it counts every layer."""
  model = Bert(BertConfig(vocab_size=4096, num_layers=2, scan_layers=False, heads=('mlm',)))
  batch = make_batch(rows=2, length=64)
  shapes = nn.unbox(jax.eval_shape(model.init, {'params': jax.random.key(0)}, batch))
  counted = jax.jit(model.apply).lower(shapes, batch).compile().cost_analysis()['flops']
  spec = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  assert 0.95 < model.flops_per_step(spec) / 3 / counted <= 1.0  # XLA also counts norms and softmax
