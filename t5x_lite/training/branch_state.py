"""The state of a branch: a checkpoint's parameters, and of its optimiser and step what the branch keeps."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from t5x_lite.core import tree
from t5x_lite.training import architecture, checkpoints, warmstart
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import Trainer

_PARAMS, _OPTIMIZER = 'params/', 'opt_state/'


def other_optimizer(folder: pathlib.Path, abstract: Any) -> str | None:
  """What differs between the optimiser state of a checkpoint and that of a run, in words; None where nothing does.

  Numbers make no difference: of a schedule in the place of a fixed learning rate there is a count besides.

  Args:
    folder: of the checkpoint.
    abstract: the state of the run, tree of `jax.ShapeDtypeStruct`.

  Raises:
    UsageError: the parameters differ.
  """
  from t5x_lite.training import orbax_store

  stored, wanted = orbax_store.read_shapes(folder), tree.named_leaves(abstract)
  architecture.check(folder, _below(stored, _PARAMS), _below(wanted, _PARAMS))
  arrays = ({name: leaf for name, leaf in _below(each, _OPTIMIZER).items() if leaf.shape} for each in (stored, wanted))
  differing = architecture.differences(*arrays)
  if not differing:
    return None
  name, what = next(iter(differing.items()))
  more = f' and {len(differing) - 1} more' if len(differing) > 1 else ''
  return f'{name} {what}{more}'


def restore(trainer: Trainer, folder: pathlib.Path, seed: int, *, keep_optimizer: bool, restart: bool) -> TrainState:
  """The state that a branch begins with. Dropout is that of the run's own seed.

  Args:
    trainer: of the branch.
    folder: the checkpoint, whose parameters have been compared (`other_optimizer`).
    seed: of the branch.
    keep_optimizer: whether the optimiser's state is the checkpoint's; else it is fresh.
    restart: whether step and schedules are at 0; else they go on from the checkpoint's step.
  """
  from t5x_lite.training import orbax_store

  fresh = trainer.init(seed)
  if keep_optimizer:
    leaves = tree.named_leaves(trainer.abstract_state)
    stored = orbax_store.read_named(folder, {name: leaf.sharding for name, leaf in leaves.items()}, fresh.step.sharding)
    state = jax.tree_util.tree_map_with_path(lambda path, leaf: stored.get(tree.path_name(path), leaf), fresh)
    step = fresh.step if restart else state.step
    return state.replace(step=step, rng=fresh.rng, opt_state=warmstart.at_step(state.opt_state, step))
  params = checkpoints.restore_params(folder, trainer.abstract_state.params)
  if restart:
    return fresh.replace(params=params)
  step = orbax_store.read_arrays(folder, {'step': trainer.abstract_state.step}, partial=True)['step']
  return fresh.replace(params=params, step=step, opt_state=warmstart.at_step(fresh.opt_state, step))


def _below(leaves: dict[str, Any], prefix: str) -> dict[str, Any]:
  return {name: leaf for name, leaf in leaves.items() if name.startswith(prefix)}
