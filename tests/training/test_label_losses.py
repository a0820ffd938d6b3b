"""Losses of labelled examples: by hand, and the same packed or not, in microbatches or at once."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import label_losses
from t5x_lite.data import packing
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.interop import hf_call
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.training import learner as learner_lib
from t5x_lite.training import optimizers

LENGTH, LABELS = 16, 3
SIZES = {'vocab_size': 24, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 8, 'num_layers': 1}


def examples(head, count=8):
  """Made-up examples of 3 to 7 tokens, one in four without a known label where that can be."""
  rng = np.random.default_rng(0)
  found = []
  for number in range(count):
    size = int(rng.integers(3, 8))
    own = {'inputs': rng.integers(1, 24, size, np.int32), 'token_types': np.zeros(size, np.int32)}
    own['pooled'] = np.zeros(1, np.int32)
    known = number % 4 != 3
    if head == 'classification':
      own['label'] = np.array([rng.integers(LABELS) if known else -1], np.int32)
    elif head == 'regression':
      own['label'] = np.array([rng.normal() if known else np.nan], np.float32)
    elif head == 'multiple_choice':
      own['segments'] = np.repeat([1, 2], [size - 2, 2]).astype(np.int32)
      own['pooled'] = np.array([0, size - 2], np.int32)
      own['label'] = np.array([rng.integers(2) if known else -1], np.int32)
    elif head == 'span':
      first = int(rng.integers(size))
      own['span'] = np.array([first, rng.integers(first, size)], np.int32)
      own['offsets'] = np.zeros((size, 2), np.int32)
    else:
      own['tags'] = rng.integers(-1, LABELS, size, np.int32)
      own['words'] = np.arange(size, dtype=np.int32)
    found.append(own)
  return found


def batch_of(converter, made, per_row):
  """Rows of `per_row` examples each."""
  side = converter.side
  rows = [made[start : start + per_row] for start in range(0, len(made), per_row)]
  batch = {}
  for index, row in enumerate(rows):
    entries = [packing.Entry(converter(example)) for example in row]
    for name, values in entries[0].example.items():
      batch.setdefault(name, np.zeros((len(rows), LENGTH), values.dtype))
    packing.write_row(packing.Row.of(entries, {side: None}), batch, index, converter)
  return batch


def make(head, family='bert', **settings):
  heads = ('classification' if head == 'regression' else head,)
  own = {**SIZES, 'heads': heads, 'num_labels': 1 if head == 'regression' else LABELS, 'dropout_rate': 0.0}
  module = Bert(BertConfig(**own, max_length=LENGTH)) if family == 'bert' else Xlnet(XlnetConfig(**own))
  return learner_lib.Learner(
    module, optimizers.sgd(0.1), 0.1, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS', **settings
  )


def converter_of(head, family='bert'):
  return EncoderTaskFeatures(head, side='encoder' if family == 'bert' else 'decoder')


def params_of(learner, batch):
  params = nn.unbox(jax.jit(learner.module.init)({'params': jax.random.key(0)}, batch))['params']
  # Larger than at the start of training, so that predictions differ from each other.
  return jax.tree.map(lambda leaf: leaf * 8.0, params)


CASES = [('classification', 'bert'), ('regression', 'bert'), ('multiple_choice', 'bert'), ('span', 'bert')]
CASES += [('tagging', 'bert'), ('multiple_choice', 'xlnet'), ('classification', 'xlnet')]


@pytest.mark.slow
@pytest.mark.parametrize(('head', 'family'), CASES)
def test_packed_examples_cost_what_they_cost_alone_and_in_microbatches(head, family):
  converter, made = converter_of(head, family), examples(head)
  packed, alone = batch_of(converter, made, 2), batch_of(converter, made, 1)
  learner = make(head, family)
  params = params_of(learner, packed)
  runs = [(learner, packed), (learner, alone)]
  if (head, family) in (('multiple_choice', 'bert'), ('span', 'bert')):  # what is reduced within rows
    runs.append((make(head, family, num_microbatches=2), packed))
  results = [jax.jit(each.gradients)(params, batch, jax.random.key(1)) for each, batch in runs]
  scale = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(results[0][0]))
  assert scale > 0
  for other in results[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5 * scale), other[0], results[0][0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), other[1:], results[0][1:])
  _, objective, sums = results[0]
  known = {'classification': 6, 'regression': 6, 'multiple_choice': 6, 'span': 8}
  words = sum(int((own['tags'] >= 0).sum()) for own in made) if head == 'tagging' else None
  assert float(sums.weight) == known.get(head, words)
  np.testing.assert_allclose(objective, sums.loss / sums.weight, rtol=1e-5)
  assert (sums.correct is None) == (head == 'regression')


def log_softmax(values):
  return values - np.log(np.sum(np.exp(values)))


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
@pytest.mark.parametrize('head', ['classification', 'multiple_choice', 'span', 'regression'])
def test_losses_are_those_by_hand(head, smoothing):
  converter, made = converter_of(head), examples(head)
  batch = batch_of(converter, made, 2)
  outputs = {'classification': LABELS, 'span': 2}.get(head, 1)
  logits = np.random.default_rng(1).normal(size=(4, LENGTH, outputs)).astype(np.float32)
  each = label_losses.of_batch(logits, batch, smoothing)
  sums = each.sums(label_losses.weights_of_batch(batch))
  loss = correct = count = 0
  for number, own in enumerate(made):
    row, start = number // 2, 0 if number % 2 == 0 else len(made[number - 1]['inputs'])
    here = logits[row, start : start + len(own['inputs'])]
    if head == 'span':
      parts = [(log_softmax(here[:, side]), own['span'][side]) for side in (0, 1)]
      loss -= sum(values[at] for values, at in parts) / 2
      correct += all(np.argmax(values) == at for values, at in parts)
      count += 1
      continue
    label = own['label'][0]
    if label == -1 or np.isnan(label):
      continue
    count += 1
    if head == 'regression':
      loss += (here[0, 0] - label) ** 2
      continue
    values = log_softmax(here[0] if head == 'classification' else here[own['pooled'], 0])
    soft = np.full(len(values), smoothing / (len(values) - 1))
    soft[label] = 1 - smoothing
    loss -= np.sum(soft * values) - (np.sum(soft * np.log(soft)) if smoothing else 0.0)
    correct += np.argmax(values) == label
  np.testing.assert_allclose(sums.loss, loss, rtol=2e-5)
  assert float(sums.weight) == count and (head == 'regression' or float(sums.correct) == correct)


def test_class_weights_are_those_of_a_weighted_mean():
  converter, made, weights = converter_of('classification'), examples('classification'), (1.0, 0.5, 4.0)
  batch = batch_of(converter, made, 2)
  own, total = learner_lib.objective_weights(batch, 'NUM_REAL_TARGET_TOKENS', weights)
  labels = [int(each['label'][0]) for each in made if each['label'][0] >= 0]
  np.testing.assert_allclose(total, sum(weights[label] for label in labels))
  np.testing.assert_allclose(np.sum(own), total)
  assert {float(value) for value in np.unique(own)} <= {0.0, *weights}


def test_the_first_of_equal_choices_is_chosen_and_padding_is_finite():
  groups = np.array([[1, 0, 1, 2, 2, 0]], np.int32)
  logits = np.array([[1.0, 9.0, 1.0, 0.0, 2.0, 9.0]], np.float32)
  each = label_losses.choices(logits, groups)
  np.testing.assert_array_equal(each.correct[0, [0, 2, 3, 4]], [1, 0, 0, 1])
  assert np.all(np.isfinite(each.loss)) and not each.loss[0, 1] and not each.loss[0, 5]
  grads = jax.grad(lambda logits: label_losses.choices(logits, groups).loss.sum())(logits)
  assert np.all(np.isfinite(grads)) and not grads[0, 1]


@pytest.mark.parametrize('head', ['classification', 'regression', 'multiple_choice', 'span', 'tagging'])
def test_losses_of_unpacked_rows_are_those_that_transformers_computes(head):
  """By `hf_call.loss_of`, which is compared with transformers; rows are full, for it counts padding in spans."""
  rng = np.random.default_rng(2)
  rows, length, outputs = 4, 6, {'classification': LABELS, 'tagging': LABELS, 'span': 2}.get(head, 1)
  logits = rng.normal(size=(rows, length, outputs)).astype(np.float32)
  side = {'encoder_segment_ids': np.ones((rows, length), np.int32)}
  labels, weights = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
  named, targets = {}, {}
  if head in ('classification', 'regression'):
    kind = np.float32 if head == 'regression' else np.int32
    targets['labels'] = rng.integers(0, LABELS, rows).astype(kind)
    values, weights[:, 0] = labels.astype(kind), 1.0
    values[:, 0] = targets['labels']
    side |= {'encoder_label_value' if head == 'regression' else 'encoder_label': values}
    named['logits'] = logits[:, 0]
  elif head == 'multiple_choice':  # two choices a row, at positions 0 and 3
    targets['labels'] = rng.integers(0, 2, rows)
    group, weights[:, [0, 3]] = np.zeros_like(labels), 1.0
    group[:, [0, 3]], labels[np.arange(rows), 3 * targets['labels']] = 1, 1
    side |= {'encoder_label': labels, 'encoder_label_group': group}
    named['logits'] = logits[:, [0, 3], 0]
  elif head == 'span':
    for index, end in enumerate(('start', 'end')):
      at = targets[f'{end}_positions'] = rng.integers(0, length, rows)
      side[f'encoder_span_{end}'] = np.eye(length, dtype=np.float32)[at]
      named[f'{end}_logits'] = logits[..., index]
  else:
    labels[:] = rng.integers(0, LABELS, labels.shape)
    weights[:] = rng.random(weights.shape) < 0.5
    targets['labels'] = np.where(weights > 0, labels, hf_call.IGNORED)
    side |= {'encoder_label': labels}
    named['logits'] = logits
  batch = side if head == 'span' else side | {'encoder_label_weights': weights}
  sums = label_losses.of_batch(logits, batch).sums(label_losses.weights_of_batch(batch))
  module = make(head).module
  expected = hf_call.loss_of(module, {}, named, {name: np.asarray(value) for name, value in targets.items()})
  np.testing.assert_allclose(sums.loss / sums.weight, expected, rtol=1e-5)
