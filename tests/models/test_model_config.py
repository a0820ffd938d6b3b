"""What the configurations of all families refuse, and the blocks that they describe."""

import jax.numpy as jnp
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.models.bert import BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.nn.transformer import BlockConfig

CONFIGS = (BertConfig, GptConfig)


@pytest.mark.parametrize('config', CONFIGS)
@pytest.mark.parametrize(
  ('values', 'told'),
  [
    ({'dtype': 'float16'}, "'float16': expected 'float32' or 'bfloat16'"),
    ({'vocab_size': 0}, 'vocab_size is 0: expected at least 1'),
    ({'num_layers': -1}, 'num_layers is -1: expected at least 1'),
    ({'max_length': 0}, 'max_length is 0: expected at least 1'),
    ({'dropout_rate': 1.5}, 'dropout rate is 1.5: expected at least 0 and less than 1'),
    ({'mlp_activations': ()}, 'expected one activation'),
    ({'mlp_activations': ('gelu', 'liner')}, "did you mean 'linear'"),
    ({'num_kv_heads': 5}, 'num_kv_heads is 5: expected a divisor of the 12 heads'),
    ({'num_kv_heads': 0}, 'num_kv_heads is 0: expected at least 1'),
    ({'remat_policy': 'ful'}, "did you mean 'full'"),
    ({'positions': 'rotery'}, "did you mean 'rotary'"),
    ({'heads': ('taging',)}, "did you mean 'tagging'"),
    ({'num_labels': 0}, 'num_labels is 0: expected at least 1'),
    ({'positions': 'rotary', 'head_dim': 33}, 'head_dim is 33: expected an even number for rotary'),
    ({'positions': 'sinusoidal', 'emb_dim': 127}, 'emb_dim is 127: expected an even number for sinusoidal'),
    ({'num_experts': 2, 'experts_per_token': 3}, 'experts_per_token is 3: expected at most num_experts, 2'),
    ({'num_experts': 2, 'capacity_factor': 0.0}, 'capacity_factor is 0.0: expected more than 0'),
  ],
  ids=str,
)
def test_impossible_values_are_refused(config, values, told):
  with pytest.raises(UsageError, match=told):
    config(**values)


@pytest.mark.parametrize(
  ('config', 'values', 'told'),
  [
    (GptConfig, {'layer_pattern': ('dense', 'loca')}, "did you mean 'local'"),
    (GptConfig, {'layer_pattern': ()}, 'unknown layer kind'),
    (GptConfig, {'attention_window': 0}, 'attention_window is 0: expected at least 1'),
    (GptConfig, {'heads': ('multiple_choice',)}, 'unknown head of GptConfig'),
    (BertConfig, {'heads': ('lm',)}, 'unknown head of BertConfig'),
    (BertConfig, {'first_position': -1}, 'first_position is -1: expected at least 0'),
    (BertConfig, {'num_token_types': 0}, 'num_token_types is 0: expected at least 1'),
  ],
)
def test_impossible_values_of_one_family_are_refused(config, values, told):
  with pytest.raises(UsageError, match=told):
    config(**values)


def test_what_may_be_nothing_may():
  assert BertConfig(first_position=0, num_global_tokens=0).num_global_tokens == 0


def test_fields_reach_the_block():
  block = GptConfig(num_kv_heads=3, positions='rotary', rotary_base=500.0, dtype='bfloat16', dropout_rate=0.2).block()
  assert isinstance(block, BlockConfig)
  assert (block.features, block.num_heads, block.head_dim, block.num_kv_heads) == (768, 12, 64, 3)
  assert (block.rotary_base, block.dtype, block.dropout_rate) == (500.0, jnp.bfloat16, 0.2)
  assert (block.norm, block.norm_placement, block.use_bias, block.attention_scale) == ('layer', 'pre', True, None)
  assert GptConfig(rotary_base=500.0).block().rotary_base is None
  assert BertConfig().block().norm_placement == 'post'


def test_a_cache_longer_than_the_table_of_positions_is_refused():
  sizes = {'vocab_size': 8, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 8, 'num_layers': 1, 'max_length': 6}
  Gpt(GptConfig(**sizes)).init_cache(1, 6)
  Gpt(GptConfig(**sizes, positions='rotary')).init_cache(1, 9)
  with pytest.raises(UsageError, match='rows of 9 tokens, but the model has positions for 6'):
    Gpt(GptConfig(**sizes)).init_cache(1, 9)
