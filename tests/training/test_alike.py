"""The loss of texts that are alike: by hand, whatever the padding and the mesh, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5x_lite import label_losses
from t5x_lite.core import errors
from t5x_lite.data import features, packing
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

LENGTH, ROWS, SCALE = 24, 8, 20.0
CONVERTER = EncoderTaskFeatures('embedding')
CONFIG = BertConfig(
  vocab_size=24,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=8,
  num_layers=1,
  max_length=2 * LENGTH,
  dropout_rate=0.0,
  heads=('embedding',),
)


def example(rng, texts, label=1):
  """Made-up tokens of so many texts, each a segment of 3 to 7, and all different."""
  sizes = rng.integers(3, 8, texts)
  return {
    'inputs': rng.integers(1, 24, sum(sizes), np.int32),
    'token_types': np.zeros(sum(sizes), np.int32),
    'pooled': np.cumsum([0, *sizes[:-1]]).astype(np.int32),
    'segments': np.repeat(np.arange(1, texts + 1), sizes).astype(np.int32),
    'ids': rng.integers(1, 2**31 - 1, texts, np.int32),
    'label': np.array([label], np.int32),
  }


def batch_of(examples, length=LENGTH, rows=ROWS):
  spec = features.batch_spec(CONVERTER, {'inputs': length}, rows)
  batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
  for index, own in enumerate(examples):
    packing.write_row(packing.Row.of([packing.Entry(CONVERTER(own))], {'encoder': None}), batch, index, CONVERTER)
  return batch


@pytest.fixture(scope='module')
def examples():
  """Six rows of eight: with and without a third text, one pair that is not alike, one text that comes twice."""
  rng = np.random.default_rng(0)
  found = [example(rng, texts, label) for texts, label in ((2, 1), (3, 1), (2, 0), (3, 1), (2, 1), (2, 1))]
  return [*found[:5], found[0]]


def by_hand(vectors, texts, known, smoothing=0.0):
  """`(loss, hits)` summed over the pairs: each text among all that are in the batch, one after the other.

  Args:
    vectors: of each row those of its texts.
    texts: of each row the texts themselves.
    known: of each row whether its pair counts.
    smoothing: mass of the other texts.
  """
  loss = hits = 0.0
  for row, counts in enumerate(known):
    if not counts:
      continue
    scores, own = [], None
    for number in (1, 2):
      for other in range(len(vectors)):
        if len(vectors[other]) <= number:
          continue
        is_own = number == 1 and other == row
        if not is_own and texts[other][number] in (texts[row][0], texts[row][1]):
          continue
        own = len(scores) if is_own else own
        scores.append(SCALE * float(vectors[row][0] @ vectors[other][number]))
    log_p = np.array(scores) - np.log(np.sum(np.exp(np.array(scores))))
    soft = np.full(len(scores), smoothing / max(len(scores) - 1, 1))
    soft[own] = 1 - smoothing
    loss -= np.sum(soft * log_p) - (np.sum(soft * np.log(soft)) if smoothing else 0.0)
    hits += np.argmax(scores) == own
  return loss, hits


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_loss_is_that_by_hand(examples, smoothing):
  batch = batch_of(examples)
  vectors = np.random.default_rng(1).normal(size=(ROWS, LENGTH, 5)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  each = label_losses.of_batch(vectors, batch, smoothing, SCALE)
  sums = each.sums(label_losses.weights_of_batch(batch))
  placed = [vectors[row, own['pooled']] for row, own in enumerate(examples)]
  known = [own['label'][0] == 1 for own in examples]
  loss, hits = by_hand(placed, [own['ids'].tolist() for own in examples], known, smoothing)
  np.testing.assert_allclose(sums.loss, loss, rtol=1e-5)
  assert float(sums.correct) == hits and float(sums.weight) == sum(known) == 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2 * ROWS, max_size=2 * ROWS), st.integers(0, 2**16))
def test_the_same_text_is_never_told_from_itself(numbers, seed):
  """Whichever texts of a batch are the same: texts are their ids here."""
  ids = np.array(numbers, np.int32).reshape(ROWS, 2) + 1
  vectors = np.random.default_rng(seed).normal(size=(ROWS, 2, 3)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  each = label_losses.alike(vectors, np.tile(np.array([1, 2], np.int32), (ROWS, 1)), ids, SCALE)
  loss, hits = by_hand(list(vectors), ids.tolist(), [True] * ROWS)
  np.testing.assert_allclose(np.sum(each.loss), loss, rtol=1e-4, atol=1e-4)
  assert float(np.sum(each.correct)) == hits


def test_rows_of_padding_have_no_loss_and_no_gradient(examples):
  batch = {name.removeprefix('encoder_'): values for name, values in batch_of(examples).items()}
  vectors = np.random.default_rng(1).normal(size=(ROWS, LENGTH, 5)).astype(np.float32)

  def loss(vectors):
    return jnp.sum(label_losses.alike(vectors, batch['text_number'], batch['text_id'], SCALE).loss)

  gradient = np.asarray(jax.grad(loss)(vectors))
  assert np.all(np.isfinite(gradient)) and not gradient[len(examples) :].any()
  assert not gradient[batch['text_number'] == 0].any() and gradient[batch['text_number'] == 3].any()
  empty = {name: np.zeros_like(values) for name, values in batch.items()}
  each = label_losses.alike(vectors, empty['text_number'], empty['text_id'], SCALE)
  assert not np.any(each.loss) and not np.any(each.correct)


def train(shape, batch, config=CONFIG, **settings):
  """`(parameters, metrics)` after a step, on a mesh or on one device alone."""
  learner = Learner(
    Bert(config), optimizers.sgd(0.1), 0.1, loss_normalizing_factor='NUM_REAL_TARGET_TOKENS', **settings
  )
  spec = {name: jax.ShapeDtypeStruct(values.shape, values.dtype) for name, values in batch.items()}
  trainer = Trainer(learner, make_mesh(shape, jax.devices()[:1] if shape is None else None), spec)
  state, metrics = trainer.train_step(trainer.init(0), trainer.shard_batch(batch))
  return jax.tree.map(np.asarray, state.params), {name: float(value) for name, value in metrics.items()}


def assert_same(found, expected):
  for name in ('loss_sum', 'weight_sum', 'correct_sum', 'grad_norm'):
    np.testing.assert_allclose(found[1][name], expected[1][name], rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found[0], expected[0])


@pytest.mark.slow
@pytest.mark.parametrize('pooling', ['mean', 'cls'])
def test_neither_devices_nor_padding_change_anything(examples, pooling):
  config = dataclasses.replace(CONFIG, pooling=pooling)
  alone = train(None, batch_of(examples), config)
  assert alone[1]['weight_sum'] == 5 and alone[1]['grad_norm'] > 1e-2
  assert_same(train(MeshShape(data=4, fsdp=2), batch_of(examples), config), alone)
  assert_same(train(None, batch_of(examples, 2 * LENGTH, 2 * ROWS), config), alone)


def test_parts_of_a_batch_are_refused(examples):
  with pytest.raises(errors.UsageError, match='expected NUM_MICROBATCHES = 1'):
    train(None, batch_of(examples), num_microbatches=2)
  with pytest.raises(errors.UsageError, match=r'similarity_scale=0\.0: expected more than 0'):
    train(None, batch_of(examples), similarity_scale=0.0)
