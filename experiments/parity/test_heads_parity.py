"""Heads trained here on packed rows, and in torch one example a row: the losses of 10 steps agree to 1e-4.

Runs where torch, transformers and this library are installed:

    python -m pytest experiments/parity

Without dropout, in float32, from the same weights, with AdamW. Questions for spans are all equally long: transformers
counts the padding of a row in their softmax, and we do not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
import twins

from t5x_lite.data import packing
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import train_step

STEPS, EXAMPLES, LENGTH, LABELS, VOCAB, RATE = 10, 8, 8, 3, 60, 3e-3
CLASSES = {
  'classification': 'SequenceClassification',
  'regression': 'SequenceClassification',
  'multiple_choice': 'MultipleChoice',
  'span': 'QuestionAnswering',
  'tagging': 'TokenClassification',
}


def padded(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
  """Texts one a row, as transformers has them."""
  ids, mask = np.zeros((2, len(rows), LENGTH), np.int64)
  for index, row in enumerate(rows):
    ids[index, : len(row)], mask[index, : len(row)] = row, 1
  return {'input_ids': ids, 'attention_mask': mask}


def examples(head: str) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
  """The same examples for us and for them."""
  rng = np.random.default_rng(0)
  size = lambda: LENGTH if head == 'span' else int(rng.integers(3, LENGTH + 1))  # noqa: E731
  per_example = 2 if head == 'multiple_choice' else 1
  texts = [rng.integers(3, VOCAB, size()) for _ in range(EXAMPLES * per_example)]
  theirs = padded(texts)
  ours = []
  for number in range(EXAMPLES):
    own = texts[number * per_example : (number + 1) * per_example]
    starts = np.cumsum([0, *map(len, own)])[:-1]
    example = {'inputs': np.concatenate(own).astype(np.int32), 'pooled': starts.astype(np.int32)}
    example['token_types'] = np.zeros_like(example['inputs'])
    example['segments'] = np.repeat(np.arange(per_example), list(map(len, own))).astype(np.int32) + 1
    ours.append(example)
  if head in ('classification', 'multiple_choice'):
    labels = rng.integers(0, LABELS if head == 'classification' else 2, EXAMPLES)
  else:
    labels = (1.0 + rng.normal(size=EXAMPLES)).astype(np.float32)
  if head == 'span':
    first = rng.integers(0, LENGTH, EXAMPLES)
    last = np.minimum(first + rng.integers(0, 3, EXAMPLES), LENGTH - 1)
    theirs |= {'start_positions': first, 'end_positions': last}
    for example, span in zip(ours, np.stack([first, last], axis=1), strict=True):
      example['span'] = span.astype(np.int32)
  elif head == 'tagging':
    tags = [np.where(rng.random(len(text)) < 0.7, rng.integers(0, LABELS, len(text)), -1) for text in texts]
    theirs['labels'] = np.full((EXAMPLES, LENGTH), twins.IGNORED)
    for index, (example, own) in enumerate(zip(ours, tags, strict=True)):
      theirs['labels'][index, : len(own)] = np.where(own < 0, twins.IGNORED, own)
      example['tags'] = own.astype(np.int32)
  else:
    theirs['labels'] = labels
    for example, label in zip(ours, labels, strict=True):
      example['label'] = np.array([label], np.float32 if head == 'regression' else np.int32)
  if head == 'multiple_choice':
    theirs |= {name: theirs[name].reshape(EXAMPLES, 2, LENGTH) for name in ('input_ids', 'attention_mask')}
  return ours, theirs


def packed(head: str, ours: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Two examples a row."""
  converter, width = EncoderTaskFeatures(head), 4 * LENGTH
  batch: dict[str, np.ndarray] = {}
  for index in range(0, EXAMPLES, 2):
    own = [dict(example) for example in ours[index : index + 2]]
    if head != 'multiple_choice':
      for example in own:
        del example['segments']
    entries = [packing.Entry(converter(example)) for example in own]
    for name, values in entries[0].example.items():
      batch.setdefault(name, np.zeros((EXAMPLES // 2, width), values.dtype))
    packing.write_row(packing.Row.of(entries, {'encoder': None}), batch, index // 2, converter)
  return batch


@pytest.mark.parametrize('head', CLASSES)
def test_losses_of_ten_steps_follow_each_other(head):
  torch.manual_seed(0)
  config = transformers.BertConfig(
    vocab_size=VOCAB, hidden_size=24, num_attention_heads=3, num_hidden_layers=2, intermediate_size=40,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1,
    num_labels={'regression': 1, 'span': 2}.get(head, LABELS),
  )  # fmt: skip
  model = getattr(transformers, f'BertFor{CLASSES[head]}')(config)
  pair = twins.make(model)
  ours, theirs = examples(head)
  optimizer = optimizers.adamw(RATE, b2=0.98, weight_decay=0.1, max_grad_norm=1.0)
  learner = Learner(pair.ours, optimizer, RATE, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS')
  key = jax.random.key_data(jax.random.key(0))
  state = TrainState(jnp.zeros((), jnp.int32), pair.params, optimizer.init(pair.params), key)
  step_fn, batch, found = jax.jit(lambda state, batch: train_step(learner, state, batch)), packed(head, ours), []
  for _ in range(STEPS):
    state, metrics = step_fn(state, batch)
    found.append(float(metrics['loss']))
  kernels, others = ([p for p in model.parameters() if (p.ndim > 1) == kernel] for kernel in (True, False))
  groups = [{'params': kernels, 'weight_decay': 0.1}, {'params': others, 'weight_decay': 0.0}]
  their_optimizer, expected = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-8), []
  for _ in range(STEPS):
    their_optimizer.zero_grad()
    loss = model(**{name: torch.as_tensor(value) for name, value in theirs.items()}).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    their_optimizer.step()
    expected.append(loss.item())
  apart = np.max(np.abs(np.subtract(found, expected)))
  print(f'{head}: {expected[0]:.4f} to {expected[-1]:.4f}, apart by {apart:.1e}')
  assert expected[-1] < expected[0] - 0.1, 'nothing was learned'
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
