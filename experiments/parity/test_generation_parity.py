"""Live parity of `generate`: random models, prompts of random lengths, random options; ids and scores of transformers.

Runs where torch, transformers and this library are installed:

    python -m pytest experiments/parity
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
import twins

from t5x_lite import pretrained, stored_models

VOCAB = 50
SIZES = {'vocab_size': VOCAB, 'bos_token_id': 2, 'eos_token_id': 2, 'pad_token_id': 0}


def t5():
  return transformers.T5ForConditionalGeneration(
    transformers.T5Config(
      vocab_size=VOCAB, d_model=16, d_kv=5, num_heads=3, num_layers=2, d_ff=20, decoder_start_token_id=0
    )
  )


def gpt2():
  return transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES, n_embd=16, n_head=4, n_layer=2, n_positions=60))


def xlnet():
  return transformers.XLNetLMHeadModel(
    transformers.XLNetConfig(vocab_size=VOCAB, d_model=16, n_layer=2, n_head=4, d_inner=20)
  )


FAMILIES = {'t5': t5, 'gpt2': gpt2, 'xlnet': xlnet}


def options(rng: np.random.Generator) -> dict:
  """Some of all deterministic options."""
  chosen = {'max_new_tokens': int(rng.integers(1, 14))}
  maybe = {
    'repetition_penalty': float(rng.uniform(0.8, 2.0)),
    'no_repeat_ngram_size': int(rng.integers(2, 4)),
    'min_new_tokens': int(rng.integers(1, 10)),
    'bad_words_ids': [[int(rng.integers(3, VOCAB))], [int(x) for x in rng.integers(3, VOCAB, 2)]],
    'suppress_tokens': [int(x) for x in rng.integers(3, VOCAB, 5)],
    'eos_token_id': [int(x) for x in rng.choice(np.arange(3, VOCAB), 5, replace=False)],
    'forced_eos_token_id': 9,
  }
  chosen |= {name: value for name, value in maybe.items() if rng.random() < 0.3}
  if rng.random() < 0.7:
    beams = int(rng.integers(2, 5))
    chosen |= {'num_beams': beams, 'num_return_sequences': int(rng.integers(1, beams + 1))}
    chosen |= {'length_penalty': float(rng.choice([-1.0, 0.0, 0.6, 1.0, 2.0]))}
    chosen |= {'early_stopping': [True, False, 'never'][int(rng.integers(3))]}
  return chosen


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('family', FAMILIES)
def test_ids_and_scores_are_those_of_transformers(family, seed):
  rng = np.random.default_rng(2000 + seed)
  theirs = FAMILIES[family]().eval()
  twins.randomise(theirs, seed, scale=0.7)
  pair = twins.make(theirs)
  lengths = [9, *rng.integers(1, 10, 3)] if family != 'xlnet' else [7, 7]
  mask = (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).astype(np.int64)
  mask = mask if family == 't5' else mask[:, ::-1].copy()
  ids = np.where(mask > 0, rng.integers(3, VOCAB, mask.shape), 0)
  chosen = options(rng)
  with torch.no_grad():
    expected = theirs.generate(
      torch.as_tensor(ids), attention_mask=torch.as_tensor(mask), **chosen, return_dict_in_generate=True,
      output_scores=True,
    )  # fmt: skip
  stored = stored_models.StoredModel(
    family, pair.ours, pair.config, None, lambda: None, generation=theirs.generation_config.to_dict()
  )
  model = pretrained.Pretrained(pair.ours, pair.params, stored, pretrained.Report())
  found = model.generate(ids, attention_mask=mask, **chosen)
  np.testing.assert_array_equal(found.ids, expected.sequences.numpy(), err_msg=str(chosen))
  if 'num_beams' in chosen:
    np.testing.assert_allclose(found.scores, expected.sequences_scores.numpy(), atol=1e-4)
