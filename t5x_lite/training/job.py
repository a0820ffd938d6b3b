"""What a run is made of: how long, how often, with what, and how it ended. The loop itself is in `loop`."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.training import memory
from t5x_lite.training.console import duration
from t5x_lite.training.monitor import DivergenceRule, EarlyStopping
from t5x_lite.training.profiling import Profile
from t5x_lite.training.samples import Sample
from t5x_lite.training.watch import Watch


class Trainer(Protocol):
  """The jitted steps, as `steps.Trainer` has them."""

  abstract_state: Any
  batch_spec: dict[str, jax.ShapeDtypeStruct]
  mesh: jax.sharding.Mesh

  def compile(self) -> Any:
    """Compiles the training step."""

  def train_step(self, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
    """One update; donates the state."""

  def shard_batch(self, host_rows: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays of this process's rows."""


class BatchIterator(Protocol):
  """The training data, as `data.pipeline` builds them."""

  def __next__(self) -> Mapping[str, np.ndarray]:
    """The next batch: the rows of this process."""

  def get_state(self) -> dict[str, Any]:
    """Position after the last batch returned."""

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from a position."""

  @property
  def task_names(self) -> Sequence[str]:
    """Of the tasks that are read."""

  def counts(self) -> Mapping[str, np.ndarray]:
    """What this process adds to the `examples`, `tokens`, `truncated` and `dropped` so far, int64 `[tasks]`."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """How long a run is and what happens how often.

  Periods are in steps; 0 means only at the end of the run.

  Attributes:
    total_steps: where the run ends, counted from step 0 whatever it started from (T5X's TRAIN_STEPS).
    log_period: of rows on training.
    eval_period: of evaluations and sample predictions.
    eval_at_start: whether a new run is evaluated before its first step too, without predictions, so that the log says
      what training has gained. It costs one pass over the evaluation's batches before that step.
    checkpoint_period: of checkpoints. The best is chosen by evaluation loss, among those at a step with an evaluation.
    divergence: when to give up.
    early_stopping: when to be content.
    best_by: the metric of evaluations that decides on the best checkpoint and on early stopping, as the mean over the
      tasks that have it: 'loss', of which less is better, or any other, such as 'score', of which more is.
    stall_seconds: the run hangs, and is ended with exit code 4, if a step makes no progress for so long, or for ten
      times as long as the first one took. 0: never.
    pause_seconds: the same of what is no step: start-up until the first step is done, a batch of an evaluation, the
      predictions for a task, a save. 0: never.
  """

  total_steps: int
  log_period: int = 20
  eval_period: int = 1000
  checkpoint_period: int = 1000
  eval_at_start: bool = True
  divergence: DivergenceRule = dataclasses.field(default_factory=DivergenceRule)
  early_stopping: EarlyStopping = dataclasses.field(default_factory=EarlyStopping)
  best_by: str = 'loss'
  stall_seconds: int = 1800
  pause_seconds: int = 7200

  def __post_init__(self):
    for field in ('total_steps', 'log_period', 'eval_period', 'checkpoint_period'):
      value, least = getattr(self, field), 1 if field == 'total_steps' else 0
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise errors.UsageError(f'{field}={value!r}: expected a whole number of steps >= {least}')
    for field in ('stall_seconds', 'pause_seconds'):
      if getattr(self, field) < 0:
        raise errors.UsageError(f'{field}={getattr(self, field)}: expected a number of seconds >= 0')


@dataclasses.dataclass(frozen=True)
class Job:
  """What the loop is given besides trainer and data.

  Attributes:
    init: the state that a run without checkpoints starts from.
    evaluate: parameters -> metrics by task, each with a `loss`; an empty mapping where there is nothing to evaluate.
    predict: parameters -> samples by task.
    merge_data_states: the states of all processes' iterators -> the one that is saved.
    record: the run's parameters, as saved with every checkpoint.
    resume_command: what to type to go on after an interruption.
    flops_per_step: analytic, forward and backward; None if unknown.
    eval_split: the split that `evaluate` reads, for the log.
    on_start: called once, when the state is there and before the first step.
    profile: the steps to trace; None: none.
    watch: is told where the loop is. The caller starts and closes it.
    lineage: of a branch, saved with every checkpoint: what it began with, and what that came from.
  """

  init: Callable[[], Any]
  evaluate: Callable[[Any], Mapping[str, Mapping[str, float]]] = lambda params: {}
  predict: Callable[[Any], Mapping[str, Sequence[Sample]]] = lambda params: {}
  merge_data_states: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda states: states[0]
  record: Mapping[str, str] = dataclasses.field(default_factory=dict)
  resume_command: str = 'run the same command again'
  flops_per_step: float | None = None
  eval_split: str = 'validation'
  on_start: Callable[[], None] = lambda: None
  profile: Profile | None = None
  watch: Watch = dataclasses.field(default_factory=Watch)
  lineage: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Status(enum.StrEnum):
  """How a run ended."""

  FINISHED = 'finished'
  ALREADY_FINISHED = 'already finished'
  STOPPED_EARLY = 'stopped early'
  INTERRUPTED = 'interrupted'


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended.

  Attributes:
    status: in one word.
    step: steps taken in all.
    state: the train state; None if the run had finished before.
    eval_metrics: of the last evaluation, by task; empty if there was none.
    signal: that interrupted it, if one did.
  """

  status: Status
  step: int
  state: Any = None
  eval_metrics: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  signal: signal.Signals | None = None

  @property
  def exit_code(self) -> int:
    """0, or 128 + n after signal n as in shells: a scheduler must not take an interrupted run for a complete one."""
    return 0 if self.signal is None else 128 + self.signal


def describe(
  outcome: Outcome, why: str, seconds: float, checkpoint: pathlib.Path | None, resume_command: str
) -> list[str]:
  """The last lines of a run: how it ended, how long it took, its peak memory, and where it is kept.

  Args:
    outcome: of the run.
    why: it ended before its last step, if it did so on its own.
    seconds: since its first step.
    checkpoint: its newest.
    resume_command: how to go on if it was interrupted.
  """
  saved = f'saved in {checkpoint}' if checkpoint else 'no checkpoint saved'
  if outcome.signal is not None:
    return [f'stopped by {outcome.signal.name} after step {outcome.step}; {saved}', f'to resume: {resume_command}']
  head = f'{outcome.status} after step {outcome.step}' + (f': {why}' if why else '')
  return [f'{head}; {saved}', f'took {duration(seconds)}; {memory.describe()}']
