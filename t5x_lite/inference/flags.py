"""The flags of `python -m t5x_lite.infer` that stand for bindings of gin: its own, and the options of generation."""

from __future__ import annotations

import dataclasses

from t5x_lite.cli import shorthand

_OWN = {
  'mode': 'generate, score, embed, fill, classify, tag, answer, attention, hidden_states, attributions or probe.',
  'batch_size': 'Lines at a time.',
  'input_format': 'text, jsonl, csv, or auto: by the ending of the name.',
  'output_format': 'The same; of attention, attributions and probe also html, of attention svg.',
  'pooling': 'Of embed: mean, cls, last, or auto.',
  'top': 'Of fill: tokens for each mask; of answer: answers.',
  'aggregation_strategy': 'Of tag: first, simple, average or max, as in transformers.',
  'doc_stride': 'Of answer and tag: tokens that two windows of a long text share.',
  'max_answer_len': 'Of answer: tokens of an answer at most.',
  'handle_impossible_answer': 'Of answer: whether a question may have none.',
  'context': 'Of answer: a file of text for all questions that have no context of their own.',
  'layers': 'Of attention, hidden_states and probe: a number from 0, or several: 0,5.',
  'method': 'Of attributions: integrated_gradients or gradients_times_input.',
  'steps': 'Of integrated gradients: points between baseline and input.',
  'baseline': 'Of integrated gradients: padding, mean or zero.',
  'target': 'Of attributions: the label of a classifier that is asked for.',
  'task': 'Of probe: a task of the catalogue, whose examples are read instead of a file.',
  'split': 'Of that task; validation unless told otherwise.',
  'limit': 'Of its examples, at evenly spaced places; 2000 unless told otherwise.',
  'seed': 'Of what is drawn.',
  'assistant_model': 'Of generate: a smaller model, which drafts what the model writes.',
}

_BOOLS = ('handle_impossible_answer',)


def shorthands() -> list[shorthand.Shorthand]:
  """One for each; nothing heavy is imported before they are asked for."""
  from t5x_lite.decoding.config import GenerationConfig

  own = [shorthand.Shorthand(name, f'infer.{name}', text, name in _BOOLS) for name, text in _OWN.items()]
  for field in dataclasses.fields(GenerationConfig):
    text = f'Of generate: {field.name}, as in transformers.'
    binding = f'GenerationConfig.{field.name}'
    own.append(shorthand.Shorthand(field.name, binding, text, field.type == 'bool | None'))
  return own
