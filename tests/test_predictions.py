"""Sample predictions of every family, against the model's own forward pass."""

from __future__ import annotations

import dataclasses
import types

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import families, generation, predictions
from t5x_lite.core import errors
from t5x_lite.data import features
from t5x_lite.data.vocabularies import readable
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig

EOS, CLS, SEP, MASK = 1, 5, 6, 7
SIZES = {'vocab_size': 64, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32}


class Tokenizer:
  """The text of an id is its number."""

  vocab_size, pad_id, eos_id, unk_id = 60, 0, EOS, 2
  cls_id, sep_id, mask_id = CLS, SEP, MASK

  def decode(self, ids):
    ids = list(ids)
    return ' '.join(map(str, ids[: ids.index(EOS)] if EOS in ids else ids))


def ints(*values):
  return np.array(values, np.int32)


def padded(converter, examples, lengths):
  """A batch of task examples, one a row, and an empty row after them."""
  spec = features.batch_spec(converter, lengths, len(examples) + 1)
  batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
  for row, example in enumerate(examples):
    for name, array in converter(example).items():
      batch[name][row, : len(array)] = array
  return batch


def make(module, batch):
  params = nn.meta.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, batch)['params'])
  return jax.tree.map(lambda x: x * 8.0, params)  # at their usual size all tokens are alike


def predict(predictor, params, batch):
  written = np.asarray(jax.jit(predictor.write)(params, predictor.arrays(batch)))
  return written, predictor.samples(batch, written)


def config_of(converter, lengths):
  return types.SimpleNamespace(features=converter, tokenizer=Tokenizer(), task_feature_lengths=lengths)


def forward_greedy(module, params, batch, row, start, count):
  """The continuation of one row by the training forward pass, one token after the other."""
  rows = {name: array[row : row + 1].copy() for name, array in batch.items()}
  length = rows['decoder_input_tokens'].shape[1]
  rows['decoder_segment_ids'][:] = 1
  rows['decoder_positions'][:] = np.arange(length)
  written = []
  forward = jax.jit(lambda rows: module.apply({'params': params}, rows))
  for place in range(start, start + count):
    token = int(np.argmax(np.asarray(forward(rows))[0, place, : Tokenizer.vocab_size]))
    written.append(token)
    if token == EOS:
      break
    if place + 1 < length:
      rows['decoder_input_tokens'][0, place + 1] = token
  return written


PAIRS = [
  {'inputs': ints(7, 8, 9, 10, 1), 'targets': ints(11, 12, 1)},
  {'inputs': ints(20, 1), 'targets': ints(21, 22, 23, 24, 1)},
]


@pytest.mark.parametrize('bidirectional', [False, True])
def test_a_continuation_is_that_of_the_forward_pass(bidirectional):
  converter = features.DecoderOnlyFeatures(start_id=EOS, bidirectional_prefix=bidirectional)
  lengths = {'inputs': 8, 'targets': 6}
  batch = padded(converter, PAIRS, lengths)
  module = Gpt(GptConfig(num_layers=2, max_length=14, dropout_rate=0.0, **SIZES))
  params = make(module, batch)
  predictor = predictions.predictor(module, config_of(converter, lengths))
  written, samples = predict(predictor, params, batch)
  assert written.shape == (3, 14 - 5)  # what fits behind the longest prompt
  for row, (start, example) in enumerate(zip((5, 2), PAIRS, strict=True)):
    expected = forward_greedy(module, params, batch, row, start, written.shape[1])
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(written[row, : len(expected)], expected)
    assert samples[row].input == Tokenizer().decode(example['inputs'].tolist())
    assert samples[row].target == Tokenizer().decode(example['targets'].tolist())
    assert samples[row].prediction == Tokenizer().decode(expected)
  assert len(samples) == 2  # the empty row has none


def test_a_text_without_inputs_is_continued_from_its_middle():
  converter = features.DecoderOnlyFeatures(start_id=EOS)
  text = ints(10, 11, 1, 12, 13, 14, 15, 16)
  batch = padded(converter, [{'targets': text}], {'targets': 8})
  module = Gpt(GptConfig(num_layers=1, max_length=8, dropout_rate=0.0, **SIZES))
  params = make(module, batch)
  written, (sample,) = predict(predictions.predictor(module, config_of(converter, {'targets': 8})), params, batch)
  assert sample.input == f'10 11 {readable.EOS} 12' and sample.target == '13 14 15 16'
  expected = forward_greedy(module, params, batch, 0, 4, 4)
  np.testing.assert_array_equal(written[0, : len(expected)], expected)


MASKED = [
  {
    'inputs': ints(5, 20, 7, 22, 7, 6),
    'targets': ints(5, 20, 21, 22, 23, 6),
    'predicted': ints(0, 1, 1, 0, 1, 0),
  },
  {'inputs': ints(5, 7, 31, 6), 'targets': ints(5, 30, 31, 6), 'predicted': ints(0, 1, 0, 0)},
]
PERMUTED = [
  {
    'targets': ints(20, 21, 22, 23, 6, 5),
    'predicted': ints(0, 1, 0, 1, 0, 0),
    'order': ints(0, 3, 0, 1, 2, 4),
    'token_types': ints(0, 0, 0, 0, 0, 2),
  },
  {
    'targets': ints(30, 31, 6, 5),
    'predicted': ints(1, 0, 0, 0),
    'order': ints(2, 0, 1, 3),
    'token_types': ints(0, 0, 0, 2),
  },
]
FILLED = {
  'masked': (
    features.EncoderOnlyFeatures(),
    Bert(BertConfig(num_layers=1, max_length=8, heads=('mlm',), dropout_rate=0.0, **SIZES)),
    {'inputs': 8},
    MASKED,
    '5 20 [MASK] 22 [MASK] 6',
  ),
  'permuted': (
    features.PermutationFeatures(),
    Xlnet(XlnetConfig(num_layers=1, dropout_rate=0.0, **SIZES)),
    {'targets': 8},
    PERMUTED,
    '20 [MASK] 22 [MASK] 6 5',
  ),
}


@pytest.mark.parametrize('name', FILLED)
def test_fills_are_the_likeliest_tokens_at_the_predicted_positions(name):
  converter, module, lengths, examples, shown = FILLED[name]
  batch = padded(converter, examples, lengths)
  params = make(module, batch)
  predictor = predictions.predictor(module, config_of(converter, lengths))
  _, samples = predict(predictor, params, batch)
  logits = np.asarray(jax.jit(lambda batch: module.apply({'params': params}, batch))(batch))
  assert len(samples) == 2 and samples[0].input == shown
  for row, example in enumerate(examples):
    places = np.flatnonzero(example['predicted'])
    likeliest = np.argmax(logits[row, places, : Tokenizer.vocab_size], axis=-1)
    assert samples[row].prediction == readable.pieces(Tokenizer(), likeliest.tolist())
    assert samples[row].target == readable.pieces(Tokenizer(), example['targets'][places].tolist())


def test_features_of_others_have_no_samples():
  assert predictions.predictor(None, config_of(object(), {})) is None


def test_readable_text():
  tokenizer = Tokenizer()
  assert readable.text(tokenizer, ints(10, 11, 1)) == '10 11'
  assert readable.text(tokenizer, ints(10, 1, 11)) == f'10 {readable.EOS} 11'
  assert readable.text(tokenizer, ints()) == ''
  assert readable.with_blanks(tokenizer, ints(10, 11, 12), np.array([True, False, True]), '_') == '_ 11 _'
  assert readable.pieces(tokenizer, [10, EOS]) == '10 | #1'


@pytest.mark.parametrize(
  'module, reads',
  [
    (T5(T5Config()), features.EncoderDecoderFeatures()),
    (Gpt(GptConfig()), features.DecoderOnlyFeatures()),
    (Bert(BertConfig()), features.EncoderOnlyFeatures()),
    (Xlnet(XlnetConfig()), features.PermutationFeatures()),
  ],
)
def test_a_model_is_refused_features_that_it_cannot_learn_from(module, reads):
  families.check(module, reads)
  for other in features.CONVERTERS:
    if not isinstance(reads, other):
      with pytest.raises(errors.UsageError, match=f'cannot read {other.__name__}: expected {type(reads).__name__}'):
        families.check(module, other())
  with pytest.raises(errors.UsageError, match='has the heads classification'):
    families.check(module.clone(config=type(module.config)(heads=('classification',))), reads)


def test_a_decoder_learns_from_the_id_that_it_writes_from():
  with pytest.raises(errors.UsageError, match='decoder_start_id=2: expected 0, which model T5 writes from'):
    families.check(T5(T5Config()), features.EncoderDecoderFeatures(decoder_start_id=2))


def test_an_encoder_writes_nothing_and_neither_does_what_has_no_language_model():
  for module in (T5(T5Config()), Gpt(GptConfig()), Xlnet(XlnetConfig())):
    generation.check_writes(module)
  for module, told in (
    (Bert(BertConfig()), 'an encoder, which reads text and writes none'),
    (T5(T5Config(num_decoder_layers=0, heads=('span',))), 'without a decoder'),
    (Gpt(GptConfig(heads=('classification',))), 'the heads classification: expected lm'),
  ):
    with pytest.raises(errors.UsageError, match=told):
      generation.check_writes(module)


@pytest.mark.parametrize(
  ('module', 'side', 'most'),
  [(Gpt(GptConfig(max_length=12)), 'decoder', 12), (Bert(BertConfig(max_length=12, first_position=2)), 'encoder', 10)],
)
def test_rows_longer_than_the_positions_of_a_model_are_refused(module, side, most):
  def spec(length):
    return {f'{side}_input_tokens': jax.ShapeDtypeStruct((2, length), np.int32)}

  families.check_length(module, spec(most))
  with pytest.raises(errors.UsageError, match=f'rows of {most + 1} tokens, but .* has positions for {most}'):
    families.check_length(module, spec(most + 1))
  rotary = module.clone(config=dataclasses.replace(module.config, positions='rotary'))
  families.check_length(rotary, spec(most + 1))
