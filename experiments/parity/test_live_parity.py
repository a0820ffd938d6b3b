"""Live parity with transformers over random configs: logits, last hidden states, and the gradient of the loss.

Runs where torch, transformers and this library are installed:

    python -m pytest experiments/parity
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
import twins

SEEDS = range(8)


def choose(rng: np.random.Generator, values):
  """One of the values, as it is."""
  return values[int(rng.integers(len(values)))]


def sizes(rng: np.random.Generator) -> dict[str, int]:
  """Sizes that no published model has: odd numbers of heads and widths, one layer, tiny and large vocabularies."""
  heads, width = choose(rng, (1, 3, 5, 7)), choose(rng, (2, 3, 6, 8))
  return {
    'vocab': choose(rng, (7, 33, 500, 6000)),
    'heads': heads,
    'features': heads * width,
    'mlp': choose(rng, (5, 17, 64)),
    'layers': choose(rng, (1, 2, 3)),
  }


def text(rng: np.random.Generator, vocab: int, length: int, pad: int, left: bool) -> dict[str, np.ndarray]:
  """Rows without the padding id, and one of them padded."""
  tokens = rng.integers(3, vocab, (3, length))
  mask = np.ones_like(tokens)
  mask[1, : length // 3] = 0
  if not left:
    mask = mask[:, ::-1].copy()
  return {'input_ids': np.where(mask > 0, tokens, pad), 'attention_mask': mask}


def labels(rng: np.random.Generator, vocab: int, mask: np.ndarray) -> np.ndarray:
  """Labels for about two thirds of what is no padding."""
  chosen = (rng.random(mask.shape) < 0.67) & (mask > 0)
  return np.where(chosen, rng.integers(0, vocab, mask.shape), twins.IGNORED)


def bert(rng: np.random.Generator, roberta: bool):
  size, length = sizes(rng), choose(rng, (5, 12))
  family = 'Roberta' if roberta else 'Bert'
  config = getattr(transformers, f'{family}Config')(
    vocab_size=size['vocab'],
    hidden_size=size['features'],
    num_attention_heads=size['heads'],
    num_hidden_layers=size['layers'],
    intermediate_size=size['mlp'],
    hidden_act='gelu' if roberta else choose(rng, ('gelu', 'gelu_new', 'relu')),
    max_position_embeddings=16,
    type_vocab_size=1 if roberta else choose(rng, (2, 3)),
    layer_norm_eps=choose(rng, (1e-12, 1e-5)),
  )
  arguments = text(rng, size['vocab'], length, config.pad_token_id, choose(rng, (True, False)))
  arguments['token_type_ids'] = rng.integers(0, config.type_vocab_size, (3, length))
  arguments['labels'] = labels(rng, size['vocab'], arguments['attention_mask'])
  return getattr(transformers, f'{family}ForMaskedLM')(config), arguments


def gpt2(rng: np.random.Generator):
  size, length = sizes(rng), choose(rng, (5, 12))
  config = transformers.GPT2Config(
    vocab_size=size['vocab'],
    n_embd=size['features'],
    n_head=size['heads'],
    n_layer=size['layers'],
    n_inner=choose(rng, (None, size['mlp'])),
    n_positions=16,
    activation_function=choose(rng, ('gelu_new', 'gelu', 'relu', 'silu')),
    tie_word_embeddings=choose(rng, (True, False)),
    bos_token_id=0,
    eos_token_id=0,
  )
  arguments = text(rng, size['vocab'], length, 0, choose(rng, (True, False)))
  mask = arguments['attention_mask']
  arguments['position_ids'] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
  arguments['labels'] = labels(rng, size['vocab'], mask)
  # The first token of a row is predicted from padding, if there is any, and from nothing if there is none.
  arguments['labels'][:, 1:][mask[:, :-1] == 0] = twins.IGNORED
  return transformers.GPT2LMHeadModel(config), arguments


def t5(rng: np.random.Generator):
  """Some inputs and targets are longer than 128, from where on all distances share a bucket."""
  size = sizes(rng)
  inputs, targets = choose(rng, ((9, 5), (150, 7), (12, 140)))
  projection = choose(rng, ('relu', 'gated-gelu', 'gated-silu'))
  config = transformers.T5Config(
    vocab_size=size['vocab'],
    d_model=size['features'],
    d_kv=choose(rng, (2, 5, 9)),
    num_heads=size['heads'],
    num_layers=size['layers'],
    num_decoder_layers=choose(rng, (1, 2)),
    d_ff=size['mlp'],
    feed_forward_proj=projection,
    relative_attention_num_buckets=choose(rng, (8, 32)),
    relative_attention_max_distance=choose(rng, (20, 128)),
    tie_word_embeddings=choose(rng, (True, False)),
  )
  model = transformers.T5ForConditionalGeneration(config)
  if not config.to_dict().get('scale_decoder_outputs', config.tie_word_embeddings):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # a table of its own
  arguments = text(rng, size['vocab'], inputs, 0, left=False)
  written = text(rng, size['vocab'], targets, 0, left=False)
  arguments['decoder_input_ids'] = written['input_ids']
  arguments['labels'] = labels(rng, size['vocab'], written['attention_mask'])
  return model, arguments


FAMILIES = {
  'bert': lambda rng: bert(rng, roberta=False),
  'roberta': lambda rng: bert(rng, roberta=True),
  'gpt2': gpt2,
  't5': t5,
}


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('family', FAMILIES)
def test_outputs_and_gradients_are_those_of_transformers(family, seed):
  rng = np.random.default_rng(1000 + seed)
  model, arguments = FAMILIES[family](rng)
  model.config._attn_implementation = 'eager'
  twins.randomise(model, seed, scale=0.3)
  pair = twins.make(model, scan_layers=bool(seed % 2))

  found, expected = pair.our_outputs(arguments), pair.their_outputs(arguments)
  real = arguments['attention_mask'] > 0 if family != 't5' else np.ones(arguments['labels'].shape, bool)
  for name in ('logits', 'last_hidden_state'):
    assert found[name].shape == expected[name].shape
    scale = max(1.0, np.max(np.abs(expected[name][real])))
    assert np.max(np.abs(found[name] - expected[name])[real]) < 2e-5 * scale, name
  assert found['loss'] == pytest.approx(float(expected['loss']), abs=1e-5, rel=1e-5)

  off = twins.differences(pair.our_gradients(arguments), pair.their_gradients(arguments))
  assert max(off.values()) < 1e-4, {name: value for name, value in off.items() if value >= 1e-4}
