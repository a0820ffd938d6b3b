"""T5 as transformers computes it: recorded models loaded, called by its argument names, and handed back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import stored_models
from t5x_lite.core import errors, tree
from t5x_lite.interop import hf_call, hf_t5
from t5x_lite.interop.export import export, their_specs
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.pretrained import load_pretrained

ALL = ('t5_lm', 't5_1_1_lm', 'mt5_lm', 't5_bare', 't5_encoder', 't5_classification', 't5_span', 't5_tagging')
# Unrolled, too, where there are more kinds of parameters than elsewhere.
CASES = [*((name, True) for name in ALL), ('t5_lm', False), ('t5_1_1_lm', False)]
EACH = pytest.mark.parametrize(('name', 'scan'), CASES, ids=[f'{n}{"" if scan else "-unrolled"}' for n, scan in CASES])
CLOSE = {'rtol': 1e-5, 'atol': 1e-5}


@EACH
def test_outputs_and_losses_are_those_of_transformers(recorded, tmp_path, name, scan):
  golden = recorded(name)
  model = load_pretrained(golden.write(tmp_path / 'model'), scan_layers=scan)
  assert not model.report.fresh and not model.report.ignored
  for inputs, outputs in golden.cases:
    got = model(**inputs)
    for key, expected in outputs.items():
      np.testing.assert_allclose(got[key], expected, **CLOSE, err_msg=f'{name} {key}')


def test_the_gradient_of_the_loss_is_that_of_transformers(recorded, tmp_path):
  golden = recorded('t5_lm')
  model = load_pretrained(golden.write(tmp_path / 'model'))
  inputs, targets = hf_call.split_arguments(model.module, golden.cases[0][0])
  batch = hf_call.batch_of(model.module, model.config, inputs, targets)

  def loss(params):
    logits = model.module.apply({'params': params}, batch)
    return hf_call.cross_entropy(logits, jnp.asarray(targets['labels']))

  # A table of names maps gradients as it maps parameters.
  gradient = dict(export(hf_t5.table(model.module), jax.jit(jax.grad(loss))(model.params)))
  assert gradient.keys() == golden.gradient.keys()
  for name, expected in golden.gradient.items():
    np.testing.assert_allclose(gradient[name], expected, **CLOSE, err_msg=name)


def test_two_examples_packed_in_a_row_are_two_rows(recorded, tmp_path):
  golden = recorded('t5_lm')
  model = load_pretrained(golden.write(tmp_path / 'model'))
  inputs, _ = golden.cases[0]
  lengths = inputs['attention_mask'].sum(axis=1)[:2]
  rng = np.random.default_rng(1)
  decoder = [rng.integers(2, 16, 5), rng.integers(2, 16, 4)]
  apart = [
    model(input_ids=inputs['input_ids'][row : row + 1, :length], decoder_input_ids=decoder[row][None])['logits'][0]
    for row, length in enumerate(lengths)
  ]

  def packed(parts):
    tokens = np.concatenate([*parts, np.zeros(2, np.int32)])[None].astype(np.int32)
    segments = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts, 1)] + [np.zeros(2)])[None]
    positions = np.concatenate([np.arange(len(part)) for part in parts] + [np.zeros(2)])[None]
    return tokens, segments.astype(np.int32), positions.astype(np.int32)

  batch = {}
  for side, parts in (('encoder', [inputs['input_ids'][i, :n] for i, n in enumerate(lengths)]), ('decoder', decoder)):
    keys = [f'{side}_{name}' for name in ('input_tokens', 'segment_ids', 'positions')]
    batch |= dict(zip(keys, packed(parts), strict=True))
  logits = np.asarray(jax.jit(model.module.apply)({'params': model.params}, batch))[0]
  np.testing.assert_allclose(logits[:5], apart[0], **CLOSE)
  np.testing.assert_allclose(logits[5:9], apart[1], **CLOSE)


@EACH
def test_what_is_loaded_goes_back_bit_by_bit(recorded, tmp_path, name, scan):
  golden = recorded(name)
  model = load_pretrained(golden.write(tmp_path / 'model'), scan_layers=scan)
  back = dict(export(hf_t5.table(model.module), model.params))
  expected = dict(golden.state)
  if name == 'mt5_lm':  # tied and not scaled: two equal tables here
    expected['lm_head.weight'] = expected['shared.weight']
  assert back.keys() == expected.keys()
  for key, value in expected.items():
    np.testing.assert_array_equal(back[key], value)
  model.save(tmp_path / 'again')
  again = load_pretrained(tmp_path / 'again', scan_layers=scan)
  assert again.module == model.module
  jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
  kept = ('model_type', 'architectures', 'd_kv', 'id2label', 'relative_attention_max_distance', 'feed_forward_proj')
  assert {key: again.config[key] for key in kept if key in golden.config} == {
    key: golden.config[key] for key in kept if key in golden.config
  }


def test_tied_unscaled_t5_and_files_with_copies_of_the_table(recorded, tmp_path):
  golden = recorded('t5_1_1_lm')
  state = {name: value for name, value in golden.state.items() if name != 'lm_head.weight'}
  model = load_pretrained(golden.write(tmp_path / 'tied', state=state))
  np.testing.assert_array_equal(model.params['logits_dense']['embedding'], state['shared.weight'])

  golden = recorded('t5_lm')
  shared = golden.state['shared.weight']
  copies = dict.fromkeys(('encoder.embed_tokens.weight', 'lm_head.weight'), shared)
  model = load_pretrained(golden.write(tmp_path / 'copies', state=golden.state | copies))
  assert not model.report.ignored
  with pytest.raises(errors.UsageError, match=r'shared\.weight and lm_head\.weight differ'):
    load_pretrained(golden.write(tmp_path / 'two', state=golden.state | copies | {'lm_head.weight': shared + 1}))
  only = {name: value for name, value in golden.state.items() if name != 'shared.weight'}
  model = load_pretrained(golden.write(tmp_path / 'old', state=only | copies))
  np.testing.assert_array_equal(model.params['token_embedder']['embedding'], shared)


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'layer_norm_epsilon': 1e-5}, 'layer_norm_epsilon is 1e-05'),
    ({'feed_forward_proj': 'gated-gleu'}, "unknown feed_forward_proj 'gated-gleu': did you mean 'gated-gelu'"),
    ({'architectures': ['T5ForMaskedLM']}, "unknown architecture of T5 'T5ForMaskedLM'"),
    ({'model_type': 'mt6'}, "unknown model type 'mt6': did you mean 'mt5'"),
    ({'model_type': None}, 'has no model_type'),
  ],
)
def test_another_t5_is_refused(recorded, tmp_path, changes, told):
  golden = recorded('t5_lm')
  folder = golden.write(tmp_path / 'model', config=golden.config | changes)
  with pytest.raises(errors.UsageError, match=told):
    load_pretrained(folder)


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'positions': 'rotary'}, 'positions'),
    ({'num_kv_heads': 1}, 'num_kv_heads'),
    ({'mlp_activations': ('gelu_exact', 'linear')}, 'mlp_activations'),
    ({'num_experts': 2}, 'num_experts'),
    ({'attention_window': 3, 'positions': 'none'}, 'attention_window'),
    ({'heads': ('lm', 'span')}, 'heads'),
    ({'heads': ('tagging',)}, 'T5ForTokenClassification is an encoder alone, so load with num_decoder_layers=0'),
    ({'heads': ('span',), 'num_decoder_layers': 0}, 'of an encoder alone'),
  ],
)
def test_what_transformers_lacks_is_not_exported(changes, told):
  with pytest.raises(errors.UsageError, match=told):
    hf_t5.config_to_hf(T5(T5Config(num_heads=2, **changes)))


def test_configs_go_there_and_back():
  for changes in (
    {},
    {'mlp_activations': ('gelu', 'linear'), 'logits_via_embedding': False, 'head_dim': 5, 'num_decoder_layers': 2},
    {'mlp_activations': ('silu', 'linear'), 'relative_attention_max_distance': 64, 'dropout_rate': 0.1},
    {'heads': ('tagging',), 'num_decoder_layers': 0, 'num_labels': 7},
    {'heads': (), 'num_decoder_layers': 0},
  ):
    module = T5(T5Config(**changes))
    assert hf_t5.module_from_hf(hf_t5.config_to_hf(module)) == module


def test_every_parameter_of_a_published_size_has_a_name():
  module = T5(T5Config(mlp_activations=('gelu', 'linear'), logits_via_embedding=False))
  params = nn.meta.unbox(stored_models.abstract_params(module))
  specs = their_specs(hf_t5.table(module), params)
  assert sum(np.prod(spec.shape) for spec in specs.values()) == tree.count_parameters(params)
