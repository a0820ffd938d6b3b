"""A trainer and a data iterator small enough to test the loop with: a bigram model, dropout from the state's key."""

from __future__ import annotations

import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from t5x_lite.training import checkpoints, console, job, loop, writers
from t5x_lite.training.state import TrainState

VOCAB, WIDTH, ROWS, LENGTH = 16, 8, 8, 4


def _nll(params, batch, key):
  hidden = params['table'][batch['decoder_input_tokens']]
  hidden *= jax.random.bernoulli(key, 0.9, (ROWS, 1, hidden.shape[-1])).astype(jnp.float32) / 0.9
  logits = hidden @ params['out']
  log_probs = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_probs, batch['decoder_target_tokens'][..., None], -1)[..., 0]
  correct = jnp.argmax(logits, -1) == batch['decoder_target_tokens']
  return jnp.sum(nll * batch['gain'][:, None]), jnp.sum(correct.astype(jnp.float32))


class FakeTrainer:
  """Has the interface of `steps.Trainer`. A batch's `gain` multiplies its loss: NaN poisons it."""

  def __init__(self, *, devices: int = 1, width: int = WIDTH, skip_nonfinite: bool = False, step_seconds: float = 0.0):
    self.mesh = Mesh(np.array(jax.devices()[:devices]), ('fsdp',), axis_types=(AxisType.Auto,))
    self.optimizer = optax.chain(optax.trace(0.9), optax.scale(-0.001))
    self.width, self.skip, self.step_seconds = width, skip_nonfinite, step_seconds
    self.compiled = 0
    spec = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    self.batch_spec = {'decoder_input_tokens': spec, 'decoder_target_tokens': spec}
    abstract = jax.eval_shape(self._initial, jnp.uint32(0))
    self.abstract_state = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._place(x)), abstract
    )
    self._step = jax.jit(self._train_step, donate_argnums=0)
    self._eval = jax.jit(self._eval_step)

  def _place(self, leaf):
    rows_divide = leaf.ndim == 2 and leaf.shape[0] % self.mesh.size == 0
    return NamedSharding(self.mesh, PartitionSpec('fsdp') if rows_divide else PartitionSpec())

  def _initial(self, seed):
    first, second, dropout = jax.random.split(jax.random.key(seed), 3)
    params = {
      'table': jax.random.normal(first, (VOCAB, self.width)) * 0.1,
      'out': jax.random.normal(second, (self.width, VOCAB)) * 0.1,
    }
    return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params), jax.random.key_data(dropout))

  def init(self, seed: int = 0) -> TrainState:
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state)
    return jax.jit(self._initial, out_shardings=shardings)(jnp.uint32(seed))

  def compile(self):
    self.compiled += 1

  def shard_batch(self, rows):
    everywhere = NamedSharding(self.mesh, PartitionSpec())
    return {name: jax.make_array_from_process_local_data(everywhere, value) for name, value in rows.items()}

  def _train_step(self, state, batch):
    (loss, correct), grads = jax.value_and_grad(_nll, has_aux=True)(state.params, batch, state.dropout_key())
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if self.skip:
      new, old = (params, opt_state), (state.params, state.opt_state)
      params, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    weight = jnp.float32(ROWS * LENGTH)
    metrics = {
      'loss': loss / weight,
      'loss_sum': loss,
      'nll_sum': loss,
      'weight_sum': weight,
      'correct_sum': correct,
      'tokens': weight * 0.75,
      'grad_norm': norm,
      'update_norm': optax.tree.norm(updates),
      'param_norm': optax.tree.norm(params),
      'learning_rate': jnp.float32(0.05),
      'nonfinite': 1.0 - finite.astype(jnp.float32),
    }
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

  def train_step(self, state, batch):
    if self.step_seconds:
      time.sleep(self.step_seconds)
    return self._step(state, batch)

  def _eval_step(self, params, batch):
    loss, correct = _nll(params, batch, jax.random.key(0))
    weight = jnp.float32(ROWS * LENGTH)
    return {'loss_sum': loss, 'nll_sum': loss, 'weight_sum': weight, 'correct_sum': correct, 'tokens': weight}

  def eval_step(self, params, batch):
    return self._eval(params, batch)


class FakeIterator:
  """Batch n depends on n alone. `gains` multiplies the loss of some batches (from 1); `length` ends the data."""

  def __init__(self, gains: dict[int, float] | None = None, length: int | None = None):
    self.position, self.gains, self.length = 0, gains or {}, length

  def __iter__(self):
    return self

  def __next__(self):
    if self.length is not None and self.position >= self.length:
      raise StopIteration
    self.position += 1
    return make_batch(self.position, self.gains.get(self.position, 1.0))

  def get_state(self):
    return {'position': self.position}

  def set_state(self, state):
    self.position = state['position']

  task_names = ('a', 'b')

  def counts(self):
    per_batch = {'examples': (3, 1), 'tokens': (3, 5), 'truncated': (0, 1), 'dropped': (0, 0)}
    return {name: self.position * np.array(counts, np.int64) for name, counts in per_batch.items()}


def make_batch(number: int, gain: float = 1.0):
  tokens = np.random.default_rng(number).integers(0, VOCAB, (ROWS, LENGTH), dtype=np.int32)
  return {
    'decoder_input_tokens': tokens,
    'decoder_target_tokens': (3 * tokens + 1) % VOCAB,
    'gain': np.full((ROWS,), gain, np.float32),
  }


def train(
  directory, config: job.LoopConfig, *, trainer=None, iterator=None, keep: int = 3, **job_fields
) -> job.Outcome:
  """Runs the loop as runs.py would: everything made afresh, as after a restart."""
  trainer, iterator = trainer or FakeTrainer(), iterator or FakeIterator()
  checkpointer = checkpoints.Checkpointer(directory, keep=keep)
  writer, screen = writers.MetricWriter(directory), console.Console()
  job_fields.setdefault('init', trainer.init)
  try:
    return loop.run(config, trainer, iterator, checkpointer, writer, screen, job.Job(**job_fields))
  finally:
    writer.close()
    checkpointer.close()


def main():
  """`python loop_fakes.py DIRECTORY STEPS CHECKPOINT_PERIOD SECONDS_A_STEP`: a process to send signals to."""
  directory, steps, period, seconds = sys.argv[1:]
  if 'FAKE_PROCESS' in os.environ:  # One of two processes that share a mesh.
    address, index = os.environ['FAKE_PROCESS'].split(',')
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(address, num_processes=2, process_id=int(index))
  config = job.LoopConfig(int(steps), log_period=1, eval_period=0, checkpoint_period=int(period))
  trainer = FakeTrainer(devices=jax.device_count(), step_seconds=float(seconds))
  outcome = train(directory, config, trainer=trainer, resume_command='python -m again --please')
  if jax.process_count() == 1:
    np.savez(pathlib.Path(directory) / f'final_{outcome.step}.npz', **jax.device_get(outcome.state.params))
  sys.stdout.flush()
  os._exit(outcome.exit_code)


if __name__ == '__main__':
  main()
