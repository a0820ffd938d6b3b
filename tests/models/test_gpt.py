"""Properties of GPT as a whole: GPT-2, GPT-3's local layers, and what crosses the families."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core import tree
from t5x_lite.models.gpt import Gpt, GptConfig

TINY = {
  'vocab_size': 40, 'emb_dim': 16, 'num_heads': 4, 'head_dim': 4, 'mlp_dim': 24, 'num_layers': 2, 'max_length': 32,
  'initializer_range': 0.3, 'dropout_rate': 0.0,
}  # fmt: skip
LOCAL = {'layer_pattern': ('dense', 'local'), 'attention_window': 3}
MODERN = {
  'positions': 'rotary', 'num_kv_heads': 2, 'norm': 'rms', 'use_bias': False, 'mlp_activations': ('silu', 'linear'),
  'logits_via_embedding': False,
}  # fmt: skip
FLAVOURS = {'gpt2': {}, 'gpt3': LOCAL, 'modern': MODERN, 'sinusoidal': {'positions': 'sinusoidal'}}
EACH_FLAVOUR = pytest.mark.parametrize('flavour', FLAVOURS.values(), ids=FLAVOURS)


def make_batch(rows=2, length=10, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'decoder_input_tokens': rng.integers(3, 40, (rows, length)).astype(np.int32),
    'decoder_segment_ids': np.ones((rows, length), np.int32),
    'decoder_positions': np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
  }


class Jitted:
  """A model whose methods are compiled: a scan that is not jitted is compiled anew at each call."""

  def __init__(self, **changes):
    self.model = Gpt(GptConfig(**{**TINY, **changes}))
    self.apply = jax.jit(self.model.apply, static_argnames=('method', 'bidirectional'))

  def init(self):
    return nn.unbox(jax.jit(self.model.init)({'params': jax.random.key(0)}, make_batch()))


@functools.cache
def make(**changes):
  """A model and its parameters, which depend on shapes only; made once, so that tests leave them as they are."""
  model = Jitted(**changes)
  return model, model.init()


def seen(model, variables, batch):
  """bool `[L, L]`: whether the logits at the first place depend on the token at the second, in the first row."""
  length = batch['decoder_input_tokens'].shape[1]
  before = np.asarray(model.apply(variables, batch))
  found = np.zeros((length, length), bool)
  for at in range(length):
    other = {**batch, 'decoder_input_tokens': batch['decoder_input_tokens'].copy()}
    other['decoder_input_tokens'][0, at] = 1
    found[:, at] = np.any(np.asarray(model.apply(variables, other))[0] != before[0], axis=-1)
  return found


@EACH_FLAVOUR
def test_no_position_sees_what_comes_after_it(flavour):
  np.testing.assert_array_equal(seen(*make(**flavour), make_batch(1)), np.tri(10, dtype=bool))


@pytest.mark.parametrize('scan', [True, False])
def test_local_layers_have_no_gradient_beyond_their_window(scan):
  """Two layers of a window of 3 see 4 back, exactly: further away is zero, not small."""
  model, variables = make(layer_pattern=('local',), attention_window=3, scan_layers=scan)
  distance = np.arange(10)[:, None] - np.arange(10)
  np.testing.assert_array_equal(seen(model, variables, make_batch(1)), (distance >= 0) & (distance <= 4))


def test_the_pattern_of_layers_is_repeated_over_the_stack():
  config = GptConfig(num_layers=5, layer_pattern=('dense', 'local', 'local'), attention_window=7)
  assert config.windows == (None, 7, 7, None, 7)
  assert GptConfig().windows is None


@EACH_FLAVOUR
def test_packed_equals_not_packed(flavour):
  model, variables = make(**flavour)
  parts = [make_batch(1, 6, seed=1), make_batch(1, 4, seed=2)]
  packed = {}
  for name in parts[0]:
    row = [part[name] * (i if name == 'decoder_segment_ids' else 1) for i, part in enumerate(parts, 1)]
    packed[name] = np.pad(np.concatenate(row, axis=1), ((0, 0), (0, 3)))
  logits = model.apply(variables, packed)
  np.testing.assert_allclose(logits[:, :6], model.apply(variables, parts[0]), atol=1e-5)
  np.testing.assert_allclose(logits[:, 6:10], model.apply(variables, parts[1]), atol=1e-5)


def test_a_prefix_sees_all_of_itself_and_of_no_other_example():
  model, variables = make(num_layers=1)
  batch = make_batch(1)
  batch['decoder_segment_ids'][:, 6:] = 2
  batch['decoder_positions'][:, 6:] -= 6
  prefix = np.array([[1, 1, 1, 0, 0, 0, 1, 1, 0, 0]], np.int32)
  expected = np.tri(10, dtype=bool) | (prefix[0] > 0)
  expected &= batch['decoder_segment_ids'][0][:, None] == batch['decoder_segment_ids'][0]
  np.testing.assert_array_equal(seen(model, variables, {**batch, 'decoder_prefix': prefix}), expected)


def left_padded():
  """Rows of 10 and 7 tokens, the second padded on the left."""
  batch = make_batch()
  batch['decoder_segment_ids'][1, :3] = 0
  batch['decoder_positions'][1] = np.maximum(np.arange(10) - 3, 0)
  return batch


def read_in_steps(model, variables, batch, lengths, **first):
  """Logits of a row that is read through the cache, so many tokens at a time; `first` is of the first reading."""
  cache = model.model.init_cache(2, 12)
  steps, start = [], 0
  for length in lengths:
    tokens, segments = (batch[f'decoder_{name}'][:, start : start + length] for name in ('input_tokens', 'segment_ids'))
    options = first if start == 0 else {}
    logits, cache = model.apply(variables, tokens, cache, segments, method='decode_with_cache', **options)
    steps.append(np.asarray(logits))
    start += length
  return np.concatenate(steps, axis=1)


@pytest.mark.parametrize('scan', [pytest.param(True, marks=pytest.mark.slow), False])
@EACH_FLAVOUR
def test_cached_decoding_of_prompts_padded_on_the_left_equals_the_full_forward_pass(flavour, scan):
  model, variables = make(**flavour, scan_layers=scan)
  batch = left_padded()
  real = batch['decoder_segment_ids'] > 0
  logits = read_in_steps(model, variables, batch, (5, 1, 1, 1, 1, 1))
  np.testing.assert_allclose(logits[real], np.asarray(model.apply(variables, batch))[real], atol=1e-5)


def test_cached_decoding_behind_a_bidirectional_prompt_equals_the_full_forward_pass():
  model, variables = make()
  batch = left_padded()
  prefix = np.zeros((2, 10), np.int32)
  prefix[:, :5] = batch['decoder_segment_ids'][:, :5]
  real = batch['decoder_segment_ids'] > 0
  logits = read_in_steps(model, variables, batch, (5, 1, 1, 1, 1, 1), bidirectional=True)
  whole = np.asarray(model.apply(variables, {**batch, 'decoder_prefix': prefix}))
  np.testing.assert_allclose(logits[real], whole[real], atol=1e-5)


def repeated(kernel, groups):
  """Keys or values `[..., K * H]` as those of `4 = K * groups` heads."""
  apart = kernel.reshape(*kernel.shape[:-1], -1, TINY['head_dim'])
  return jnp.repeat(apart, groups, axis=-2).reshape(*kernel.shape[:-1], -1)


@pytest.mark.parametrize('kv_heads', [1, 2, 4])
def test_grouped_queries_are_attention_whose_keys_and_values_are_repeated(kv_heads):
  grouped, variables = make(num_kv_heads=kv_heads)
  whole = jax.tree.map(lambda x: x, variables)
  attention = whole['params']['blocks']['layers']['self_attention']
  for name in ('key', 'value'):
    attention[name] = jax.tree.map(lambda leaf: repeated(leaf, 4 // kv_heads), attention[name])
  np.testing.assert_allclose(Jitted().apply(whole, make_batch()), grouped.apply(variables, make_batch()), atol=1e-5)


@pytest.mark.parametrize('positions', ['rotary', 'learned', 'sinusoidal', 'none'])
def test_rotary_positions_are_relative(positions):
  model, variables = make(positions=positions)
  batch = make_batch()
  later = {**batch, 'decoder_positions': batch['decoder_positions'] + 9}
  apart = {**batch, 'decoder_positions': batch['decoder_positions'] * 2}
  before = np.asarray(model.apply(variables, batch))
  same = {'rotary': (True, False), 'none': (True, True)}.get(positions, (False, False))
  for other, equal in zip((later, apart), same, strict=True):
    difference = np.max(np.abs(np.asarray(model.apply(variables, other)) - before))
    assert difference < 1e-4 if equal else difference > 1e-2


@EACH_FLAVOUR
def test_scanned_equals_unrolled(flavour):
  scanned, variables = make(**flavour)
  layers = variables['params']['blocks']['layers']
  blocks = {f'layers_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(2)}
  apart = {'params': {**variables['params'], 'blocks': blocks}}
  unrolled = Jitted(**flavour, scan_layers=False)
  np.testing.assert_allclose(unrolled.apply(apart, make_batch()), scanned.apply(variables, make_batch()), atol=1e-5)


def test_the_output_projection_is_the_embedding_table_or_a_table_of_its_own():
  tied, variables = make()
  untied, more = make(logits_via_embedding=False)
  assert set(more['params']) - set(variables['params']) == {'logits_dense'}
  more = {'params': {**variables['params'], 'logits_dense': variables['params']['tokens']}}
  np.testing.assert_array_equal(untied.apply(more, make_batch()), tied.apply(variables, make_batch()))


@EACH_FLAVOUR
def test_bfloat16_is_near_float32_and_returns_float32_logits(flavour):
  exact, variables = make(**flavour, initializer_range=0.1)
  rounded = Jitted(**flavour, dtype='bfloat16').apply(variables, make_batch())
  expected = exact.apply(variables, make_batch())
  assert rounded.dtype == jnp.float32
  assert float(jnp.linalg.norm(rounded - expected) / jnp.linalg.norm(expected)) < 0.05


def test_outputs_of_all_heads():
  model, variables = make(heads=('lm', 'classification', 'span', 'tagging'), num_labels=3)
  found = model.apply(variables, make_batch(), method='outputs')
  assert {name: value.shape for name, value in found.items()} == {
    'last_hidden_state': (2, 10, 16),
    'lm_logits': (2, 10, 40),
    'classification_logits': (2, 3),
    'span_logits': (2, 10, 2),
    'tagging_logits': (2, 10, 3),
  }
  factored = model.apply(variables, make_batch(), method='factored_logits')
  np.testing.assert_allclose(factored.logits(), found['lm_logits'], atol=1e-5)


def test_projections_into_the_residual_stream_start_smaller_in_deeper_models():
  _, variables = make(emb_dim=64, mlp_dim=64, num_layers=8, head_dim=16, initializer_range=0.02)
  layers = variables['params']['blocks']['layers']
  for inwards, outwards in (('query', 'out'), ('key', 'out')):
    assert np.std(layers['self_attention'][inwards]['kernel']) == pytest.approx(0.02, rel=0.05)
    assert np.std(layers['self_attention'][outwards]['kernel']) == pytest.approx(0.02 / 4, rel=0.05)
  assert np.std(layers['mlp']['wo']['kernel']) == pytest.approx(0.02 / 4, rel=0.05)


# Published sizes; the counts are those of transformers' GPT2LMHeadModel.
SIZES = {
  'gpt2': ({}, 124_439_808),
  'gpt2-medium': ({'emb_dim': 1024, 'num_layers': 24, 'num_heads': 16, 'mlp_dim': 4096}, 354_823_168),
  'gpt2-large': ({'emb_dim': 1280, 'num_layers': 36, 'num_heads': 20, 'mlp_dim': 5120}, 774_030_080),
  'gpt2-xl': ({'emb_dim': 1600, 'num_layers': 48, 'num_heads': 25, 'mlp_dim': 6400}, 1_557_611_200),
}


@pytest.mark.parametrize('size', SIZES)
def test_parameter_count_is_that_of_the_published_checkpoint(size):
  fields, count = SIZES[size]
  model = Gpt(GptConfig(**fields))
  shapes = jax.eval_shape(model.init, {'params': jax.random.key(0)}, make_batch())
  assert tree.count_parameters(nn.unbox(shapes)) == count


@pytest.mark.parametrize('flavour', [{}, {'num_kv_heads': 2, 'mlp_activations': ('silu', 'linear')}], ids=str)
def test_flops_are_those_of_the_products_in_the_program(flavour):
  """Against XLA's own count of the forward pass, unrolled so that it counts every layer."""
  model = Gpt(GptConfig(vocab_size=4096, num_layers=2, scan_layers=False, **flavour))
  batch = make_batch(rows=2, length=64)
  shapes = nn.unbox(jax.eval_shape(model.init, {'params': jax.random.key(0)}, batch))
  counted = jax.jit(model.apply).lower(shapes, batch).compile().cost_analysis()['flops']
  spec = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  assert 0.95 < model.flops_per_step(spec) / 3 / counted <= 1.0  # XLA also counts norms and softmax
