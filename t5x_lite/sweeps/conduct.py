"""Runs the arms of a plan, several at once, and keeps the table of outcomes up to date.

What is done is known from the notes of the supervisors alone (`supervise`), so that a sweep may be killed at any
moment: begun again, it takes over the runs that go on, and judges by the notes those that have ended.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from t5x_lite.core import errors
from t5x_lite.sweeps import ended, evaluation_sets, outcomes, supervise
from t5x_lite.sweeps.ended import Run
from t5x_lite.sweeps.local import Engine, Handle
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.plan import Plan
from t5x_lite.sweeps.spec import Arm

JOBS, ARM_FILE = 'jobs', 'arm.gin'

_SHORTEST, _LONGEST = 0.005, 0.25  # seconds between two looks
_PRUNE_SECONDS = 1.0  # between two looks at evaluations


def runs(plan: Plan, folder: pathlib.Path) -> list[Run]:
  """All runs, seed by seed, so that the first ones that have ended make pairs."""
  return [
    Run(
      arm,
      seed,
      folder / outcomes.ARMS / arm.arm.name / str(seed),
      folder / JOBS / arm.arm.name / str(seed),
    )
    for seed in plan.sweep.seeds
    for arm in plan.arms
  ]


def prepare(plan: Plan, folder: pathlib.Path) -> None:
  """Writes the gin file of each arm."""
  for arm in plan.arms:
    write(folder / outcomes.ARMS / arm.arm.name / ARM_FILE, arm.text)


def _commands(
  plan: Plan, folder: pathlib.Path, run: Run, search_paths: Sequence[str]
) -> Iterator[dict[str, str | list[str]]]:
  """What a run has to do: train, and then its evaluations."""
  sweep = plan.sweep
  arm = folder / outcomes.ARMS / run.planned.arm.name / ARM_FILE
  argv = [*(sweep.command or (sys.executable, '-m', 't5x_lite.train')), f'--gin_file={arm}']
  argv += [f'--gin.{sweep.seed_binding}={run.seed}', f'--gin.MODEL_DIR={run.model_dir}']
  yield {'name': ended.TRAIN, 'argv': argv}
  for name in sweep.evaluations:
    own = sweep.evaluation(name)
    argv = [sys.executable, '-m', 't5x_lite.evaluate', f'--checkpoint={run.model_dir}']
    argv += [f'--output={run.model_dir / ended.EVALUATIONS / name}']
    argv += [f'--gin_search_paths={",".join(search_paths)}'] if search_paths else []
    argv += [f'--gin_file={file}' for file in own.files] + [f'--gin.{binding}' for binding in own.bindings]
    yield {'name': name, 'argv': argv}


def write(path: pathlib.Path, text: str) -> None:
  """Writes a file, whole or not at all; its folder is made."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)


@dataclasses.dataclass(frozen=True)
class Hooks:
  """What is asked and told while a sweep goes on.

  Attributes:
    tell: takes a line on what happens.
    more: the outcomes so far -> the plan with another arm, prepared; None if there is none to add.
    arm_ended: an arm all of whose runs have ended, their outcomes, and the first metric at each evaluation of the run
      of the first seed, by step.
    prunes: the first metric at each evaluation of a run -> whether it is to be ended.
  """

  tell: Callable[[str], None] = print
  more: Callable[[Sequence[Outcome]], Plan | None] = lambda ended: None
  arm_ended: Callable[[Arm, Sequence[Outcome], Mapping[int, float]], None] = lambda arm, ended, steps: None
  prunes: Callable[[Mapping[int, float]], bool] = lambda steps: False


def conduct(
  plan: Plan,
  folder: pathlib.Path,
  engine: Engine,
  parallel: int,
  hooks: Hooks,
  *,
  again: bool = False,
  search_paths: Sequence[str] = (),
) -> list[Outcome]:
  """Runs what has no outcome yet, and returns all outcomes, in the order of arms and seeds.

  Args:
    plan: whose `prepare` has been called.
    folder: of the sweep.
    engine: starts runs.
    parallel: how many at once.
    hooks: what is asked and told meanwhile.
    again: whether runs that have failed are begun again.
    search_paths: folders of gin files, for the evaluations.

  Raises:
    UsageError: each arm has ended a run, and none knows some metric. Runs that go on are stopped.
  """
  conductor = _Conductor(plan, folder, engine, hooks, search_paths)
  if again:
    conductor.forget_failures()
  try:
    conductor.run(parallel)
  except BaseException:
    conductor.stop()
    raise
  return conductor.written


@dataclasses.dataclass
class _Going:
  """A run that goes on, how many attempts had been noted before, and the step at which it was told to end."""

  run: Run
  handle: Handle
  noted: int
  pruned: int | None = None


class _Conductor:
  """The state of a sweep."""

  def __init__(self, plan: Plan, folder: pathlib.Path, engine: Engine, hooks: Hooks, search_paths: Sequence[str]):
    self._plan, self._folder, self._engine, self._hooks = plan, folder, engine, hooks
    self._search_paths = search_paths
    self._runs = runs(plan, folder)
    self._found: dict[ended.Key, Outcome] = {}
    self._orders: dict[ended.Key, str | None] = {}
    self._waiting: collections.deque[Run] = collections.deque()
    self._going: list[_Going] = []
    self._looked = 0.0
    self.written: list[Outcome] = []

  def forget_failures(self) -> None:
    """Has runs that have failed be begun again, but for what was pruned; what they have done and saved stays."""
    for run in self._runs:
      outcome = ended.judge(run, self._plan)
      failed = outcome is not None and outcome.status == outcomes.FAILED and not outcome.note.startswith(ended.PRUNED)
      if failed and self._engine.find(run.job) is None:
        supervise.note(run.job, {'codes': {}, 'seconds': 0.0, 'stopped': True, ended.FORGIVEN: True})

  def run(self, parallel: int) -> None:
    """Until all runs have an outcome."""
    self._look_around(self._runs)
    pause = _SHORTEST
    while True:
      while len(self._going) < parallel and (self._waiting or self._add_arm()):
        self._start(self._waiting.popleft())
      if not self._going:
        return
      over = [going for going in self._going if going.handle.ended()]
      for going in over:
        self._going.remove(going)
        if not self._settle(going):
          self._waiting.appendleft(going.run)
      if over:
        self._write()
        self._check_metrics()
        for name in dict.fromkeys(going.run.planned.arm.name for going in over):
          self._tell_of_arm(name)
      self._prune()
      pause = _SHORTEST if over else min(1.2 * pause, _LONGEST)
      time.sleep(pause)

  def _look_around(self, among: Sequence[Run]) -> None:
    """Finds out which runs are done, which go on, and which wait."""
    for run in among:
      noted = len(supervise.attempts(run.job))
      handle = self._engine.find(run.job)
      outcome = ended.judge(run, self._plan) if handle is None else None
      if handle is not None:
        self._hooks.tell(f'{_name(run)}: goes on, begun earlier')
        self._going.append(_Going(run, handle, noted))
      elif outcome is not None:
        self._take(run, outcome)
      else:
        self._waiting.append(run)
    self._write()
    self._check_metrics()
    for name in dict.fromkeys(run.planned.arm.name for run in among):
      self._tell_of_arm(name)

  def _add_arm(self) -> bool:
    """Asks for another arm; returns whether there is one with runs that wait."""
    plan = self._hooks.more(self.written)
    if plan is None:
      return False
    known = {run.key for run in self._runs}
    self._plan, self._runs = plan, runs(plan, self._folder)
    self._look_around([run for run in self._runs if run.key not in known])
    return bool(self._waiting)

  def _start(self, run: Run) -> None:
    # Written anew each time: the folder may have moved, and the command or a search path changed.
    commands = list(_commands(self._plan, self._folder, run, self._search_paths))
    write(run.job / supervise.JOB, json.dumps({'commands': commands}, indent=2))
    noted = len(supervise.attempts(run.job))
    self._going.append(_Going(run, self._engine.start(run.job), noted))

  def _settle(self, going: _Going) -> bool:
    """Judges a run that has ended; returns whether it is done with."""
    run = going.run
    if going.pruned is not None:
      supervise.note(run.job, {'codes': {}, 'seconds': 0.0, 'stopped': True, ended.PRUNED: going.pruned})
    elif len(supervise.attempts(run.job)) == going.noted:  # Its supervisor was killed, or never came to start it.
      supervise.note(run.job, {'codes': {}, 'seconds': 0.0, 'stopped': False})
    outcome = ended.judge(run, self._plan)
    if outcome is None:
      ended_how = 'stopped' if supervise.attempts(run.job)[-1]['stopped'] else 'died'
      self._hooks.tell(f'{_name(run)}: {ended_how}; begun again, and goes on from its checkpoint')
      return False
    self._take(run, outcome)
    told = ', '.join(f'{name} {value:.4g}' for name, value in outcome.metrics.items())
    note = f': {outcome.note}' if outcome.note else ''
    count = f'{len(self._found)}/{len(self._runs)}'
    self._hooks.tell(f'{count}  {_name(run)}: {outcome.status}{f", {told}" if told else ""}{note}')
    return True

  def _take(self, run: Run, outcome: Outcome) -> None:
    self._found[run.key] = outcome
    self._orders[run.key] = ended.order(run)

  def _write(self) -> None:
    """The outcomes so far, in the order of arms and seeds."""
    found = ended.fair(self._plan, self._orders, self._found)
    order = [(arm.arm.name, seed) for arm in self._plan.arms for seed in self._plan.sweep.seeds]
    self.written = [found[key] for key in order if key in found]
    outcomes.write(self._folder, self.written)

  def _check_metrics(self) -> None:
    """Raises UsageError for a metric that no arm knows, once each has ended a run: misspelt names are told early."""
    complete = [each for each in self.written if each.status == outcomes.COMPLETE]
    all_ended = {each.arm for each in self.written} == {planned.arm.name for planned in self._plan.arms}
    for metric in self._plan.sweep.metrics if complete and all_ended else ():
      if not any(metric in each.metrics or metric in each.not_finite for each in complete):
        first = complete[0]
        raise errors.UsageError(f'metric {metric!r}: {first.arm} seed {first.seed} is complete and has {first.note}')

  def _tell_of_arm(self, name: str) -> None:
    """Says that an arm has ended, if all its runs have."""
    own = [outcome for outcome in self.written if outcome.arm == name]
    if len(own) == len(self._plan.sweep.seeds):
      first = next(run for run in self._runs if run.planned.arm.name == name)
      self._hooks.arm_ended(first.planned.arm, own, self._steps(first))

  def _steps(self, run: Run) -> dict[int, float]:
    """The first metric at each evaluation of a run so far; none where it comes from elsewhere."""
    source, task, metric = evaluation_sets.source_of(self._plan.sweep, self._plan.sweep.metrics[0])
    if source:
      return {}
    return {
      int(row['step']): float(row[metric])
      for row in ended.rows(run.model_dir / ended.METRICS)
      if row.get('task') == task and isinstance(row.get(metric), int | float)
    }

  def _prune(self) -> None:
    """Has runs end that look bad, if that is asked for."""
    if self._plan.sweep.pruner is None or time.monotonic() < self._looked + _PRUNE_SECONDS:
      return
    self._looked = time.monotonic()
    for going in self._going:
      steps = self._steps(going.run) if going.pruned is None else {}
      if steps and self._hooks.prunes(steps):
        going.pruned = max(steps)
        going.handle.stop()

  def stop(self) -> None:
    """Has all runs save and stop, and waits for them; a second Ctrl-C ends them at once."""
    if not self._going:
      return
    self._hooks.tell(f'stopping {len(self._going)} runs, which save where they are; Ctrl-C again ends them at once')
    try:
      for going in self._going:
        going.handle.stop()
      while any(not going.handle.ended() for going in self._going):
        time.sleep(_SHORTEST)
    except BaseException:
      for going in self._going:
        going.handle.stop(at_once=True)
      raise


def _name(run: Run) -> str:
  return f'{run.planned.arm.name} seed {run.seed}'
