"""The training loop: steps, metrics, evaluation, checkpoints, and how a run ends.

The order at a step is: train; log; evaluate and predict; save; stop if asked to. So a checkpoint of step n belongs to a
run that has logged and evaluated step n, and the run resumed from it does next what the uninterrupted one did next.
Evaluation sees the parameters alone and changes nothing.

Metrics are fetched two steps late, so that the device always has its next step queued. Before anything that must know
whether the state is good (evaluation, saving), the loop catches up with the device.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from t5x_lite.core import errors
from t5x_lite.training import checkpoints, flops, integrity, processes, samples, timing
from t5x_lite.training.checkpoints import Checkpointer
from t5x_lite.training.console import Console
from t5x_lite.training.job import BatchIterator, Job, LoopConfig, Outcome, Status, Trainer, describe
from t5x_lite.training.monitor import DivergenceMonitor, ImprovementTracker, TrainingDiverged
from t5x_lite.training.signals import StopRequest
from t5x_lite.training.time_limit import TimeLimit
from t5x_lite.training.timing import Timing
from t5x_lite.training.window import Window, Workload, count_positions
from t5x_lite.training.writers import TRAIN, MetricWriter

_IN_FLIGHT = 2
_COUNTS = ('examples', 'tokens', 'truncated', 'dropped')
LOSS = 'loss'


def run(
  config: LoopConfig,
  trainer: Trainer,
  iterator: BatchIterator,
  checkpointer: Checkpointer,
  writer: MetricWriter,
  console: Console,
  job: Job,
) -> Outcome:
  """Trains to `config.total_steps`, from the newest good checkpoint or from `job.init()`. All processes must call it.

  Raises:
    TrainingDiverged: the message names the last good checkpoint; no bad state was saved.
    UsageError: checkpoints that are damaged or of another architecture, data that end too soon, a full disk.
  """
  finished = _already_finished(config, checkpointer)
  if finished is not None:
    console.note(f'the run in {checkpointer.directory} has finished ({finished} steps); nothing is left to do')
    return Outcome(Status.ALREADY_FINISHED, finished)
  loop = _Loop(config, trainer, iterator, checkpointer, writer, console, job)
  try:
    return loop.run()
  except BaseException:
    with contextlib.suppress(Exception):  # A save under way is worth finishing whatever happened.
      checkpointer.wait()
    raise
  finally:
    loop.stop_profile()  # of a run that ends before the last step of its trace
    console.stop()


def _already_finished(config: LoopConfig, checkpointer: Checkpointer) -> int | None:
  step = checkpointer.latest_step()
  if step is None or step >= config.total_steps:
    return step
  tracker = ImprovementTracker(config.early_stopping)
  progress = checkpointer.read_progress()
  if progress:
    tracker.set_state(progress['improvement'])
    if TimeLimit(config.max_seconds).exceeded_by(progress.get('seconds', 0.0)):
      return step
  return step if tracker.exhausted else None


class _Loop:
  """One run of the loop; its attributes are what changes from step to step."""

  def __init__(
    self,
    config: LoopConfig,
    trainer: Trainer,
    iterator: BatchIterator,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    console: Console,
    job: Job,
  ):
    self._config, self._trainer, self._iterator, self._job = config, trainer, iterator, job
    self._checkpointer, self._writer, self._console = checkpointer, writer, console
    self._monitor = DivergenceMonitor(config.divergence)
    self._improvement = ImprovementTracker(config.early_stopping)
    self._limit = TimeLimit(config.max_seconds)
    workload = Workload(count_positions(trainer.batch_spec), job.flops_per_step, trainer.mesh.size)
    self._window = Window(workload)
    self._timing = Timing(self._window, job.watch, job.profile, trainer.mesh)
    self._pending: collections.deque[tuple[int, Mapping[str, jax.Array]]] = collections.deque()
    self._read: dict[int, dict[str, float]] = {}  # what had been read by the steps that are to be logged
    self._eval_metrics: Mapping[str, Mapping[str, float]] = {}
    self._save_is_owed = False
    self._started = time.perf_counter()

  def run(self) -> Outcome:
    resumed = self._begin()
    self._console.start(self._first_step - 1, self._config.total_steps)
    if self._config.eval_at_start and not resumed:
      self._measure(self._first_step - 1)
    with StopRequest() as stop:
      status = None
      for step in range(self._first_step, self._config.total_steps + 1):
        self._train(step)
        status = self._after_step(step, stopping=stop.reached(step))
        if status is not None:
          break
      assert status is not None
      self._checkpointer.wait()
      self._console.stop()
    outcome = Outcome(status, step, self._state, self._eval_metrics)
    if status is Status.INTERRUPTED:
      outcome = dataclasses.replace(outcome, signal=stop.received)
    why = self._improvement.describe(self._config.best_by) if status is Status.STOPPED_EARLY else ''
    seconds = time.perf_counter() - self._started
    for line in describe(outcome, why, seconds, self._last_checkpoint(), self._job.resume_command):
      self._console.note(line)
    return outcome

  def _begin(self) -> bool:
    """Restores or initialises the state, while other threads compile the step and make the first batch.

    Returns:
      Whether the run goes on from a checkpoint of its own.
    """
    restored = self._checkpointer.restore(self._trainer.abstract_state)
    if restored is not None:
      self._iterator.set_state(restored.data_state)
    self._console.note('compiling the training step ...')
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
      first_batch = pool.submit(next, self._iterator, None)
      compiled = pool.submit(self._trainer.compile)
      self._state = self._job.init() if restored is None else restored.state
      compiled.result()
      self._batch = first_batch.result()
    done = int(self._state.step)
    if restored is not None:
      if restored.progress:
        self._set_progress(restored.progress)
      self._console.note(f'resuming after step {done} from {self._checkpointer.directory}')
    if done >= self._config.total_steps:
      raise errors.UsageError(
        f'total_steps={self._config.total_steps}, but training starts from step {done}: expected more steps than that '
        '(steps are counted from 0 whatever a run starts from)'
      )
    no_profile = self._timing.resumed(done)
    if no_profile is not None:
      self._console.note(no_profile)
    self._job.on_start()
    resumed = restored is not None
    self._writer.start(done if resumed else done - 1)  # A run cut off before its first checkpoint leaves nothing.
    self._first_step = done + 1
    return resumed

  def _train(self, step: int) -> None:
    """Queues a step on the device, and takes in the metrics of those that it should be done with."""
    if self._timing.starts_profile(step):
      self._catch_up()
      self._timing.start_profile()
    with self._timing.waiting(step, timing.DATA):
      batch = self._batch if step == self._first_step else next(self._iterator, None)
    if batch is None:
      raise errors.UsageError(f'the training data ended after {step - 1} of {self._config.total_steps} steps')
    with self._timing.dispatch(step, self._pending[-1][1] if self._pending else None):
      self._state, metrics = self._trainer.train_step(self._state, self._trainer.shard_batch(batch))
    self._pending.append((step, metrics))
    if self._logs(step):  # now: when the metrics come, later batches have been taken too
      with self._timing.waiting(step, timing.DEVICE):  # several processes wait for each other
        self._read[step] = _data(self._iterator)
    if step == self._first_step:
      self._catch_up()
      seconds = time.perf_counter() - self._started
      self._console.note(f'first step done, {seconds:.1f} s after start-up')
      self._window.start_clock(flops.peak_flops(self._trainer.mesh.devices.flat[0]))
      self._started = time.perf_counter()
      self._limit.start()
      self._timing.first_step(seconds, self._config.stall_seconds, self._config.pause_seconds)
    while len(self._pending) > _IN_FLIGHT:
      self._take_in(*self._pending.popleft())
    self._profile_to(step)

  def _profile_to(self, step: int) -> None:
    if self._timing.ends_profile(step):
      self._catch_up()
      self.stop_profile()

  def stop_profile(self) -> None:
    """Writes the trace, if one is being made."""
    told = self._timing.stop_profile()
    if told is not None:
      self._console.note(told)

  def _catch_up(self) -> None:
    while self._pending:
      self._take_in(*self._pending.popleft())

  def _take_in(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Waits for a step's metrics, judges them, and logs if a period ends there."""
    with self._timing.waiting(step, timing.DEVICE):
      values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
    try:
      self._monitor.update(step, values)
    except TrainingDiverged as error:
      raise self._diverged(error) from None
    self._window.add(values)
    self._console.step(step, values['loss'])
    if self._logs(step):
      steps = self._window.timed_steps
      row = {'split': TRAIN, 'step': step, **self._window.take(), **self._read.pop(step)}
      self._writer.write(row)
      self._console.train(row, self._eta(step))
      self._timing.judge(row, steps)

  def _logs(self, step: int) -> bool:
    """Whether a period of the log ends at a step."""
    return step == self._config.total_steps or _due(step, self._config.log_period)

  def _eta(self, step: int) -> float | None:
    """Seconds to the end, at the average pace of this process, evaluations and all."""
    done = step - self._first_step
    left = self._config.total_steps - step
    return (time.perf_counter() - self._started) / done * left if done else None

  def _after_step(self, step: int, *, stopping: bool) -> Status | None:
    """Evaluates and saves where it is time to; returns how the run ends, if it ends here."""
    last = step == self._config.total_steps
    out_of_time = not last and not stopping and self._limit.reached
    evaluating = last or out_of_time or _due(step, self._config.eval_period)
    saving = last or _due(step, self._config.checkpoint_period) or self._save_is_owed
    if not (evaluating or saving or stopping):
      return None
    self._catch_up()
    with self._timing.not_training(), self._limit.paused():
      loss = self._evaluate(step) if evaluating else None
      status = None
      if last:
        status = Status.FINISHED
      elif out_of_time:
        status = Status.OUT_OF_TIME
      elif self._improvement.exhausted:
        status = Status.STOPPED_EARLY
      elif stopping:
        status = Status.INTERRUPTED
      if saving or status is not None:
        self._save(step, loss, status)
    return status

  def _evaluate(self, step: int) -> float | None:
    """Evaluates, predicts and reports both. Returns what decides on best and early stopping: less is better."""
    self._measure(step)
    for task, predicted in self._job.predict(self._state.params).items():
      samples.report(task, step, predicted, self._writer, self._console)
    cost = self._cost()
    if cost is not None:
      self._improvement.update(step, cost)
    return cost

  def _cost(self) -> float | None:
    """The tasks' mean of the metric that tells better from worse, turned so that less is better."""
    best_by = self._config.best_by
    values = [metrics[best_by] for metrics in self._eval_metrics.values() if best_by in metrics]
    if not values:
      if self._eval_metrics:
        known = {name for metrics in self._eval_metrics.values() for name in metrics}
        raise errors.unknown('metric of evaluations (best_by)', best_by, sorted(known))
      return None
    mean = sum(values) / len(values)
    return mean if best_by == LOSS else -mean

  def _measure(self, step: int) -> None:
    """Evaluates and reports it."""
    self._eval_metrics = self._job.evaluate(self._state.params)
    for task, metrics in self._eval_metrics.items():
      row = {'split': self._job.eval_split, 'task': task, 'step': step, **metrics}
      self._writer.write(row)
      self._console.evaluation(row)

  def _save(self, step: int, eval_loss: float | None, status: Status | None) -> None:
    """Saves; but if the loss is out of its usual range, at the first step at which it no longer is, or at the end."""
    self._save_is_owed = self._monitor.suspicious and status in (None, Status.INTERRUPTED)
    if self._save_is_owed:
      return
    self._checkpointer.save(
      step,
      self._state,
      data_state=self._job.merge_data_states(processes.gather(self._iterator.get_state())),
      config=self._job.record,
      progress=self._get_progress() | {checkpoints.STOPPED_EARLY: status in (Status.STOPPED_EARLY, Status.OUT_OF_TIME)},
      metrics=None if eval_loss is None else {'loss': eval_loss},
    )

  def _get_progress(self) -> dict[str, Any]:
    lineage = {checkpoints.LINEAGE: dict(self._job.lineage)} if self._job.lineage else {}
    return lineage | {
      'monitor': self._monitor.get_state(),
      'improvement': self._improvement.get_state() | {'by': self._config.best_by},
      'window': self._window.get_state(),
      'seconds': self._limit.get_state(),
    }

  def _set_progress(self, progress: Mapping[str, Any]) -> None:
    self._monitor.set_state(progress['monitor'])
    if progress['improvement'].get('by', self._config.best_by) == self._config.best_by:  # else nothing to compare with
      self._improvement.set_state(progress['improvement'])
    self._window.set_state(progress['window'])
    self._limit.set_state(progress.get('seconds', 0.0))

  def _diverged(self, error: TrainingDiverged) -> TrainingDiverged:
    self._checkpointer.wait()
    folder = self._last_checkpoint()
    if folder is None:
      return TrainingDiverged(f'{error}; no checkpoint had been saved yet')
    return TrainingDiverged(f'{error}; the last good checkpoint, {folder}, is kept, and a restart begins there')

  def _last_checkpoint(self) -> pathlib.Path | None:
    step = self._checkpointer.latest_step()
    return None if step is None else integrity.step_folder(self._checkpointer.directory, step)


def _due(step: int, period: int) -> bool:
  return period > 0 and step % period == 0


def _data(iterator: BatchIterator) -> dict[str, float]:
  """What all processes have read so far.

  Of a mixture the share of each task, in examples and in tokens; of any task what was lost.
  """
  own = iterator.counts()
  totals = processes.add_up(np.stack([own[name] for name in _COUNTS])).tolist()
  counts = {
    name: dict(zip(iterator.task_names, total, strict=True)) for name, total in zip(_COUNTS, totals, strict=True)
  }
  row: dict[str, float] = {}
  for name, counted in (('share', 'examples'), ('token_share', 'tokens')):
    total = sum(counts[counted].values())
    if len(counts[counted]) > 1 and total:
      row |= {f'{name}/{task}': count / total for task, count in counts[counted].items()}
  for name in ('truncated', 'dropped'):
    row |= {f'{name}/{task}': count for task, count in counts[name].items() if count}
  return row
