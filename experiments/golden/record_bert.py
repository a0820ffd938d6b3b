"""Records what transformers' BERTs and RoBERTas compute, for the tests.

    python experiments/golden/record_bert.py tests/golden/bert.npz

Needs torch and transformers, and none of our own code. All cases share the weights of one tiny body; see `recording`
for what the file holds. RoBERTa's are recorded by `record_roberta.py`.
"""

from __future__ import annotations

import sys

import torch
import transformers
from recording import Recording, draw, randomise, some

TINY = {
  'vocab_size': 32,
  'hidden_size': 12,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'intermediate_size': 20,
  'max_position_embeddings': 12,
}
LENGTH = 9


def inputs(pad: int, types: int, left: bool = True) -> dict[str, torch.Tensor]:
  """Three rows: whole, padded on the right, and padded on the left unless a head reads the first token."""
  mask = torch.ones(3, LENGTH, dtype=torch.long)
  mask[1, 6:] = 0
  if left:
    mask[2, :4] = 0
  tokens = torch.where(mask > 0, draw(1, (3, LENGTH), 4, 32), pad)
  return {'input_ids': tokens, 'attention_mask': mask, 'token_type_ids': draw(2, (3, LENGTH), 0, types)}


def choices(pad: int, types: int) -> dict[str, torch.Tensor]:
  """Two questions of three choices, one of them shorter."""
  tokens, mask = draw(3, (2, 3, 6), 4, 32), torch.ones(2, 3, 6, dtype=torch.long)
  tokens[1, 0, 4:], mask[1, 0, 4:] = pad, 0
  return {'input_ids': tokens, 'attention_mask': mask, 'token_type_ids': draw(4, (2, 3, 6), 0, types)}


def shared_cases(pad: int, types: int) -> dict[str, tuple[str, dict, dict[str, torch.Tensor]]]:
  """By name: the class without the family's name, what its config adds, its arguments; of BERT and RoBERTa alike."""
  rows, right = inputs(pad, types), inputs(pad, types, left=False)
  plain = {'input_ids': draw(5, (2, 7), 4, 32)}
  labels = some(draw(6, (3, LENGTH), 0, 32), 7, rows)
  # Positions beyond the input are not counted. Padding is: so the loss is recorded of rows that have none.
  ends = {'start_positions': torch.tensor([1, 99]), 'end_positions': torch.tensor([2, 3])}
  return {
    'model': ('Model', {}, rows),
    'plain': ('Model', {}, plain),
    'positions': ('Model', {}, {**plain, 'position_ids': draw(8, (2, 7), 2, 12)}),
    'masked_lm': ('ForMaskedLM', {}, {**rows, 'labels': labels}),
    'classification': ('ForSequenceClassification', {'num_labels': 3}, {**right, 'labels': torch.tensor([2, 0, 1])}),
    'regression': ('ForSequenceClassification', {'num_labels': 1}, {**right, 'labels': torch.tensor([0.5, -1.0, 2.0])}),
    'multi_label': (
      'ForSequenceClassification',
      {'num_labels': 3, 'problem_type': 'multi_label_classification'},
      {**right, 'labels': draw(9, (3, 3), 0, 2).float()},
    ),
    'multiple_choice': ('ForMultipleChoice', {}, {**choices(pad, types), 'labels': torch.tensor([2, 0])}),
    'span': ('ForQuestionAnswering', {}, {**plain, **ends}),
    'span_padded': ('ForQuestionAnswering', {}, rows),
    'tagging': (
      'ForTokenClassification',
      {'num_labels': 5},
      {**rows, 'labels': some(draw(10, (3, LENGTH), 0, 5), 11, rows)},
    ),
  }


def record(family: str, cases: dict[str, tuple[str, dict, dict[str, torch.Tensor]]], target: str, **tiny) -> None:
  """Records the cases of one of the two families."""
  recording = Recording()
  for name, (class_name, changes, arguments) in cases.items():
    config = getattr(transformers, f'{family}Config')(**{**TINY, **tiny, **changes})
    config._attn_implementation = 'eager'
    model = getattr(transformers, f'{family}{class_name}')(config)
    randomise(model, f'{family.lower()}.')
    recording.add(name, model, arguments)
  recording.save(target)


def main(target: str) -> None:
  """Records all cases of BERT."""
  right = inputs(0, 2, left=False)
  labels = some(draw(6, (3, LENGTH), 0, 32), 12, right)
  order = torch.tensor([1, 0, 1])
  cases = shared_cases(0, 2) | {
    'pretraining': ('ForPreTraining', {}, {**right, 'labels': labels, 'next_sentence_label': order}),
    'nsp': ('ForNextSentencePrediction', {}, {**right, 'labels': order}),
    'tanh_gelu': ('ForMaskedLM', {'hidden_act': 'gelu_new'}, {**right, 'labels': labels}),
  }
  record('Bert', cases, target)


if __name__ == '__main__':
  main(*sys.argv[1:])
