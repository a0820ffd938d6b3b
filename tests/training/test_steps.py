"""The jitted steps: the mesh changes nothing but where things are."""

import dataclasses
import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.metrics import sums as sums_lib
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import optimizers, schedules, warmstart
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

SCHEDULE = schedules.create_learning_rate_scheduler('constant * linear_warmup', 0.3, warmup_steps=2)
ADAFACTOR = optimizers.adafactor(SCHEDULE, min_dim_size_to_factor=8)
MIXED = MeshShape(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope='module')
def make_trainer(tiny_lm, packed_batch, spec_of):
  """`make_trainer(shape, **learner settings)`, compiled once for each set; shape None is one device alone."""

  @functools.cache
  def make(shape, rows=16, dropout_rate=0.0, optimizer=ADAFACTOR, **settings):
    learner = Learner(tiny_lm(dropout_rate=dropout_rate), optimizer, SCHEDULE, **settings)
    mesh = make_mesh(shape, jax.devices()[:1] if shape is None else None)
    return Trainer(learner, mesh, spec_of(packed_batch(rows)))

  return make


def train(trainer, batches, seed=0):
  """`(state, metrics of the last step)` on the host."""
  state = trainer.init(seed)
  for batch in batches:
    state, metrics = trainer.train_step(state, trainer.shard_batch(batch))
  return jax.tree.map(np.asarray, state), jax.tree.map(float, metrics)


def assert_close(found, expected, tolerance=1e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)


SETTINGS = {
  'dropout_rate': 0.1,
  'z_loss': 1e-3,
  'label_smoothing': 0.1,
  'loss_normalizing_factor': 'AVERAGE_PER_SEQUENCE',
}


@pytest.mark.parametrize(
  ('shape', 'settings'),
  [
    (MeshShape(), {}),
    (MeshShape(data=1, fsdp=8), {}),
    (MeshShape(data=1, tensor=8), {}),
    (MIXED, {'vocab_chunk': 10}),
    (MeshShape(data=2, tensor=2, sequence=2), {}),
  ],
)
def test_sharded_equals_unsharded(make_trainer, packed_batch, shape, settings):
  batches = [packed_batch(16, seed) for seed in range(3)]
  found = train(make_trainer(shape, **SETTINGS, **settings), batches)
  assert_close(found, train(make_trainer(None, **SETTINGS), batches))
  assert found[1]['grad_norm'] > 1e-3


def test_microbatches_equal_one_batch_on_a_mesh(make_trainer, packed_batch):
  settings = {'loss_normalizing_factor': 'AVERAGE_PER_SEQUENCE'}
  batches = [packed_batch(16, seed) for seed in range(2)]
  split = make_trainer(MIXED, **settings, num_microbatches=4)
  assert_close(train(split, batches), train(make_trainer(None, **settings), batches))
  # The rows of every microbatch are spread over the batch axes, and gradients accumulate sharded as parameters are.
  assert re.search(
    r'sharding_constraint .*\[\{\}, \{"data", "fsdp", "expert"\}, \{\}\]> : tensor<4x4x12xi32>', split.lower().as_text()
  )
  compiled = split.compile().as_text()
  assert 'all-to-all(' not in compiled  # no row moves to another device
  loops = [line for line in compiled.split('\n') if 'known_trip_count":{"n":"4"' in line]
  carried = ' '.join(line.split(' while(')[0] for line in loops)
  assert 'f32[12,4]' in carried  # the embedding's gradient, [24, 8] over tensor and fsdp
  assert 'f32[24,8]' not in carried


def test_constraints_reach_the_compiler_and_nothing_is_float64(make_trainer):
  text = make_trainer(MIXED).lower().as_text()
  rows = r'\{"data", "fsdp", "expert"\}, \{"sequence"\}'
  assert re.search(rf'sharding_constraint .*\[{rows}, \{{"tensor"\}}\]> : tensor<16x12x16xf32>', text)  # MLP
  assert re.search(rf'sharding_constraint .*\[{rows}, \{{"tensor"\}}\]> : tensor<16x12x24xf32>', text)  # logits
  assert re.search(rf'sharding_constraint .*\[{rows}, \{{\}}\]> : tensor<16x12x8xf32>', text)  # residual stream
  assert 'f64' not in text


def test_initial_state_is_the_same_on_every_mesh_and_follows_the_seed(make_trainer):
  states = [jax.tree.map(np.asarray, make_trainer(shape).init(3)) for shape in (None, MIXED)]
  jax.tree.map(np.testing.assert_array_equal, *states)
  other = jax.tree.map(np.asarray, make_trainer(None).init(4))
  assert not np.array_equal(other.params['embedding'], states[0].params['embedding'])
  assert not np.array_equal(other.rng, states[0].rng)


def test_the_state_is_placed_and_stays_there(make_trainer, packed_batch):
  trainer = make_trainer(MIXED)
  state = trainer.init(0)
  batch = trainer.shard_batch(packed_batch(16))
  for _ in range(2):
    found = tree.named_leaves(state)
    for name, leaf in tree.named_leaves(trainer.abstract_state).items():
      assert (found[name].shape, found[name].dtype) == (leaf.shape, leaf.dtype)
      assert found[name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim), name
    state, _ = trainer.train_step(state, batch)
  parts = {name: leaf.addressable_shards[0].data.shape for name, leaf in tree.named_leaves(state).items()}
  assert parts['params/layers/wi'] == (2, 4, 8)
  assert parts['opt_state/0/v_row/layers/wi'] == (2, 4)
  assert parts['opt_state/0/v_col/layers/wi'] == (2, 8)


def test_the_state_is_donated(make_trainer, packed_batch):
  trainer = make_trainer(MIXED)
  state = trainer.init(0)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    trainer.train_step(state, trainer.shard_batch(packed_batch(16)))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_metrics_say_what_happened(make_trainer, packed_batch):
  trainer = make_trainer(None, loss_normalizing_factor='AVERAGE_PER_SEQUENCE')
  batch = packed_batch(16)
  placed = trainer.shard_batch(batch)
  first = trainer.init(0)
  before = jax.tree.map(np.asarray, first.params)
  evaluated = trainer.eval_step(first.params, placed)
  state, metrics = trainer.train_step(first, placed)
  for name, value in evaluated.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)
  np.testing.assert_allclose(metrics['loss'], sums_lib.finalise(evaluated)['loss'], rtol=1e-6)
  assert metrics['weight_sum'] == np.float32(batch['decoder_loss_weights'].sum())
  assert metrics['tokens'] == np.float32((batch['decoder_segment_ids'] > 0).sum())
  assert metrics['learning_rate'] == np.float32(1e-8)  # the first step of warm-up
  _, metrics = trainer.train_step(state, placed)
  assert metrics['learning_rate'] == np.float32(0.15)
  assert metrics['nonfinite'] == 0
  moved = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(before)))
  np.testing.assert_allclose(metrics['param_norm'], moved, rtol=0.3)
  assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())


def test_sums_of_batches_are_those_of_their_union(make_trainer, packed_batch):
  trainer = make_trainer(MIXED)
  params = trainer.init(0).params
  whole = packed_batch(16)
  halves = [{name: rows[part] for name, rows in whole.items()} for part in (slice(0, 8), slice(8, 16))]
  total = {}
  for half in halves:
    total = sums_lib.add(total, trainer.eval_step(params, trainer.shard_batch(half, global_batch=8)))
  expected = trainer.eval_step(params, trainer.shard_batch(whole))
  assert_close(sums_lib.finalise(total), sums_lib.finalise(expected), 1e-6)
  assert sums_lib.finalise(total).keys() == {'loss', 'z_loss', 'nll', 'accuracy'}


@pytest.mark.parametrize('skip', [True, False])
def test_a_nonfinite_step_is_reported_and_can_be_skipped(make_trainer, packed_batch, skip):
  trainer = make_trainer(None, skip_nonfinite=skip)
  good = packed_batch(16)
  bad = good | {'decoder_loss_weights': np.full_like(good['decoder_loss_weights'], np.nan)}
  state, _ = trainer.train_step(trainer.init(0), trainer.shard_batch(good))
  before = jax.tree.map(np.asarray, state)
  after, metrics = trainer.train_step(state, trainer.shard_batch(bad))
  assert metrics['nonfinite'] == 1
  assert after.step == 2
  if skip:
    held = warmstart.at_step(after.opt_state, 1)  # All but the schedule's count, which is that of the step.
    found = jax.tree.map(np.asarray, (after.params, held))
    jax.tree.map(np.testing.assert_array_equal, found, (before.params, before.opt_state))
    assert [int(count) for _, count in optax.tree.get_all_with_path(after.opt_state, 'count', is_schedule)] == [2]
    _, metrics = trainer.train_step(after, trainer.shard_batch(good))
    assert metrics['nonfinite'] == 0
  else:
    assert np.isnan(np.asarray(after.params['embedding'])).any()


def is_schedule(path, _):
  return path[-1].tuple_name == 'ScaleByScheduleState'


@pytest.mark.parametrize('make', [optimizers.sgd, optimizers.adamw, optimizers.lamb])
def test_the_learning_rate_is_that_of_the_step_after_skipped_ones_too(make_trainer, packed_batch, make):
  """With a rate that is 0 up to step 2 and then not, a run whose step 1 was skipped moves at step 3 and not later."""
  trainer = make_trainer(None, optimizer=make(lambda step: jnp.where(step < 2, 0.0, 1e-3)), skip_nonfinite=True)
  good = packed_batch(16)
  bad = good | {'decoder_loss_weights': np.full_like(good['decoder_loss_weights'], np.nan)}
  state, moved = trainer.init(0), []
  for batch in (bad, good, good):
    before = np.asarray(state.params['embedding'])
    state, _ = trainer.train_step(state, trainer.shard_batch(batch))
    moved.append(bool(np.any(np.asarray(state.params['embedding']) != before)))
  assert moved == [False, False, True]


def test_every_step_has_dropout_of_its_own(make_trainer, packed_batch):
  trainer = make_trainer(None, dropout_rate=0.5, optimizer=optimizers.sgd(0.0))
  batch = trainer.shard_batch(packed_batch(16))
  state, first = trainer.train_step(trainer.init(0), batch)
  _, second = trainer.train_step(state, batch)
  _, again = trainer.train_step(trainer.init(0), batch)
  assert first['loss'] != second['loss']
  assert first['loss'] == again['loss']


def test_what_does_not_fit_the_mesh_is_refused(make_trainer):
  with pytest.raises(UsageError, match=r'batch of 12 rows .* data=8: 8 or 16 would fit'):
    make_trainer(MeshShape(), rows=12)
  with pytest.raises(UsageError, match='4 microbatches'):
    make_trainer(MeshShape(), rows=16, num_microbatches=4)
  with pytest.raises(UsageError, match=r'3 microbatches on one device: 15 or 18 would fit'):
    make_trainer(None, rows=16, num_microbatches=3)


TINY_T5 = T5Config(
  vocab_size=32,
  emb_dim=8,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  num_encoder_layers=2,
  num_decoder_layers=2,
  dropout_rate=0.1,
)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('shape', 'changes'),
  [
    (MeshShape(), {}),
    (MeshShape(data=1, fsdp=8), {}),
    (MeshShape(data=4, tensor=2), {}),
    (MIXED, {}),
    (MIXED, {'remat_policy': 'minimal'}),
  ],
)
def test_sharded_t5_equals_unsharded(packed_batch, spec_of, shape, changes):
  def make_batch(seed):
    batch = packed_batch(16, seed)
    other = packed_batch(16, seed + 10)
    return batch | {name.replace('decoder', 'encoder'): rows for name, rows in other.items()}

  results = []
  for place, config in ((None, TINY_T5), (shape, dataclasses.replace(TINY_T5, **changes))):
    mesh = make_mesh(place, jax.devices()[:1] if place is None else None)
    learner = Learner(T5(config), ADAFACTOR, SCHEDULE, z_loss=1e-4)
    trainer = Trainer(learner, mesh, spec_of(make_batch(0)))
    results.append(train(trainer, [make_batch(seed) for seed in range(2)]))
  assert_close(results[1], results[0], 1e-4)
