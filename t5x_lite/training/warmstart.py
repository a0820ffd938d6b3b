"""Starting from a checkpoint that another configuration wrote: T5X's fine-tuning, and a run that is changed midway."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from t5x_lite.core import tree
from t5x_lite.core.errors import UsageError
from t5x_lite.training import adaptation, checkpoints, integrity
from t5x_lite.training.checkpoints import Checkpointer, Restored
from t5x_lite.training.job import BatchIterator
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import Trainer

# From a path, the abstract parameters of this run and its initialised ones by name, to parameters and to lines that say
# what was not taken as it is.
Restore = Callable[[str, Any, Mapping[str, jax.Array]], tuple[Any, list[str]]]


def warm_start(
  trainer: Trainer, path: str | pathlib.Path, seed: int, restore: Restore | None = None, *, restart: bool = False
) -> tuple[TrainState, str]:
  """The state of a checkpoint as the beginning of a new run.

  As in T5X, the step goes on from the checkpoint's (so that the schedule does too), and so does the optimiser's state,
  if the optimiser is the same. A new optimiser starts afresh, with its schedule at the checkpoint's step. Data and
  dropout are the new run's.

  Args:
    trainer: of the new run.
    path: a run's folder (its newest good checkpoint is taken) or the folder of one step; whatever `restore` reads.
    seed: of the new run.
    restore: reads parameters where they are no checkpoint of ours, which then are of step 0, and where they are not
      quite those of this model: heads, vocabulary. None: neither is accepted.
    restart: whether step and optimiser are those of a new run, and the parameters all that is taken.

  Returns:
    The state, and a line that says what was taken.

  Raises:
    UsageError: there is no good checkpoint, or its parameters are not those of this model.
  """
  from t5x_lite.training import orbax_store

  fresh = trainer.init(seed)
  base = adaptation.without_updates(trainer.abstract_state.params)
  fresh_base = tree.named_leaves(adaptation.without_updates(fresh.params))
  foreign = restore is not None and not integrity.holds_checkpoints(pathlib.Path(path).expanduser())
  if restore is not None and foreign:
    params, told = restore(str(path), base, fresh_base)
    params = adaptation.with_updates_of(params, fresh.params)
    said = '; '.join([f'starting from the parameters of {path}', *told])
    return fresh.replace(params=params), said
  folder = checkpoints.locate(path)
  if not restart and _same_arrays(folder, trainer.abstract_state):
    state = orbax_store.read_arrays(folder, trainer.abstract_state)
    return state.replace(rng=fresh.rng), f'starting from {folder}, optimiser state included'
  told = []
  if restore is None or _same_arrays(folder, {'params': trainer.abstract_state.params}, below='params/'):
    params = checkpoints.restore_params(folder, trainer.abstract_state.params)
  else:
    params, told = restore(str(folder), base, fresh_base)
    params = adaptation.with_updates_of(params, fresh.params)
  if restart:
    return fresh.replace(params=params), '; '.join([f'starting from the parameters in {folder} at step 0', *told])
  abstract_step = {'step': trainer.abstract_state.step}
  step = orbax_store.read_arrays(folder, abstract_step, partial=True)['step']
  opt_state = at_step(fresh.opt_state, step)
  state = fresh.replace(params=params, step=step, opt_state=opt_state)
  start = f'starting from the parameters in {folder}; the optimiser is another one and starts afresh'
  return state, '; '.join([start, *told])


def _same_arrays(folder: pathlib.Path, abstract: Any, below: str = '') -> bool:
  """Whether the arrays of a checkpoint, those whose names start with `below`, have the names and shapes of others."""
  from t5x_lite.training import orbax_store

  stored, wanted = orbax_store.read_shapes(folder), tree.named_leaves(abstract)
  there = {name: leaf.shape for name, leaf in stored.items() if name.startswith(below)}
  return there == {name: leaf.shape for name, leaf in wanted.items()}


def at_step(opt_state: Any, step: Any) -> Any:
  """A fresh optimiser state whose learning-rate schedules stand at `step`; moments and their counts stay fresh."""

  def of_schedule(path: Any, _: Any) -> bool:
    return getattr(path[-1], 'tuple_name', None) == 'ScaleByScheduleState'

  if not optax.tree.get_all_with_path(opt_state, 'count', of_schedule):  # the rate is a number
    return opt_state
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
