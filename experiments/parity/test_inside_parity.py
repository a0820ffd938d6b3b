"""Attention maps and hidden states are those of transformers, on the same random weights.

python -m pytest experiments/parity/test_inside_parity.py
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
import transformers
import twins

from t5x_lite.interop import hf_call
from t5x_lite.research import intermediates

LENGTH, WRITTEN = 9, 5
SIZES = {'vocab_size': 40, 'hidden_size': 16, 'num_attention_heads': 2, 'num_hidden_layers': 3}
EAGER = {'attn_implementation': 'eager'}


def text(pad, left=False):
  """Three rows, of which one is padded."""
  rng = np.random.default_rng(0)
  mask = np.ones((3, LENGTH), np.int64)
  mask[1, : LENGTH // 3] = 0
  mask = mask if left else mask[:, ::-1].copy()
  return {'input_ids': np.where(mask > 0, rng.integers(3, 40, mask.shape), pad), 'attention_mask': mask}


def bert(roberta):
  name = 'Roberta' if roberta else 'Bert'
  config = getattr(transformers, f'{name}Config')(
    **SIZES, intermediate_size=24, max_position_embeddings=24, type_vocab_size=1 if roberta else 2, **EAGER
  )
  return getattr(transformers, f'{name}ForMaskedLM')(config), text(config.pad_token_id)


def gpt2():
  config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=3, n_positions=24, **EAGER)
  return transformers.GPT2LMHeadModel(config), text(0)


def t5(gated):
  config = transformers.T5Config(
    vocab_size=40,
    d_model=16,
    d_kv=6,
    num_heads=2,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=3,
    feed_forward_proj='gated-gelu' if gated else 'relu',
    tie_word_embeddings=not gated,
    **EAGER,
  )
  written = np.random.default_rng(1).integers(3, 40, (3, WRITTEN))
  return transformers.T5ForConditionalGeneration(config), text(0) | {'decoder_input_ids': written}


def xlnet(streams):
  config = transformers.XLNetConfig(vocab_size=40, d_model=16, n_head=2, n_layer=3, d_inner=24)
  arguments = text(5, left=True)
  if streams:
    rng = np.random.default_rng(2)
    order = np.stack([rng.permutation(LENGTH) for _ in range(3)])
    arguments['perm_mask'] = (order[:, :, None] <= order[:, None, :]).astype(np.float32)
    mapping = np.zeros((3, LENGTH, LENGTH), np.float32)
    mapping[:, np.arange(LENGTH), np.arange(LENGTH)] = 1
    arguments['target_mapping'] = mapping
  return transformers.XLNetLMHeadModel(config), arguments


CASES = {
  'bert': lambda: bert(False),
  'roberta': lambda: bert(True),
  'gpt2': gpt2,
  't5': lambda: t5(False),
  't5_1_1': lambda: t5(True),
  'xlnet': lambda: xlnet(False),
  'xlnet_streams': lambda: xlnet(True),
}
# By our names, theirs.
ATTENTIONS = {
  'encoder': ('encoder_attentions', 'attentions'),
  'decoder': ('decoder_attentions', 'attentions'),
  'cross': ('cross_attentions',),
}
STATES = {
  'encoder': ('encoder_hidden_states', 'hidden_states'),
  'decoder': ('decoder_hidden_states', 'hidden_states'),
}


def theirs_of(outputs, names):
  found = next(outputs[name] for name in names if outputs.get(name) is not None)
  return np.stack([each.numpy() for each in found])


@pytest.mark.parametrize('scanned', [True, False])
@pytest.mark.parametrize('name', list(CASES))
def test_attention_and_hidden_states_are_those_of_transformers(name, scanned):
  model, arguments = CASES[name]()
  twins.randomise(model, 0, 0.3)
  pair = twins.make(model, scan_layers=scanned)
  given = {key: torch.as_tensor(value) for key, value in arguments.items()}
  with torch.no_grad():
    outputs = pair.theirs(**given, output_attentions=True, output_hidden_states=True)
  inputs, targets = hf_call.split_arguments(pair.ours, arguments)
  batch = hf_call.batch_of(pair.ours, pair.config, inputs, targets)
  look = jax.jit(
    lambda p: (intermediates.attentions(pair.ours, p, batch), intermediates.hidden_states(pair.ours, p, batch))
  )
  maps, states = look(pair.params)
  real = arguments['attention_mask'] > 0
  if name.startswith('xlnet'):
    compare_xlnet(outputs, maps, states, real)
    return
  for kind, expected, found in (('attention', ATTENTIONS, maps), ('states', STATES, states)):
    for which, array in found.items():
      own = np.asarray(array)
      their = theirs_of(outputs, expected[which])
      assert own.shape == their.shape, (kind, which)
      rows = real if which == 'encoder' or 'decoder_input_ids' not in arguments else np.ones((3, WRITTEN), bool)
      # What padding itself sees means nothing, here or there.
      keep = rows[None, :, None, :, None] if kind == 'attention' else rows[None, :, :, None]
      np.testing.assert_allclose(np.where(keep, own, 0), np.where(keep, their, 0), atol=2e-5, err_msg=f'{kind} {which}')


def compare_xlnet(outputs, maps, states, real):
  """Their two streams are pairs in one tuple, or flattened one after the other."""
  streams = sorted(maps)
  maps_theirs, flat = outputs.attentions, outputs.hidden_states
  for place, stream in enumerate(streams):
    their = [each[place] if isinstance(each, tuple) else each for each in maps_theirs]
    compare(np.asarray(maps[stream]), np.stack([x.numpy() for x in their]), real[None, :, None, :, None])
    own_states = flat[place :: len(streams)]
    compare(np.asarray(states[stream]), np.stack([x.numpy() for x in own_states]), real[None, :, :, None])


def compare(own, their, keep):
  assert own.shape == their.shape
  np.testing.assert_allclose(np.where(keep, own, 0), np.where(keep, their, 0), atol=2e-5)
