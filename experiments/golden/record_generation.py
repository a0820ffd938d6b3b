"""Records what `generate` of transformers writes, for the tests.

    python experiments/golden/record_generation.py tests/golden/generation.npz

Needs torch and transformers, and none of our own code. Tiny models with random weights, many combinations of options,
all deterministic. Weights are such that no two beams come close: rounding decides nothing. The file holds

    transformers_version
    models        JSON: by name, `config` (config.json), `generation` (generation_config.json) and `state`, by name
    NAME/state/W  a weight
    NAME/input_ids, NAME/attention_mask
    cases         JSON: a list of `model`, `options`, `batch` (whether all rows are given, or the first alone)
    NUMBER/ids, NUMBER/scores, NUMBER/token_scores
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
import transformers
from recording import draw, randomise

VOCAB = 30
T5 = {
  'vocab_size': VOCAB, 'd_model': 12, 'num_heads': 3, 'd_kv': 4, 'd_ff': 16, 'num_layers': 2,
  'decoder_start_token_id': 0, 'relative_attention_num_buckets': 8, 'relative_attention_max_distance': 20,
}  # fmt: skip
GPT2 = {'vocab_size': VOCAB, 'n_embd': 12, 'n_layer': 2, 'n_head': 3, 'n_positions': 40}
GPT2 |= {'bos_token_id': 2, 'eos_token_id': 2, 'pad_token_id': 0}
XLNET = {'vocab_size': VOCAB, 'd_model': 12, 'n_layer': 2, 'n_head': 3, 'd_inner': 20, 'initializer_range': 0.3}

COMMON = [
  {},
  {'max_new_tokens': 1},
  {'max_new_tokens': 9},
  {'max_length': 18},
  {'max_new_tokens': 9, 'output_scores': True},
  {'max_new_tokens': 9, 'repetition_penalty': 1.7},
  {'max_new_tokens': 9, 'no_repeat_ngram_size': 1},
  {'max_new_tokens': 9, 'no_repeat_ngram_size': 2},
  {'max_new_tokens': 9, 'no_repeat_ngram_size': 3, 'encoder_no_repeat_ngram_size': 2},
  {'max_new_tokens': 9, 'encoder_repetition_penalty': 1.5},
  {'max_new_tokens': 9, 'min_length': 14},
  {'max_new_tokens': 9, 'min_new_tokens': 7},
  {'max_new_tokens': 6, 'forced_eos_token_id': 5},
  {'max_new_tokens': 6, 'forced_bos_token_id': 7},
  {'max_new_tokens': 9, 'suppress_tokens': list(range(4, 20))},
  {'max_new_tokens': 9, 'begin_suppress_tokens': list(range(3, 22))},
  {'max_new_tokens': 9, 'bad_words_ids': [[7], [11, 12], [9, 9], [3, 4, 5], [20], [21, 25], [25, 25]]},
  {'max_new_tokens': 9, 'eos_token_id': [5, 9, 14, 20]},
  {'max_new_tokens': 9, 'exponential_decay_length_penalty': [2, 1.6]},
  {'max_new_tokens': 9, 'num_beams': 2},
  {'max_new_tokens': 9, 'num_beams': 4, 'output_scores': True},
  {'max_new_tokens': 9, 'num_beams': 4, 'num_return_sequences': 4, 'output_scores': True},
  {'max_new_tokens': 9, 'num_beams': 3, 'num_return_sequences': 2, 'early_stopping': True, 'output_scores': True},
  {'max_new_tokens': 9, 'num_beams': 3, 'num_return_sequences': 3, 'early_stopping': 'never', 'output_scores': True},
  {'max_new_tokens': 12, 'num_beams': 4, 'length_penalty': 2.0, 'num_return_sequences': 4},
  {'max_new_tokens': 12, 'num_beams': 4, 'length_penalty': 2.0, 'early_stopping': 'never', 'num_return_sequences': 4},
  {'max_new_tokens': 12, 'num_beams': 4, 'length_penalty': 0.0, 'num_return_sequences': 4},
  {'max_new_tokens': 12, 'num_beams': 4, 'length_penalty': -1.0, 'early_stopping': 'never', 'num_return_sequences': 4},
  {'max_new_tokens': 9, 'num_beams': 3, 'eos_token_id': [5, 9, 14, 20], 'num_return_sequences': 3},
  {'max_new_tokens': 9, 'num_beams': 3, 'no_repeat_ngram_size': 2, 'repetition_penalty': 1.3},
  {'max_new_tokens': 9, 'num_beams': 3, 'min_new_tokens': 6, 'num_return_sequences': 3, 'early_stopping': True},
  {'max_new_tokens': 9, 'num_beams': 3, 'bad_words_ids': [[7], [11, 12], [9, 9], [21, 25]], 'renormalize_logits': True},
  {'max_new_tokens': 6, 'num_beams': 3, 'forced_eos_token_id': [5, 6], 'num_return_sequences': 3},
]  # fmt: skip
OF_ENCODER = [
  {'max_new_tokens': 9, 'num_beams': 3, 'encoder_repetition_penalty': 1.5, 'encoder_no_repeat_ngram_size': 2},
  {'max_new_tokens': 6, 'num_beams': 3, 'forced_bos_token_id': 7, 'begin_suppress_tokens': [8, 9, 10]},
]


def padded(lengths: tuple[int, ...], seed: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
  """Ids from 3 on, and the mask of rows of these lengths."""
  longest = max(lengths)
  mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
  mask = mask.flip(1) if left else mask
  return torch.where(mask > 0, draw(seed, (len(lengths), longest), 3, VOCAB), 0), mask


def models() -> dict[str, tuple[torch.nn.Module, torch.Tensor, torch.Tensor]]:
  """By name: the model, ids, mask."""
  made = {
    't5': transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    'gpt2': transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
    'xlnet': transformers.XLNetLMHeadModel(transformers.XLNetConfig(**XLNET)),
    'xlnet_mem': transformers.XLNetLMHeadModel(transformers.XLNetConfig(**XLNET, mem_len=6, clamp_len=5)),
  }
  inputs = {
    't5': padded((9, 4, 7), 1, left=False),
    'gpt2': padded((8, 3, 6, 1), 2, left=True),
    'xlnet': padded((7, 7), 3, left=True),  # transformers' XLNet takes no padding when it writes
    'xlnet_mem': padded((9, 9), 4, left=True),
  }
  for name, model in made.items():
    if not name.startswith('xlnet'):
      randomise(model, 'transformer.', scale=0.8)
    else:
      torch.manual_seed(5)
      with torch.no_grad():
        for parameter in model.parameters():
          parameter.add_(0.35 * torch.randn(parameter.shape))
    model.eval()
  return {name: (model, *inputs[name]) for name, model in made.items()}


def main(target: str) -> None:
  """Records all cases."""
  arrays, described, cases = {}, {}, []
  for name, (model, ids, mask) in models().items():
    described[name] = {
      'config': model.config.to_dict() | {'architectures': [type(model).__name__]},
      'generation': model.generation_config.to_dict(),
    }
    arrays |= {f'{name}/state/{key}': value.numpy() for key, value in model.state_dict().items()}
    arrays |= {f'{name}/input_ids': ids.numpy(), f'{name}/attention_mask': mask.numpy()}
    options = [*COMMON, *(OF_ENCODER if name == 't5' else [])]
    if name == 'xlnet':
      options.remove({})  # there its default is a length of -1
    if name == 'xlnet_mem':
      options = [COMMON[2], COMMON[21]]
    for chosen in options:
      # Where these options look, padding counts as text there: the first row has none.
      of_padding = any(option.startswith('encoder_') for option in chosen) or (
        chosen.get('no_repeat_ngram_size') == 1 and name == 'gpt2'
      )
      counts = (1,) if of_padding else (len(ids), 1) if name == 'gpt2' else (len(ids),)
      for rows in counts:
        arguments = {'input_ids': ids[:rows], 'attention_mask': mask[:rows]}
        with torch.no_grad():
          out = model.generate(**arguments, **chosen, return_dict_in_generate=True)
        where = len(cases)
        arrays[f'{where}/ids'] = out.sequences.numpy()
        if chosen.get('output_scores'):
          beams = getattr(out, 'beam_indices', None)
          found = model.compute_transition_scores(out.sequences, out.scores, beams, normalize_logits=beams is None)
          arrays[f'{where}/token_scores'] = found.numpy()
          if beams is not None:
            arrays[f'{where}/scores'] = out.sequences_scores.numpy()
        cases.append({'model': name, 'options': chosen, 'rows': rows})
  arrays['transformers_version'] = np.asarray(transformers.__version__)
  arrays['models'] = np.asarray(json.dumps(described, default=str))
  arrays['cases'] = np.asarray(json.dumps(cases))
  np.savez_compressed(target, **arrays)
  print(len(cases), 'cases')


if __name__ == '__main__':
  main(*sys.argv[1:])
