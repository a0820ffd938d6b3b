"""Shards of a data set, written by parallel processes: each appears whole or not at all, and is written once.

A preparation that is killed, however it is killed, goes on where it was when it is started again: the finished shards
are there, and what the others were made of so far is thrown away. What belongs to the work lies in a folder `.progress`
beside the shards, which is gone in the end.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from t5x_lite.core import errors

_PROGRESS = '.progress'

Facts = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
  """A shard to write.

  Attributes:
    file: its name in the folder.
    records: how many it will hold.
    what: what the writer has to know.
  """

  file: str
  records: int
  what: Any = None


Write = Callable[[Job, pathlib.Path], Facts]


def run(
  folder: pathlib.Path,
  plan: Mapping[str, Any],
  jobs: Sequence[Job],
  write: Write,
  finish: Callable[[list[Facts]], None],
  *,
  workers: int | None = None,
) -> None:
  """Writes all shards that are not there yet, and finishes the data set.

  Args:
    folder: of the shards; made if it is not there.
    plan: what the shards depend on, JSON-able. Shards of another plan are not mixed with these.
    jobs: the shards.
    write: writes one to the path that it is given, and returns what is to be known of it, JSON-able. It is sent to the
      processes by cloudpickle, so that it may hold lambdas.
    finish: makes the data set complete, given what `write` returned, in the order of the jobs.
    workers: number of processes; None: one for each CPU. 1 is this process.

  Raises:
    UsageError: another process is at it, the folder holds shards of another plan, or a worker was killed.
  """
  workers = len(os.sched_getaffinity(0)) if workers is None and hasattr(os, 'sched_getaffinity') else workers
  workers = os.cpu_count() or 1 if workers is None else workers
  if workers < 1:
    raise errors.UsageError(f'got {workers} workers, expected at least 1')
  progress = folder / _PROGRESS
  progress.mkdir(parents=True, exist_ok=True)
  with _alone(progress):
    _keep_to(plan, folder)
    for left_behind in progress.glob('*.part-*'):
      left_behind.unlink()
    waiting = [job for job in jobs if not _is_done(folder, job)]
    with _shown(folder, jobs, waiting) as show:
      for job in _written(folder, waiting, write, min(workers, len(waiting))):
        show(job)
    finish([json.loads(_facts_path(folder, job).read_text(encoding='utf-8')) for job in jobs])
    shutil.rmtree(progress)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file, whole or not at all."""
  part = path.with_name(f'.{path.name}.part-{os.getpid()}')
  part.write_text(json.dumps(value, indent=2, sort_keys=True) + '\n', encoding='utf-8')
  _flush(part)
  part.replace(path)


@contextlib.contextmanager
def _alone(progress: pathlib.Path) -> Iterator[None]:
  """Holds the lock of a preparation. The kernel frees it when the process ends, however it ends."""
  with (progress / 'lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise errors.UsageError(f'another process is preparing {progress.parent}') from error
    yield


def _keep_to(plan: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Notes the plan, or raises UsageError if the shards that are there are of another."""
  path = folder / _PROGRESS / 'plan.json'
  wanted = json.loads(json.dumps(plan))
  if not path.is_file():
    write_json(path, wanted)
    return
  begun = json.loads(path.read_text(encoding='utf-8'))
  differing = [name for name in sorted({*begun, *wanted}) if begun.get(name) != wanted.get(name)]
  if differing:
    raise errors.UsageError(
      f'{folder} holds shards of another preparation, which differs in {", ".join(differing)}: '
      'expected the same one to go on with, or another folder'
    )


def _facts_path(folder: pathlib.Path, job: Job) -> pathlib.Path:
  return folder / _PROGRESS / f'{job.file}.json'


def _is_done(folder: pathlib.Path, job: Job) -> bool:
  return (folder / job.file).is_file() and _facts_path(folder, job).is_file()


def _write(folder: pathlib.Path, job: Job, write: Write) -> None:
  """Writes one shard under another name, then what is known of it, and then gives it its name."""
  part = folder / _PROGRESS / f'{job.file}.part-{os.getpid()}'
  facts = write(job, part)
  _flush(part)
  write_json(_facts_path(folder, job), facts)
  part.replace(folder / job.file)


def _flush(path: pathlib.Path) -> None:
  """Makes a file durable before it has its name: a power cut must not leave a shard of zeros."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _written(folder: pathlib.Path, jobs: Sequence[Job], write: Write, workers: int) -> Iterator[Job]:
  """The jobs, each when its shard is written."""
  if workers <= 1:
    for job in jobs:
      _write(folder, job, write)
      yield job
    return
  import cloudpickle

  # A forked process would inherit the locks of JAX's threads, and wait for them.
  context, others = multiprocessing.get_context('spawn'), set(multiprocessing.active_children())
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _begin_worker, (cloudpickle.dumps(write),))
  try:
    futures = {pool.submit(_write_in_worker, folder, job): job for job in jobs}
    for future in concurrent.futures.as_completed(futures):
      future.result()
      yield futures[future]
  except concurrent.futures.process.BrokenProcessPool as error:
    raise errors.UsageError(
      f'a process that wrote shards of {folder} was killed (out of memory?); the finished ones stay: run this again, '
      'if need be with fewer workers'
    ) from error
  except BaseException:  # nobody waits for shards that would be thrown away
    for process in set(multiprocessing.active_children()) - others:
      process.terminate()
    raise
  finally:
    pool.shutdown(cancel_futures=True)


_write_of_worker: Write | None = None


def _begin_worker(write: bytes) -> None:
  import cloudpickle

  global _write_of_worker
  os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')  # the processes are what is parallel here
  threading.Thread(target=_end_with_parent, daemon=True).start()
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all; the parent ends the others
  _write_of_worker = cloudpickle.loads(write)


def _end_with_parent() -> None:
  """Ends this process when its parent has: a kill -9 of the parent leaves it no time to tell."""
  parent = multiprocessing.parent_process()
  assert parent is not None
  parent.join()
  os._exit(1)


def _write_in_worker(folder: pathlib.Path, job: Job) -> None:
  assert _write_of_worker is not None
  _write(folder, job, _write_of_worker)


@contextlib.contextmanager
def _shown(folder: pathlib.Path, jobs: Sequence[Job], waiting: Iterable[Job]) -> Iterator[Callable[[Job], None]]:
  """A function that shows that a job is done: a bar on a terminal, elsewhere a line for each."""
  waiting = list(waiting)
  done = len(jobs) - len(waiting)
  if done:
    print(f'{folder}: {done} of {len(jobs)} shards are there already', flush=True)
  if not sys.stdout.isatty():
    numbers = iter(range(done + 1, len(jobs) + 1))
    yield lambda job: print(f'{job.file}: {job.records} records, shard {next(numbers)} of {len(jobs)}', flush=True)
    return
  from rich import progress

  columns = (progress.TextColumn('{task.description}'), progress.BarColumn(), progress.MofNCompleteColumn())
  with progress.Progress(*columns, progress.TextColumn('records'), progress.TimeRemainingColumn()) as bar:
    total = sum(job.records for job in jobs)
    task = bar.add_task(folder.name, total=total, completed=total - sum(job.records for job in waiting))
    yield lambda job: bar.advance(task, job.records)
