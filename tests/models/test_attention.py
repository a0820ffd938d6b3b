"""A model computes the same whatever computes its attention."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core.errors import UsageError
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import XlnetConfig
from t5x_lite.nn import attend
from t5x_lite.nn.pallas_attention import pallas_attention

SIZES = {'vocab_size': 40, 'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 24}
MODELS = {
  't5': (T5, T5Config(**SIZES, num_encoder_layers=2, num_decoder_layers=2)),
  'bert': (Bert, BertConfig(**SIZES, num_layers=2, heads=('mlm',), dropout_rate=0.0)),
  'gpt': (Gpt, GptConfig(**SIZES, num_layers=2, num_kv_heads=1, dropout_rate=0.0)),
  'gpt3': (
    Gpt,
    GptConfig(**SIZES, num_layers=2, layer_pattern=('dense', 'local'), attention_window=3, dropout_rate=0.0),
  ),
}


def packed_rows():
  rng = np.random.default_rng(0)
  batch = {}
  for side, length in (('encoder', 14), ('decoder', 11)):
    segments = np.asarray([[1] * 6 + [2] * 3 + [0] * (length - 9), [1] * (length - 4) + [2] * 4], np.int32)
    starts = np.asarray([[np.flatnonzero(row == segment)[0] for segment in row] for row in segments])
    batch[f'{side}_segment_ids'] = segments
    batch[f'{side}_positions'] = (np.arange(length) - starts).astype(np.int32)
    batch[f'{side}_input_tokens'] = rng.integers(3, 40, (2, length)).astype(np.int32)
  return batch


def loss_and_gradients(name, attention, params=None):
  """Of what is not padding."""
  make, config = MODELS[name]
  model, batch = make(dataclasses.replace(config, attention=attention)), packed_rows()
  if params is None:
    params = nn.unbox(jax.jit(model.init)({'params': jax.random.key(0)}, batch))['params']
  real = (batch['encoder_segment_ids' if name == 'bert' else 'decoder_segment_ids'] > 0)[..., None]

  def loss(params):
    return jnp.sum(jnp.where(real, jnp.sin(model.apply({'params': params}, batch)), 0.0))

  return params, jax.jit(jax.value_and_grad(loss))(params)


@functools.cache
def by_xla(name):
  return loss_and_gradients(name, 'xla')


def check(name, attention):
  params, expected = by_xla(name)
  _, got = loss_and_gradients(name, attention, params)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), got, expected)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['t5', 'gpt', pytest.param('bert', marks=pytest.mark.slow), 'gpt3'])
def test_blockwise_changes_nothing(name):
  check(name, 'blockwise')


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['t5', *(pytest.param(name, marks=pytest.mark.slow) for name in ('bert', 'gpt', 'gpt3'))]
)
def test_pallas_changes_nothing(name, monkeypatch):
  def interpreted(inputs, settings):
    return pallas_attention(inputs, dataclasses.replace(settings, interpret=True))

  monkeypatch.setattr(attend, 'platform', lambda: 'tpu')
  monkeypatch.setitem(attend._KERNELS, 'pallas', interpreted)
  check(name, 'pallas')


def test_what_a_model_cannot_have_is_refused():
  with pytest.raises(UsageError, match="unknown attention of T5Config 'blockwize': did you mean 'blockwise'"):
    T5Config(attention='blockwize')
  with pytest.raises(UsageError, match=r"XlnetConfig.attention is 'pallas'.* expected 'auto' or 'xla'"):
    XlnetConfig(attention='pallas')
  with pytest.raises(UsageError, match="attention 'splash' runs on a TPU, and this is a cpu: expected 'auto' or 'xla'"):
    loss_and_gradients('gpt', 'splash')
