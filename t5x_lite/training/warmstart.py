"""Starting from a checkpoint that another configuration wrote: T5X's fine-tuning, and a run that is changed midway."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.training import checkpoints
from t5x_lite.training.checkpoints import Checkpointer, Restored
from t5x_lite.training.job import BatchIterator
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import Trainer


def warm_start(trainer: Trainer, path: str | pathlib.Path, seed: int) -> tuple[TrainState, str]:
  """The state of a checkpoint as the beginning of a new run.

  As in T5X, the step goes on from the checkpoint's (so that the schedule does too), and so does the optimiser's state,
  if the optimiser is the same. A new optimiser starts afresh, with its schedule at the checkpoint's step. Data and
  dropout are the new run's.

  Args:
    trainer: of the new run.
    path: a run's folder (its newest good checkpoint is taken) or the folder of one step.
    seed: of the new run.

  Returns:
    The state, and a line that says what was taken.

  Raises:
    UsageError: there is no good checkpoint, or its parameters are not those of this model.
  """
  from t5x_lite.training import orbax_store

  folder = checkpoints.locate(path)
  fresh = trainer.init(seed)
  if _same_arrays(folder, trainer.abstract_state):
    state = orbax_store.read_arrays(folder, trainer.abstract_state)
    return state.replace(rng=fresh.rng), f'starting from {folder}, optimiser state included'
  params = checkpoints.restore_params(folder, trainer.abstract_state.params)
  abstract_step = {'step': trainer.abstract_state.step}
  step = orbax_store.read_arrays(folder, abstract_step, partial=True)['step']
  opt_state = at_step(fresh.opt_state, step)
  state = fresh.replace(params=params, step=step, opt_state=opt_state)
  return state, f'starting from the parameters in {folder}; the optimiser is another one and starts afresh'


def _same_arrays(folder: pathlib.Path, abstract_state: Any) -> bool:
  from t5x_lite.training import orbax_store

  stored, wanted = orbax_store.read_shapes(folder), tree.named_leaves(abstract_state)
  return {name: leaf.shape for name, leaf in stored.items()} == {name: leaf.shape for name, leaf in wanted.items()}


def at_step(opt_state: Any, step: Any) -> Any:
  """A fresh optimiser state whose learning-rate schedules stand at `step`; moments and their counts stay fresh."""

  def of_schedule(path: Any, _: Any) -> bool:
    return getattr(path[-1], 'tuple_name', None) == 'ScaleByScheduleState'

  changed = optax.tree.set(opt_state, of_schedule, count=np.int32(step))
  # An array of its own for each: the training step donates all of them.
  return jax.tree.map(lambda new, old: old if new is old else jax.device_put(new, old.sharding), changed, opt_state)


class TolerantCheckpointer(Checkpointer):
  """Restores what fits where the user has allowed the configuration to change: an optimiser that is another one starts
  afresh. Parameters that are others are refused as ever.

  Args:
    directory: of the run.
    config: which checkpoints are kept.
    trainer: of the changed run.
    seed: of the run.
    note: where to say what was left out.
  """

  def __init__(
    self,
    directory: str,
    config: checkpoints.CheckpointConfig,
    trainer: Trainer,
    seed: int,
    note: Callable[[str], None],
  ):
    super().__init__(directory, keep=config.keep, keep_best=config.keep_best)
    self._trainer, self._seed, self._note = trainer, seed, note

  def restore(self, abstract_state: Any) -> Restored | None:
    """As `Checkpointer.restore`."""
    step = self.latest_step()
    if step is None:
      return None
    folder = checkpoints.folder_of(self.directory, step)
    if _same_arrays(folder, abstract_state):
      return super().restore(abstract_state)
    state, told = warm_start(self._trainer, folder, self._seed)
    self._note(told)
    return checkpoints.read_beside(folder, state, step)


class TolerantIterator:
  """A data iterator that starts from the beginning where the position is that of other data."""

  def __init__(self, iterator: BatchIterator, note: Callable[[str], None]):
    self._iterator, self._note = iterator, note

  def __next__(self) -> Any:
    return next(self._iterator)

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from a position if it is one of these data."""
    try:
      self._iterator.set_state(state)
    except UsageError as error:
      self._note(f'{error}; the new stream starts from its beginning')

  def __getattr__(self, name: str) -> Any:
    return getattr(self._iterator, name)
