"""A trace of some steps of a run, for TensorBoard (its profile plugin) and Perfetto."""

from __future__ import annotations

import contextlib
import pathlib
import re
from typing import Any

import jax

from t5x_lite.core import errors
from t5x_lite.training import processes

FOLDER = 'profile'
_STEPS = re.compile(r'(\d+):(\d+)')


class Profile:
  """Traces the steps from `first` to `last`, both included, in process 0: what all devices of its host do, and Python.

  Attributes:
    first: step, counted from 1.
    last: step, not before `first`.
  """

  def __init__(self, first: int, last: int, directory: str | pathlib.Path):
    self.first, self.last = first, last
    self._directory = pathlib.Path(directory) / FOLDER
    self._running = False

  def step(self, number: int) -> contextlib.AbstractContextManager[Any]:
    """Names what happens inside after a step."""
    if not self._running:
      return contextlib.nullcontext()
    return jax.profiler.StepTraceAnnotation('train', step_num=number)

  def start(self) -> None:
    """The trace begins."""
    if processes.is_primary():
      jax.profiler.start_trace(str(self._directory), create_perfetto_trace=False)
      self._running = True

  def stop(self) -> str | None:
    """Writes the trace; returns a line about it, None in the other processes or if there is none to stop."""
    if not self._running:
      return None
    self._running = False
    jax.profiler.stop_trace()
    traces = sorted(self._directory.glob('plugins/profile/*/*.trace.json.gz'))
    which = f'profile of the steps {self.first} to {self.last}: tensorboard --logdir={self._directory}'
    return f'{which}, or {traces[-1]} in ui.perfetto.dev' if traces else which


def parse(text: str | None, total_steps: int, directory: str | pathlib.Path) -> Profile | None:
  """The profile that `--profile_steps=FIRST:LAST` asks for; None for None.

  Args:
    text: the value of the flag.
    total_steps: of the run.
    directory: of the run.

  Raises:
    UsageError: it is no such pair, or beyond the end of the run.
  """
  if text is None:
    return None
  found = _STEPS.fullmatch(text.strip())
  if found is None:
    raise errors.UsageError(f'profile_steps={text}: expected FIRST:LAST, such as 10:13')
  first, last = int(found[1]), int(found[2])
  if not 1 <= first <= last:
    raise errors.UsageError(f'profile_steps={text}: expected 1 <= FIRST <= LAST; steps are counted from 1')
  if last > total_steps:
    raise errors.UsageError(f'profile_steps={text}: the run ends after step {total_steps}')
  return Profile(first, last, directory)
