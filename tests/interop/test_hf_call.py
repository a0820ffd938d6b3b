"""Calls with the arguments of transformers: what is refused, which position a classifier reads, losses by shape."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core.errors import UsageError
from t5x_lite.interop import hf_call
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig

SIZES = {'vocab_size': 20, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 12, 'dropout_rate': 0.0}
IDS = np.arange(2, 14).reshape(2, 6)
CHOICES = np.arange(2, 14).reshape(2, 3, 2)


def bert(*heads, **fields):
  return Bert(BertConfig(**{**SIZES, 'num_layers': 1, 'max_length': 8, 'heads': heads, **fields}))


def gpt(*heads, **fields):
  return Gpt(GptConfig(**{**SIZES, 'num_layers': 1, 'max_length': 8, 'heads': heads, **fields}))


def xlnet(*heads, **fields):
  return Xlnet(XlnetConfig(**{**SIZES, 'num_layers': 1, 'heads': heads, **fields}))


def t5(*heads, **fields):
  return T5(T5Config(**{**SIZES, 'num_encoder_layers': 1, 'num_decoder_layers': 1, 'heads': heads, **fields}))


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(module, params, batch):
  return module.apply({'params': params}, batch, method='outputs')


def call(module, config=None, **arguments):
  """Outputs and parameters of a module, with everything drawn far from zero."""
  config = config or {}
  inputs, targets = hf_call.split_arguments(module, arguments, config)
  batch = hf_call.batch_of(module, config, inputs, targets)
  params = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), batch))['params']
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  params = jax.tree.unflatten(tree, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
  outputs = outputs_of(module, params, batch)
  named = hf_call.named_outputs(module, outputs)
  return {**named, 'loss': hf_call.loss_of(module, config, named, targets)}, params


WITH = {'input_ids': IDS}
LABELS = np.full((2, 6), -100)
PAIR = {'labels': LABELS, 'next_sentence_label': [0, 1]}


@pytest.mark.parametrize(
  ('module', 'arguments', 'told'),
  [
    (bert('mlm'), {'input_ids': IDS + 7}, r'input_ids has 20: expected 0 to 19, of the vocabulary'),
    (gpt('lm'), {'input_ids': IDS - 3}, r'input_ids has -1: expected 0 to 19'),
    (xlnet('lm'), {'input_ids': IDS + 2**32}, r'input_ids has 4294967298: expected 0 to 19'),
    (xlnet('lm'), {'input_ids': (IDS + 240).astype(np.uint8)}, r'input_ids has 242'),
    (t5('lm'), {**WITH, 'decoder_input_ids': IDS + 9}, r'decoder_input_ids has 20'),
    (bert('mlm'), {'input_ids': IDS * 1.0}, r'input_ids is float64: expected integers, from 0 to 19'),
    (bert('mlm'), {'input_ids': IDS > 3}, r'input_ids is bool: expected integers'),
    (bert('mlm'), {**WITH, 'token_type_ids': IDS}, r'token_type_ids has 2: expected 0 to 1'),
    (bert('mlm'), {**WITH, 'position_ids': IDS}, r'position_ids has 8: expected 0 to 7'),
    (gpt('lm'), {**WITH, 'position_ids': IDS - 3}, r'position_ids has -1: expected 0 to 7'),
    (gpt('lm'), {'input_ids': np.ones((1, 9), int)}, r'rows of 9 tokens: expected at most 8'),
    (bert('mlm', first_position=2), {'input_ids': np.ones((1, 7), int)}, r'rows of 7 tokens: expected at most 6'),
    (bert('mlm'), {**WITH, 'labels': IDS + 7}, r'labels has 20: expected 0 to 19 or -100'),
    (bert('mlm'), {**WITH, 'labels': LABELS + 1}, r'labels has -99: expected 0 to 19 or -100'),
    (bert('tagging', num_labels=3), {**WITH, 'labels': IDS % 4}, r'labels has 3: expected 0 to 2 or -100'),
    (bert('classification', num_labels=3), {**WITH, 'labels': [0, 3]}, r'labels has 3: expected 0 to 2 or -100'),
    (bert('multiple_choice'), {'input_ids': CHOICES, 'labels': [0, 3]}, r'labels has 3: expected 0 to 2'),
    (bert('mlm', 'nsp'), {**WITH, **PAIR, 'next_sentence_label': [0, 2]}, r'next_sentence_label has 2'),
  ],
)
def test_what_is_beyond_a_table_is_refused(module, arguments, told):
  with pytest.raises(UsageError, match=told):
    hf_call.split_arguments(module, arguments)


@pytest.mark.parametrize(
  ('module', 'arguments', 'told'),
  [
    (bert('mlm'), {**WITH, 'labels': IDS[:, :1]}, r'labels is \[2, 1\], and input_ids \[2, 6\]: expected \[2, 6\]'),
    (gpt('lm'), {**WITH, 'labels': IDS[:1]}, r'labels is \[1, 6\]'),
    (t5('lm'), {**WITH, 'decoder_input_ids': IDS[:, :4], 'labels': IDS}, r'labels is \[2, 6\], .* expected \[2, 4\]'),
    (t5('lm'), {**WITH, 'labels': IDS[0]}, r'labels is \[6\], .* expected \[2, any\]'),
    (xlnet('lm'), {**WITH, 'target_mapping': np.ones((2, 1, 6)), 'labels': IDS}, r'labels is .* expected \[2, 1\]'),
    (bert('tagging'), {**WITH, 'labels': [0, 1]}, r'labels is \[2\], .* expected \[2, 6\]'),
    (bert('classification'), {**WITH, 'labels': IDS % 2}, r'expected \[2\] or \[2, 1\], of single_label_class'),
    (bert('classification'), {**WITH, 'labels': [0.0, 1.0]}, r'expected \[2, 2\], of multi_label_classification'),
    (bert('classification', num_labels=1), {**WITH, 'labels': IDS * 1.0}, r'expected \[2\] or .* of regression'),
    (bert('classification'), {**WITH, 'labels': [[True, False]] * 2}, r'labels is bool: expected integers, or floats'),
    (bert('multiple_choice'), {'input_ids': CHOICES, 'labels': [[0], [1]]}, r'labels is \[2, 1\], .* expected \[2\]'),
    (bert('multiple_choice'), {**WITH, 'labels': [0, 1]}, r'expected \[batch, choices, length\], for labels'),
    (bert('span'), {**WITH, 'start_positions': [1], 'end_positions': [1]}, r'start_positions is \[1\]'),
    (bert('mlm'), {**WITH, 'labels': IDS * 1.0}, r'labels is float64: expected integers'),
    (bert('span'), {**WITH, 'start_positions': [1.0, 2.0], 'end_positions': [1, 2]}, r'start_positions is float64'),
  ],
)
def test_targets_of_another_shape_or_dtype_are_refused(module, arguments, told):
  with pytest.raises(UsageError, match=told):
    hf_call.split_arguments(module, arguments)


@pytest.mark.parametrize(
  ('module', 'arguments', 'told'),
  [
    (bert('mlm'), {'input_ids': 'a text'}, r'input_ids is text: expected numbers'),
    (bert('mlm'), {'input_ids': ['a', 'text']}, r'input_ids is text'),
    (bert('mlm'), {'input_ids': [[1, 2], [3]]}, r'input_ids is ragged'),
    (bert('mlm'), {'input_ids': {'ids': 3}}, r'input_ids holds object: expected numbers'),
    (bert('mlm'), {'input_ids': 3}, r'input_ids is a single number'),
    (bert('mlm'), {'input_ids': IDS[0]}, r'input_ids is \[6\]: expected \[batch, length\]$'),
    (bert('mlm'), {'input_ids': CHOICES}, r'input_ids is \[2, 3, 2\]: expected \[batch, length\]$'),
    (bert('mlm'), {'input_ids': IDS[:0]}, r'input_ids is \[0, 6\], which is empty'),
    (bert('mlm'), {'input_ids': []}, r'input_ids is \[0\], which is empty'),
    (bert('mlm'), {**WITH, 'attention_mask': IDS[:1] > 0}, r'attention_mask is \[1, 6\], .* expected \[2, 6\]'),
    (bert('mlm'), {**WITH, 'attention_mask': (IDS > 3) * -1e9}, r'attention_mask has -1000000000.0: expected 0 and 1'),
    (bert('mlm'), {**WITH, 'token_type_ids': IDS[0] * 0}, r'token_type_ids is \[6\]'),
    (bert('mlm'), {**WITH, 'position_ids': np.zeros((2, 1), int)}, r'expected \[2, 6\] or \[1, 6\]'),
    (bert('mlm'), {**WITH, 'position_ids': IDS * 0.5}, r'position_ids is float64'),
    (t5('lm'), {**WITH, 'decoder_input_ids': IDS[:1]}, r'decoder_input_ids is \[1, 6\], .* expected \[2, any\]'),
    (t5('lm'), {**WITH, 'decoder_input_ids': IDS, 'decoder_attention_mask': IDS[:, :2] > 0}, r'decoder_attention_mask'),
    (
      t5('tagging', num_decoder_layers=0),
      {**WITH, 'decoder_input_ids': IDS},
      r"unknown argument .*'decoder_input_ids'",
    ),
    (xlnet('lm'), {**WITH, 'perm_mask': np.zeros((2, 6))}, r'perm_mask is \[2, 6\], .* expected \[2, 6, 6\]'),
    (xlnet('lm'), {**WITH, 'target_mapping': np.zeros(6)}, r'target_mapping is \[6\], .* expected \[2, any, 6\]'),
    (xlnet('lm'), {**WITH, 'mems': np.zeros((1, 3, 1, 8))}, r'mems is .* expected \[1, any, 2, 8\]'),
  ],
)
def test_inputs_of_another_shape_or_kind_are_refused(module, arguments, told):
  with pytest.raises(UsageError, match=told):
    hf_call.split_arguments(module, arguments)


@pytest.mark.parametrize(
  ('module', 'targets', 'told'),
  [
    (bert('mlm'), {'start_positions': [1, 1], 'end_positions': [1, 1]}, r'start_positions .* \(mlm\): expected labels'),
    (bert(), {'labels': [1, 1]}, r'labels is the target of none .* \(none\): expected no targets'),
    (bert('span'), {'labels': [1, 1]}, r'labels .* expected start_positions with end_positions'),
    (bert('span'), {'end_positions': [1, 1]}, r'targets are end_positions: expected start_positions with'),
    (bert('mlm', 'nsp'), {'labels': LABELS}, r'targets are labels: expected labels with next_sentence_label'),
    (bert('nsp'), {'next_sentence_label': [1, 1]}, r'next_sentence_label .* expected labels'),
  ],
)
def test_targets_without_their_head_are_refused_by_name(module, targets, told):
  with pytest.raises(UsageError, match=told):
    hf_call.split_arguments(module, {**WITH, **targets})


def test_a_problem_that_there_is_not_is_refused_with_the_nearest():
  config = {'problem_type': 'multilabel_classification'}
  with pytest.raises(UsageError, match=r"unknown problem_type .* did you mean 'multi_label_classification'"):
    hf_call.split_arguments(bert('classification'), {**WITH, 'labels': [0, 1]}, config)


@pytest.mark.parametrize('masked', [False, True])
def test_gpt_classifies_by_the_last_token_that_is_not_the_padding_token(masked):
  ids = np.array([[5, 0, 6, 7, 0, 0], [0, 0, 3, 4, 5, 6], [0] * 6])
  mask = (np.arange(6) < [[5], [6], [2]]) if masked else None
  outputs, params = call(gpt('classification'), {'pad_token_id': 0}, input_ids=ids, attention_mask=mask)
  read = outputs['last_hidden_state'][np.arange(3), [3, 5, 0]]
  np.testing.assert_allclose(
    outputs['logits'], read @ params['heads']['classification']['kernel'], rtol=1e-4, atol=1e-4
  )


def test_gpt_without_a_padding_token_classifies_single_rows():
  outputs, params = call(gpt('classification'), input_ids=IDS[:1], attention_mask=[[1, 1, 1, 0, 0, 0]])
  read = outputs['last_hidden_state'][:, -1]
  np.testing.assert_allclose(
    outputs['logits'], read @ params['heads']['classification']['kernel'], rtol=1e-4, atol=1e-4
  )
  with pytest.raises(UsageError, match='input_ids has 2 rows: expected one, or a pad_token_id'):
    call(gpt('classification'), input_ids=IDS)


@pytest.mark.parametrize('mapped', [False, True])
def test_xlnet_classifies_by_the_last_position_be_it_padding(mapped):
  mask = np.arange(6)[None] < [[4], [6]]
  mapping = {'target_mapping': np.eye(6, dtype=np.float32)[None, 1:4].repeat(2, axis=0)} if mapped else {}
  outputs, params = call(xlnet('classification'), input_ids=IDS, attention_mask=mask, **mapping)
  heads = params['heads']
  pooled = np.tanh(outputs['last_hidden_state'][:, -1] @ heads['pooler']['kernel'] + heads['pooler']['bias'])
  expected = pooled @ heads['classification']['kernel'] + heads['classification']['bias']
  assert outputs['last_hidden_state'].shape[1] == (3 if mapped else 6)
  np.testing.assert_allclose(outputs['logits'], expected, rtol=1e-4, atol=1e-4)


def test_losses_of_classifiers_are_those_of_their_problem():
  labels = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5]])
  outputs, _ = call(bert('classification', num_labels=3), input_ids=IDS, labels=labels)
  chance = 1 / (1 + np.exp(-np.asarray(outputs['logits'], np.float64)))
  expected = -np.mean(labels * np.log(chance) + (1 - labels) * np.log(1 - chance))
  np.testing.assert_allclose(outputs['loss'], expected, rtol=1e-4)
  regression = {'problem_type': 'regression'}
  outputs, _ = call(bert('classification', num_labels=3), regression, input_ids=IDS, labels=labels)
  np.testing.assert_allclose(outputs['loss'], np.mean((outputs['logits'] - labels) ** 2), rtol=1e-5)
  for shape in ((2,), (2, 1)):
    outputs, _ = call(bert('classification', num_labels=1), input_ids=IDS, labels=labels[:, 1].reshape(shape))
    np.testing.assert_allclose(outputs['loss'], np.mean((outputs['logits'][:, 0] - labels[:, 1]) ** 2), rtol=1e-5)


def test_labels_of_one_in_a_column_are_those_of_a_row():
  flat, column = (
    call(bert('classification', num_labels=3), input_ids=IDS, labels=np.reshape([2, -100], shape))[0]['loss']
    for shape in ((2,), (2, 1))
  )
  np.testing.assert_array_equal(flat, column)
  assert np.isfinite(flat)


def test_positions_of_one_row_are_those_of_all():
  rows = np.arange(6)[None] + 1
  one, all_of_them = (
    call(bert('mlm'), input_ids=IDS, position_ids=np.repeat(rows, count, axis=0))[0]['logits'] for count in (1, 2)
  )
  np.testing.assert_array_equal(one, all_of_them)


def test_ends_beyond_the_input_are_not_counted():
  beyond, _ = call(bert('span'), input_ids=IDS, start_positions=[99, 2], end_positions=[[1], [2]])
  start = jax.nn.log_softmax(beyond['start_logits'])[1, 2]
  ends = jax.nn.log_softmax(beyond['end_logits'])[np.arange(2), [1, 2]]
  np.testing.assert_allclose(beyond['loss'], -(start + ends.mean()) / 2, rtol=1e-5)
