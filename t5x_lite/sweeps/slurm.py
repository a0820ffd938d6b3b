"""Runs of a sweep as jobs of a cluster, by submitit.

The folder of the sweep must be on a file system that the nodes share. A run's job is known by its id, kept in the
folder of the run, so that a sweep that is begun again waits for the jobs of the one before.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps import supervise
from t5x_lite.sweeps.local import Handle

_JOB_ID = 'slurm_job.txt'
_LOOK_SECONDS = 5.0  # Between two questions to the scheduler.


class Slurm:
  """Submits the supervisor of each run.

  Args:
    folder: of the sweep; logs of the jobs lie in its folder `slurm`.
    cluster: parameters of submitit's `AutoExecutor`, such as `timeout_min`; `cluster` is its own argument, by default
      'slurm'.

  Raises:
    UsageError: submitit is not installed, there is no such cluster, or it does not know a parameter.
  """

  def __init__(self, folder: pathlib.Path, cluster: Mapping[str, Any]):
    try:
      import submitit
    except ImportError as error:
      raise errors.UsageError("--engine=slurm needs submitit: pip install 't5x_lite[sweep]'") from error
    parameters = dict(cluster)
    name = parameters.pop('cluster', 'slurm')
    try:
      self._executor = submitit.AutoExecutor(folder=folder / 'slurm', cluster=name)
      self._executor.update_parameters(**parameters)
    except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
      raise errors.UsageError(f'--engine=slurm: {" ".join(str(error).split())}') from error
    self._logs, self._name = folder / 'slurm', name

  def start(self, folder: pathlib.Path) -> Handle:
    """See `local.Engine`."""
    self._executor.update_parameters(name=f'{folder.parent.name}-{folder.name}')  # the arm and the seed
    job = self._executor.submit(supervise.main, str(folder))
    (folder / _JOB_ID).write_text(job.job_id)
    return _Job(job)

  def find(self, folder: pathlib.Path) -> Handle | None:
    """See `local.Engine`."""
    path = folder / _JOB_ID
    if not path.exists() or self._name == 'debug':  # whose jobs end with the process that made them
      return None
    handle = _Job(self._job(path.read_text()))
    return None if handle.ended() else handle

  def _job(self, job_id: str) -> Any:
    if self._name == 'local':
      from submitit.local.local import LocalJob

      return LocalJob(self._logs, job_id)
    from submitit import SlurmJob

    return SlurmJob(self._logs, job_id)


class _Job:
  """A job of the cluster. Its supervisor notes how it ended; the scheduler says that it has."""

  def __init__(self, job: Any):
    self._job, self._looked, self._ended = job, 0.0, False

  def ended(self) -> bool:
    if not self._ended and time.monotonic() >= self._looked + _LOOK_SECONDS:
      self._looked = time.monotonic()
      self._ended = self._job.done(force_check=False)
    return self._ended

  def stop(self, *, at_once: bool = False) -> None:
    del at_once  # The scheduler sends SIGTERM first and SIGKILL later, as it is set up.
    self._job.cancel(check=False)
