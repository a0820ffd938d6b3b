"""What waits in the host's memory is where it was sent, and changes nothing."""

import jax
import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.partitioning import offload
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import optimizers
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer

MIXED = MeshShape(data=2, fsdp=2, tensor=2)


def run(trainer, batches):
  """The state and the metrics after some steps."""
  state = trainer.init(0)
  for batch in batches:
    state, metrics = trainer.train_step(state, trainer.shard_batch(batch))
  return state, metrics


@pytest.mark.slow
@pytest.mark.parametrize('shape', [None, MIXED])
def test_an_offloaded_optimiser_trains_the_same(tiny_lm, packed_batch, spec_of, shape):
  mesh = make_mesh(shape, jax.devices()[:1] if shape is None else None)
  learner = Learner(tiny_lm(), optimizers.adamw(0.1, max_grad_norm=1.0), 0.1, skip_nonfinite=True)
  batches = [packed_batch(16, seed) for seed in range(3)]
  spec = spec_of(batches[0])
  state, metrics = run(Trainer(learner, mesh, spec, offload_optimizer=True), batches)
  expected = run(Trainer(learner, mesh, spec), batches)
  moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
  assert moments
  assert {leaf.sharding.memory_kind for leaf in moments} == {offload.HOST}
  assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.params)} == {'device'}
  for found, wanted in zip(jax.tree.leaves((state, metrics)), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_a_device_without_such_memory_is_refused(monkeypatch):
  monkeypatch.setattr(offload, 'HOST', 'moon')
  expected = r'a cpu device has memory of kind device, .*: expected moon among them'
  with pytest.raises(UsageError, match=expected) as error:
    offload.check(make_mesh(MeshShape()))
  assert '\n' not in str(error.value)
