"""Models that differ in one place have the same initial values everywhere else: what arms of an ablation rely on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import batch, tree
from t5x_lite.models.t5 import T5, T5Config

SIZES = {
  'vocab_size': 32, 'emb_dim': 8, 'mlp_dim': 16, 'num_heads': 2, 'head_dim': 4,
  'num_encoder_layers': 2, 'num_decoder_layers': 2,
}  # fmt: skip
SPEC = {
  f'{side}_{name}': jax.ShapeDtypeStruct((1, 4), jnp.int32)
  for side in ('encoder', 'decoder')
  for name in ('input_tokens', 'segment_ids', 'positions')
}


@functools.cache
def initial(**changed):
  model = T5(T5Config(**{**SIZES, **changed}))
  params = jax.jit(lambda: model.init({'params': jax.random.key(3)}, batch.zeros(SPEC))['params'])()
  return {name: np.asarray(value) for name, value in tree.named_leaves(nn.meta.unbox(params)).items()}


@pytest.mark.parametrize(
  ('changed', 'elsewhere'), [({'mlp_dim': 32}, '/mlp/'), ({'num_decoder_layers': 3}, 'decoder/blocks/layers/')]
)
def test_values_are_the_same_wherever_shapes_are(changed, elsewhere):
  before, after = initial(), initial(**changed)
  assert before.keys() == after.keys()
  for name, value in before.items():
    if value.shape == after[name].shape:
      np.testing.assert_array_equal(after[name], value, err_msg=name)
    else:
      assert elsewhere in name
  assert sum(value.shape == after[name].shape for name, value in before.items()) >= len(before) // 2
