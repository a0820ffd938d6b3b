"""XLNet against what transformers computed (`experiments/golden/record_xlnet.py`), and its table both ways."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite.core.errors import UsageError
from t5x_lite.interop import hf_xlnet
from t5x_lite.interop.export import export
from t5x_lite.interop.loading import load
from t5x_lite.interop.tensors import ArraySource
from t5x_lite.models.xlnet import Xlnet, XlnetConfig

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'xlnet.npz'
CASES = (
  'plain', 'padded', 'permuted', 'permuted_padded', 'mapped', 'masked', 'memory', 'memory_permuted', 'uni',
  'same_length', 'both_ways', 'model', 'classification', 'multiple_choice', 'span', 'tagging',
)  # fmt: skip


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


def under(arrays, prefix):
  return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def state_of(golden, case):
  """The weights of one case, as its own class would have written them."""
  state = under(golden, 'state/')
  if case == 'model':
    return {name.removeprefix('transformer.'): value for name, value in state.items() if name != 'lm_loss.bias'}
  heads = under(golden, f'state@{case}/')
  return state if not heads else {**{k: v for k, v in state.items() if k != 'lm_loss.bias'}, **heads}


def module_of(golden, case, **changes):
  described = json.loads(str(golden['cases']))[case]
  module = hf_xlnet.module_from_hf(described['config'])
  return Xlnet(XlnetConfig(**{**vars(module.config), **changes}))


def abstract(module):
  batch = {f'decoder_{name}': np.ones((2, 4), np.int32) for name in ('input_tokens', 'segment_ids', 'positions')}
  return nn.unbox(jax.eval_shape(module.init, {'params': jax.random.key(0)}, batch))['params']


def load_case(golden, case, **changes):
  module = module_of(golden, case, **changes)
  params, report = load(hf_xlnet.table(module), ArraySource(state_of(golden, case)), abstract(module))
  assert not report.fresh and not report.ignored
  return module, params


def to_batch(inputs):
  """Our batch for their arguments; several choices of a question become rows."""
  if inputs['input_ids'].ndim == 3:
    inputs = {name: value.reshape(-1, value.shape[-1]) for name, value in inputs.items()}
  tokens = inputs['input_ids'].astype(np.int32)
  batch = {
    'decoder_input_tokens': tokens,
    'decoder_segment_ids': inputs.get('attention_mask', np.ones(tokens.shape)).astype(np.int32),
  }
  if 'token_type_ids' in inputs:
    batch['decoder_token_type_ids'] = inputs['token_type_ids'].astype(np.int32)
  return batch | {f'decoder_{name}': inputs[name] for name in ('perm_mask', 'target_mapping') if name in inputs}


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_outputs_are_those_of_transformers(golden, case, scan):
  module, params = load_case(golden, case, scan_layers=scan)
  run = jax.jit(lambda params, batch, mems: module.apply({'params': params}, batch, mems=mems, method='outputs'))
  mems = None
  for segment in ('', 'second/'):
    inputs, expected = under(golden, f'{case}/{segment}in/'), under(golden, f'{case}/{segment}out/')
    if not inputs:
      assert segment, 'the case is not in the file'
      break
    batch = to_batch(inputs)
    outputs = run(params, batch, mems)
    mems = outputs['mems']
    ours = {name: outputs[name] for name in ('last_hidden_state', 'mems')}
    for name in ('lm_logits', 'classification_logits', 'tagging_logits'):
      if name in outputs:
        ours['logits'] = outputs[name]
    if case == 'multiple_choice':
      ours['logits'] = outputs['choice_logits'].reshape(2, 3)
    elif case == 'span':
      ours['start_logits'], ours['end_logits'] = np.moveaxis(outputs['span_logits'], -1, 0)
    for name in expected.keys() - {'loss'}:
      np.testing.assert_allclose(ours[name], expected[name], atol=1e-5, err_msg=name)


def test_loss_is_that_of_transformers(golden):
  module, params = load_case(golden, 'permuted')
  inputs = under(golden, 'permuted/in/')
  batch = to_batch(inputs)
  factored = jax.jit(lambda params: module.apply({'params': params}, batch, method='factored_logits'))(params)
  chosen = np.take_along_axis(jax.nn.log_softmax(factored.logits()), inputs['labels'][..., None].astype(np.int32), -1)
  np.testing.assert_allclose(-chosen.mean(), golden['permuted/out/loss'], rtol=1e-5)


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', ['plain', 'model', 'classification', 'multiple_choice', 'span', 'tagging'])
def test_export_gives_back_what_was_loaded(golden, case, scan):
  module, params = load_case(golden, case, scan_layers=scan)
  written, state = dict(export(hf_xlnet.table(module), params)), state_of(golden, case)
  assert written.keys() == state.keys()
  for name, value in state.items():
    assert written[name].dtype == value.dtype
    np.testing.assert_array_equal(written[name], value, err_msg=name)


def test_an_untied_copy_of_the_table_is_refused(golden):
  module = module_of(golden, 'plain')
  state = state_of(golden, 'plain')
  copy = {**state, 'lm_loss.weight': state['transformer.word_embedding.weight'].copy()}
  assert not load(hf_xlnet.table(module), ArraySource(copy), abstract(module))[1].ignored
  copy['lm_loss.weight'][3, 1] += 1
  with pytest.raises(UsageError, match=r'lm_loss\.weight differ'):
    load(hf_xlnet.table(module), ArraySource(copy), abstract(module))


def test_a_language_model_is_read_into_a_classifier_with_a_fresh_head(golden):
  language_model = module_of(golden, 'plain')
  module = hf_xlnet.module_from_hf(hf_xlnet.config_to_hf(language_model), heads=('classification',), num_labels=4)
  shapes = abstract(module)

  def fresh(names):
    assert set(names) == {
      f'heads/{head}/{leaf}' for head in ('pooler', 'classification') for leaf in ('kernel', 'bias')
    }
    flat = {name: shapes['heads'][name.split('/')[1]][name.split('/')[2]] for name in names}
    return {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in flat.items()}

  params, report = load(hf_xlnet.table(module), ArraySource(state_of(golden, 'plain')), shapes, fresh=fresh)
  assert params['heads']['classification']['kernel'].shape == (12, 4)
  assert report.ignored == ('lm_loss.bias',)


@pytest.mark.parametrize('case', CASES)
def test_config_survives_the_way_there_and_back(golden, case):
  module = module_of(golden, case)
  again = hf_xlnet.module_from_hf(json.loads(json.dumps(hf_xlnet.config_to_hf(module))))
  assert again.config == module.config


def test_published_config_is_understood():
  config = {  # of xlnet-base-cased
    'architectures': ['XLNetLMHeadModel'], 'attn_type': 'bi', 'bi_data': False, 'clamp_len': -1, 'd_head': 64,
    'd_inner': 3072, 'd_model': 768, 'dropout': 0.1, 'ff_activation': 'gelu', 'initializer_range': 0.02,
    'layer_norm_eps': 1e-12, 'mem_len': None, 'model_type': 'xlnet', 'n_head': 12, 'n_layer': 12, 'n_token': 32000,
    'reuse_len': None, 'same_length': False, 'summary_activation': 'tanh', 'summary_type': 'last', 'untie_r': True,
  }  # fmt: skip
  assert hf_xlnet.module_from_hf(config).config == XlnetConfig()


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'architectures': ['XLNetForQuestionAnswering']}, "did you mean 'XLNetForQuestionAnsweringSimple'"),
    ({'ff_activation': 'tanh'}, "unknown ff_activation 'tanh'"),
    ({'attn_type': 'by'}, 'expected one of bi, uni'),
    ({'architectures': ['XLNetForMultipleChoice'], 'summary_type': 'mean'}, "summary_type is 'mean'"),
    ({'tie_word_embeddings': False}, 'tie_word_embeddings is False'),
    ({'d_model': 10, 'n_head': 3}, 'd_model is 10: expected a multiple of the 3 heads'),
  ],
)
def test_models_that_we_do_not_have_are_refused(changes, told):
  with pytest.raises(UsageError, match=told):
    hf_xlnet.module_from_hf({'model_type': 'xlnet', **changes})


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'heads': ('lm', 'tagging')}, 'of no class of transformers'),
    ({'head_dim': 32}, 'head_dim is 32, of 12 heads'),
    ({'attention_window': 4}, 'attention_window is 4'),
    ({'mlp_activations': ('silu', 'linear')}, 'mlp_activations'),
  ],
)
def test_models_that_they_do_not_have_are_refused(changes, told):
  with pytest.raises(UsageError, match=told):
    hf_xlnet.config_to_hf(Xlnet(XlnetConfig(**changes)))
