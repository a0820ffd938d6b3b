"""`decoder_input_ids`: what the output of an encoder-decoder begins with."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import stored_models
from t5x_lite.core import errors
from t5x_lite.interop.loading import Report
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.pretrained import Pretrained

SIZES = {'vocab_size': 24, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32, 'scan_layers': False}
INPUTS = [[7, 3, 9, 2], [11, 4]]
START = 6


def loaded(module):
  rng = np.random.default_rng(0)
  shapes = nn.meta.unbox(stored_models.abstract_params(module))
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  ids = {'eos_token_id': None, 'pad_token_id': 0, 'decoder_start_token_id': START}
  return Pretrained(module, params, stored_models.StoredModel('here', module, ids, None, lambda: None), Report())


@pytest.fixture(scope='module')
def t5():
  return loaded(T5(T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1)))


def test_what_was_written_is_gone_on_with(t5):
  whole = t5.generate(INPUTS, max_new_tokens=9)
  assert whole.ids.shape == (2, 10) and len(set(whole.ids.ravel().tolist())) >= 4
  # With the start token and, as in transformers, without it.
  for given in (whole.ids[:, :4], whole.ids[:, 1:4]):
    rest = t5.generate(INPUTS, decoder_input_ids=given, max_length=10)
    np.testing.assert_array_equal(rest.ids, whole.ids)
    np.testing.assert_array_equal(np.stack(rest.new_ids), whole.ids[:, 4:])
  # One beginning for all, in a beam search with several results.
  beams = t5.generate(INPUTS, decoder_input_ids=[8, 9], max_new_tokens=3, num_beams=3, num_return_sequences=2)
  assert beams.ids.shape == (4, 6) and (beams.ids[:, :3] == [START, 8, 9]).all()
  alone = t5.generate(INPUTS[1:], decoder_input_ids=[[8, 9]], max_new_tokens=3, num_beams=3, num_return_sequences=2)
  np.testing.assert_array_equal(alone.ids, beams.ids[2:])


@pytest.mark.slow
def test_a_smaller_model_drafts_behind_it(t5):
  options = {'decoder_input_ids': [8, 9], 'max_new_tokens': 6}
  np.testing.assert_array_equal(
    t5.generate(INPUTS, assistant_model=t5, **options).ids, t5.generate(INPUTS, **options).ids
  )


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    ([[1], [2, 3]], 'rows of several lengths'),
    ([[1, 2]], r'decoder_input_ids is int64 \[1, 2\]: expected ids \[P\] or \[2, P\]'),
    ([1, 24], 'decoder_input_ids has 24: expected ids from 0 to 23'),
    ([], 'at least one a row'),
  ],
)
def test_what_cannot_begin_an_output_is_refused(t5, given, told):
  with pytest.raises(errors.UsageError, match=told):
    t5.generate(INPUTS, decoder_input_ids=given, max_new_tokens=2)


def test_a_decoder_alone_has_no_encoder_to_tell_apart():
  gpt = loaded(Gpt(GptConfig(**SIZES, num_layers=1, max_length=40)))
  with pytest.raises(errors.UsageError, match='model Gpt: it has no encoder'):
    gpt.generate(INPUTS, decoder_input_ids=[1], max_new_tokens=2)
