"""Records what transformers' GPT-2s compute, for the tests.

    python experiments/golden/record_gpt2.py tests/golden/gpt2.npz

Needs torch and transformers, and none of our own code. All cases but one share the weights of one tiny body; see
`recording` for what the file holds. The other one is a GPT-Neo: its layers alternate between dense and local ones as
GPT-3's do, which are published nowhere.
"""

from __future__ import annotations

import sys

import torch
import transformers
from recording import Recording, draw, randomise, some

TINY = {'vocab_size': 32, 'n_embd': 12, 'n_layer': 2, 'n_head': 3, 'n_inner': 20, 'n_positions': 14, 'pad_token_id': 0}
NEO = {
  'vocab_size': 32,
  'hidden_size': 12,
  'num_layers': 4,
  'num_heads': 3,
  'intermediate_size': 20,
  'max_position_embeddings': 14,
  'attention_types': [[['global', 'local'], 2]],
  'window_size': 3,
}
LENGTH = 9


def inputs() -> dict[str, torch.Tensor]:
  """Three rows: whole, and two padded on the right."""
  mask = torch.ones(3, LENGTH, dtype=torch.long)
  mask[1, 6:] = 0
  mask[2, 4:] = 0
  return {'input_ids': torch.where(mask > 0, draw(1, (3, LENGTH), 1, 32), 0), 'attention_mask': mask}


def left_padded() -> dict[str, torch.Tensor]:
  """Two rows padded on the left, their positions counted from the first token."""
  mask = torch.ones(2, LENGTH, dtype=torch.long)
  mask[0, :2] = 0
  mask[1, :5] = 0
  tokens = torch.where(mask > 0, draw(2, (2, LENGTH), 1, 32), 0)
  return {'input_ids': tokens, 'attention_mask': mask, 'position_ids': (mask.cumsum(1) - 1).clamp(min=0)}


def cases() -> dict[str, tuple[str, dict, dict[str, torch.Tensor]]]:
  """By name: the class, what its config adds to `TINY`, the arguments."""
  rows, left = inputs(), left_padded()
  labels = some(rows['input_ids'], 3, rows)
  # Positions beyond the input are not counted. Padding is: so the loss is recorded of rows that have none.
  ends = {'start_positions': torch.tensor([1, 99]), 'end_positions': torch.tensor([2, 3])}
  plain = {'input_ids': draw(4, (2, 7), 1, 32)}
  lm = 'GPT2LMHeadModel'
  classes = {'num_labels': 3}
  return {
    'plain': (lm, {}, plain),
    'lm': (lm, {}, {**rows, 'labels': labels}),
    'left_padded': (lm, {}, left),
    'untied': (lm, {'tie_word_embeddings': False}, {**rows, 'labels': labels}),
    'relu': (lm, {'activation_function': 'relu'}, rows),
    'model': ('GPT2Model', {}, left),
    'classification': ('GPT2ForSequenceClassification', classes, {**rows, 'labels': torch.tensor([2, 0, 1])}),
    'classification_left': ('GPT2ForSequenceClassification', classes, {**left, 'labels': torch.tensor([2, 0])}),
    'span': ('GPT2ForQuestionAnswering', {}, {**plain, **ends}),
    'span_padded': ('GPT2ForQuestionAnswering', {}, rows),
    'tagging': (
      'GPT2ForTokenClassification',
      {'num_labels': 5},
      {**rows, 'labels': some(draw(5, (3, LENGTH), 0, 5), 6, rows)},
    ),
  }


def main(target: str) -> None:
  """Records all cases."""
  recording = Recording()
  for name, (class_name, changes, arguments) in cases().items():
    config = transformers.GPT2Config(**{**TINY, **changes}, attn_implementation='eager')
    model = getattr(transformers, class_name)(config)
    randomise(model, 'transformer.')
    recording.add(name, model, arguments)
  neo = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**NEO, attn_implementation='eager'))
  randomise(neo, 'transformer.')
  recording.add('neo', neo, inputs())
  recording.save(target)


if __name__ == '__main__':
  main(*sys.argv[1:])
