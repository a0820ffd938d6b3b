"""Models that differ in one place have the same initial values everywhere else: what arms of an ablation rely on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import batch, tree
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config

SIZES = {'vocab_size': 32, 'emb_dim': 8, 'mlp_dim': 16, 'num_heads': 2, 'head_dim': 4}
MODELS = {
  'gpt': functools.partial(GptConfig, num_layers=1, max_length=8, **SIZES),
  't5': functools.partial(T5Config, num_encoder_layers=2, num_decoder_layers=2, **SIZES),
}


def initial(name, **changed):
  model = Gpt(MODELS[name](**changed)) if name == 'gpt' else T5(MODELS[name](**changed))
  spec = {
    f'{side}_{name}': jax.ShapeDtypeStruct((1, 4), jnp.int32)
    for side in ('encoder', 'decoder')
    for name in ('input_tokens', 'segment_ids', 'positions')
  }
  params = jax.jit(lambda: model.init({'params': jax.random.key(3)}, batch.zeros(spec))['params'])()
  return {name: np.asarray(value) for name, value in tree.named_leaves(nn.meta.unbox(params)).items()}


@pytest.mark.parametrize(
  ('name', 'changed', 'elsewhere'),
  [
    ('gpt', {'mlp_dim': 32}, '/mlp/'),
    pytest.param('t5', {'num_heads': 4}, 'attention', marks=pytest.mark.slow),
    pytest.param('t5', {'num_decoder_layers': 3}, 'decoder/blocks/layers/', marks=pytest.mark.slow),
  ],
)
def test_values_are_the_same_wherever_shapes_are(name, changed, elsewhere):
  before, after = initial(name), initial(name, **changed)
  assert before.keys() == after.keys()
  drawn = [name for name, value in before.items() if value.std() > 0 and value.shape == after[name].shape]
  assert len(drawn) > 3
  for name, value in before.items():
    if value.shape == after[name].shape:
      np.testing.assert_array_equal(after[name], value, err_msg=name)
    else:
      assert elsewhere in name or 'rel_embedding' in name
