"""The jitted steps: initialise, train, evaluate, on a mesh.

The steps are pure functions; `Trainer` places their state and compiles them once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from t5x_lite.core import batch as batch_lib
from t5x_lite.core.batch import Batch
from t5x_lite.metrics.sums import count_tokens
from t5x_lite.partitioning import fitting, offload, sharding
from t5x_lite.partitioning.rules import STANDARD_RULES, Rules
from t5x_lite.training.learner import Learner
from t5x_lite.training.state import TrainState

Metrics = dict[str, jax.Array]


def init_state(learner: Learner, batch_spec: Mapping[str, jax.ShapeDtypeStruct], seed: jax.Array) -> TrainState:
  """The state at step 0, parameters boxed with the logical names of their axes.

  Parameters and dropout have keys of their own, both split from the seed.
  """
  params_key, dropout_key = jax.random.split(jax.random.key(seed))
  boxed = learner.init(params_key, batch_lib.zeros(batch_spec))
  opt_state = learner.transformation.init(nn.meta.unbox(boxed))
  return TrainState(jnp.zeros((), jnp.int32), boxed, opt_state, jax.random.key_data(dropout_key))


def train_step(
  learner: Learner, state: TrainState, batch: Batch, param_shardings: Any = None, opt_shardings: Any = None
) -> tuple[TrainState, Metrics]:
  """One update. Metrics are float32 scalars over the global batch:

  `loss` (everything, per weighted target token), `loss_sum`, `z_loss_sum`, `nll_sum`, `correct_sum`, `weight_sum`,
  `tokens` (positions that are not padding), `grad_norm` (before clipping), `update_norm`, `param_norm`,
  `learning_rate`, `nonfinite` (1 where the loss or its gradient is not finite).

  Args:
    learner: model, loss and optimiser.
    state: before it.
    batch: global.
    param_shardings: of the parameters, if anything is sharded.
    opt_shardings: where the optimiser state is needed, if it waits elsewhere.
  """
  if opt_shardings is not None:
    state = state.replace(opt_state=jax.device_put(state.opt_state, opt_shardings))
  grads, objective, sums = learner.gradients(state.params, batch, state.dropout_key())
  if param_shardings is not None:
    # ZeRO 3 by statement, not by what the compiler finds: a gradient is in parts before anything reads it, so that the
    # sum over the mesh that made it can be a reduce-scatter.
    grads = jax.lax.with_sharding_constraint(grads, param_shardings)
  grad_norm = optax.tree.norm(grads)
  finite = jnp.isfinite(objective) & jnp.isfinite(grad_norm)
  updates, opt_state = learner.transformation.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  if learner.skip_nonfinite:
    params = jax.tree.map(functools.partial(jnp.where, finite), params, state.params)
    opt_state = _unless_skipped(finite, opt_state, state.opt_state)
  metrics = sums.named() | {
    'loss': sums.loss / jnp.where(sums.weight > 0, sums.weight, 1.0),
    'tokens': count_tokens(batch),
    'grad_norm': grad_norm,
    'update_norm': optax.tree.norm(updates),
    'param_norm': optax.tree.norm(params),
    'learning_rate': learner.learning_rate_at(state.step),
    'nonfinite': 1.0 - finite.astype(jnp.float32),
  }
  return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


def _unless_skipped(finite: jax.Array, new: Any, old: Any) -> Any:
  """The new optimiser state, or the old one where the step is skipped; but schedules count every step.

  The learning rate stays that of the step then, as the log has it; moments count the updates that they have seen.
  """

  def is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)

  def choose(new: Any, old: Any) -> Any:
    return new if is_schedule(new) else jnp.where(finite, new, old)

  return jax.tree.map(choose, new, old, is_leaf=is_schedule)


def eval_step(learner: Learner, params: Any, batch: Batch) -> Metrics:
  """The sums of a batch: `loss_sum`, `z_loss_sum`, `nll_sum`, `correct_sum`, `weight_sum`, `tokens`."""
  return learner.sums(params, batch).named() | {'tokens': count_tokens(batch)}


class Trainer:
  """The steps of a learner on a mesh, with every array placed.

  Attributes:
    abstract_state: the `TrainState` as `jax.ShapeDtypeStruct`s with shardings, what a checkpoint is restored into.
    state_shardings: the shardings alone.
    param_shardings: those of the parameters.
    batch_sharding: that of every array of a batch.
  """

  def __init__(
    self,
    learner: Learner,
    mesh: Mesh,
    batch_spec: Mapping[str, jax.ShapeDtypeStruct],
    rules: Rules = STANDARD_RULES,
    *,
    offload_optimizer: bool = False,
  ):
    """Places the state; compiles nothing yet.

    Args:
      learner: what to train.
      mesh: where.
      batch_spec: global shapes of the training batch.
      rules: logical axis -> mesh axes.
      offload_optimizer: whether the optimiser state stays in the host's memory between steps.

    Raises:
      UsageError: where the mesh does not divide batch, microbatches, parameters or activations, and says what fits;
        or where the devices cannot offload.
    """
    self.learner, self.mesh, self.rules, self.batch_spec = learner, mesh, tuple(rules), dict(batch_spec)
    self.global_batch = next(iter(self.batch_spec.values())).shape[0]
    self.batch_sharding = sharding.batch_sharding(mesh, self.rules)
    self._initial_state = functools.partial(init_state, learner, self.batch_spec)
    self.abstract_state = self._place_state()
    opt_shardings = None
    if offload_optimizer:
      offload.check(mesh)
      opt_state = self.abstract_state.opt_state
      opt_shardings = jax.tree.map(lambda leaf: leaf.sharding, opt_state)
      self.abstract_state = self.abstract_state.replace(opt_state=offload.to_host(opt_state))
    self.state_shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
    self.param_shardings = self.state_shardings.params
    everywhere = sharding.replicated(mesh)
    self._init = jax.jit(lambda seed: nn.meta.unbox(self._initial_state(seed)), out_shardings=self.state_shardings)
    self._train_step = jax.jit(
      functools.partial(train_step, learner, param_shardings=self.param_shardings, opt_shardings=opt_shardings),
      in_shardings=(self.state_shardings, self.batch_sharding),
      out_shardings=(self.state_shardings, everywhere),
      donate_argnums=0,
    )
    self._eval_step = jax.jit(
      functools.partial(eval_step, learner),
      in_shardings=(self.param_shardings, self.batch_sharding),
      out_shardings=everywhere,
    )
    self._compiled: jax.stages.Compiled | None = None

  def _place_state(self) -> TrainState:
    boxed, dimensions = fitting.trace(self._initial_state, np.uint32(0), mesh=self.mesh, rules=self.rules)
    self._check_fit([*fitting.of_parameters(boxed.params, self.rules), *dimensions])
    params = sharding.param_shardings(boxed.params, self.mesh, self.rules)
    state = nn.meta.unbox(boxed)
    everywhere = sharding.replicated(self.mesh)
    placed = TrainState(
      step=everywhere,
      params=params,
      opt_state=sharding.optimizer_shardings(state.opt_state, state.params, params, self.mesh),
      rng=everywhere,
    )
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, placed)

  def _check_fit(self, dimensions: list[fitting.Dimension]) -> None:
    microbatches, hint = self.learner.num_microbatches, ''
    rows, rest = divmod(self.global_batch, microbatches)
    if self.mesh.size > 1 and not rest:
      dimensions = [fitting.of_batch(rows, self.rules), *dimensions]
      hint = fitting.suggestion(dimensions, self.mesh)
    # The rows first: where an activation's do not divide, the batch's do not.
    sharding.check_batch(self.global_batch, self.mesh, self.rules, num_microbatches=microbatches, hint=hint)
    fitting.check(dimensions, self.mesh)

  def init(self, seed: int) -> TrainState:
    """The state at step 0, born sharded; the same values on every mesh."""
    with sharding.scope(self.mesh, self.rules):
      return self._init(np.uint32(seed % 2**32))

  def lower(self) -> jax.stages.Lowered:
    """The training step, traced and lowered for this mesh."""
    with sharding.scope(self.mesh, self.rules):
      return self._train_step.lower(self.abstract_state, self._abstract_batch())

  def lower_eval(self) -> jax.stages.Lowered:
    """The evaluation step on a batch of the training's shape, traced and lowered for this mesh."""
    with sharding.scope(self.mesh, self.rules):
      return self._eval_step.lower(self.abstract_state.params, self._abstract_batch())

  def _abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
    return {
      name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.batch_sharding)
      for name, leaf in self.batch_spec.items()
    }

  def compile(self) -> jax.stages.Compiled:
    """Compiles the training step ahead of time; `train_step` uses it from then on."""
    if self._compiled is None:
      self._compiled = self.lower().compile()
    return self._compiled

  def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """`train_step` above on a global batch. The state is donated: use the one returned."""
    return self.compile()(state, batch)

  def eval_step(self, params: Any, batch: Batch) -> Metrics:
    """`eval_step` above on a global batch, which may have another shape than the training batch."""
    with sharding.scope(self.mesh, self.rules):
      return self._eval_step(params, batch)

  def process_rows(self, global_batch: int | None = None) -> np.ndarray:
    """The rows that this process supplies; default: of a training batch."""
    return sharding.process_rows(self.mesh, self.rules, global_batch or self.global_batch)

  def shard_batch(self, host_rows: Mapping[str, np.ndarray], global_batch: int | None = None) -> dict[str, jax.Array]:
    """Global arrays of the rows of this process; default: of a training batch."""
    return sharding.shard_batch(host_rows, self.mesh, self.rules, global_batch or self.global_batch)
