"""Makes token ids of a task or of all tasks of a mixture, in parallel processes; `tokenised` reads them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import mixtures, sources, token_ids, tokenised
from t5x_lite.data import task as tasks
from t5x_lite.data.formats import array_records
from t5x_lite.data.mixtures import Mixture
from t5x_lite.data.preparation import shard_jobs
from t5x_lite.data.vocabularies import tokenizers

_RECORDS_PER_SHARD = 2**13
_MAX_SHARDS = 1024
_RECORDS_AT_ONCE = 64
_MAKERS: dict[str, Callable[..., token_ids.OfRecords[Any]]] = {
  tasks.TEXT_IDS: token_ids.of_text,
  tasks.SENTENCE_IDS: token_ids.of_sentences,
  tasks.PAIR_IDS: token_ids.of_pairs,
}


def tokenise(
  entry: str | tasks.Task | Mixture,
  tokenizer: tokenizers.Tokenizer,
  directory: str,
  *,
  objective: Any = None,
  splits: Sequence[str] = (),
  num_shards: int | None = None,
  workers: int | None = None,
) -> list[pathlib.Path]:
  """Writes the ids of all documents or pairs; goes on where an earlier call was interrupted.

  Of tasks that a mixture is only evaluated on, it takes those of the splits that they have; by default `validation`.

  Args:
    entry: a task or a mixture, or its name.
    tokenizer: makes the ids.
    directory: the folder to write to.
    objective: that the ids are for: one that reads sentences has the documents kept as sentences.
    splits: of the tasks; none: all that a task has.
    num_shards: of a split; None: one for 8192 records, at most 1024.
    workers: number of processes; None: one for each CPU.

  Returns:
    The folder of each task.

  Raises:
    UsageError: there is no such task, split or data, or the folder holds something else.
  """
  if num_shards is not None and num_shards < 1:
    raise errors.UsageError(f'got {num_shards} shards, expected at least 1')
  entry, folder = tasks.get(entry), pathlib.Path(directory).expanduser().absolute()
  besides = tuple((each, _among(each, splits or ('validation',))) for each in tasks.only_evaluated(entry))
  members = (*((each, splits) for each in tasks.tasks(entry)), *((each, own) for each, own in besides if own))
  single = isinstance(entry, tasks.Task)
  _check_folder(folder, single)
  below = {member.name: '.' if single else urllib.parse.quote(member.name, safe='') for member, _ in members}
  for member, own in members:
    if member.ids is not None:
      raise errors.UsageError(f'task {member.name!r} is tokenised already, in {member.ids.directory}')
    plans = _plan(member, own, num_shards)
    kind = token_ids.kind_for(member, objective)
    _tokenise_task(member, tokenizer, folder / below[member.name], kind, plans, workers)
  if isinstance(entry, Mixture):
    blend = mixtures.blend(entry)
    names = [member.name for member in blend.tasks]
    stages = [
      [step, [[name, share] for name, share in zip(names, shares, strict=True) if share]]
      for step, shares in blend.stages
    ]
    info = {'version': tokenised.VERSION, 'name': entry.name, 'unit': blend.unit, 'stages': stages, 'tasks': below}
    info['evaluated'] = [each.name for each, own in besides if own]
    shard_jobs.write_json(folder / tokenised.MIXTURE_INFO, info)
  return [folder / below[member.name] for member, _ in members]


def _among(task: tasks.Task, splits: Sequence[str]) -> tuple[str, ...]:
  """Those of the splits that a task has."""
  return tuple(split for split in splits if task.has_split(split))


def _check_folder(folder: pathlib.Path, single: bool) -> None:
  """Raises UsageError where a mixture would be put where a task is, or the other way round."""
  if (folder / (tokenised.MIXTURE_INFO if single else tokenised.INFO)).is_file():
    there, wanted = ('a mixture', 'a task') if single else ('a task', 'a mixture')
    raise errors.UsageError(f'{folder} holds {there}, tokenised: expected another folder for {wanted}')


@dataclasses.dataclass(frozen=True)
class _SplitPlan:
  """A split to tokenise: its names, the fingerprint of its text, and where each shard ends."""

  name: str
  source_split: str
  fingerprint: str
  ends: tuple[int, ...]

  def jobs(self) -> list[shard_jobs.Job]:
    stem, count = urllib.parse.quote(self.name, safe=''), len(self.ends)
    bounds = zip((0, *self.ends), self.ends, strict=False)
    return [
      shard_jobs.Job(f'{stem}-{n:05d}-of-{count:05d}.array_record', end - begin, (self.source_split, begin, end))
      for n, (begin, end) in enumerate(bounds)
    ]


def _plan(task: tasks.Task, splits: Sequence[str], num_shards: int | None) -> list[_SplitPlan]:
  """The splits of a task; raises UsageError for one that is not there."""
  plans = []
  for name in splits or (task.splits if task.splits is not None else task.source.splits):
    source_split = task.source_split(name)
    records = len(task.source.random_access(source_split))
    shards = num_shards or min(-(-records // _RECORDS_PER_SHARD), _MAX_SHARDS)
    ends = np.linspace(0, records, max(min(shards, records), 1) + 1).astype(np.int64)[1:]
    plans.append(_SplitPlan(name, source_split, task.source.fingerprint(source_split), tuple(ends.tolist())))
  return plans


def _tokenise_task(
  task: tasks.Task,
  tokenizer: tokenizers.Tokenizer,
  folder: pathlib.Path,
  kind: str,
  plans: Sequence[_SplitPlan],
  workers: int | None,
) -> None:
  """Writes one task, unless it is there."""
  dtype = token_ids.dtype_for(tokenizer.vocab_size)
  made_of = {
    'version': tokenised.VERSION,
    'task': task.name,
    'kind': kind,
    'dtype': dtype,
    'vocab_size': tokenizer.vocab_size,
    'tokenizer': tokenizer.fingerprint,
    'preprocess': identity(task.preprocess),
    'long_examples': task.long_examples,
    'stride': task.stride,
    'documents': task.documents,
  }
  plan = {**made_of, 'splits': {own.name: [own.source_split, own.fingerprint, own.ends] for own in plans}}
  if (folder / tokenised.INFO).is_file():
    _check_same(folder, plan)
    return
  jobs = {own.name: own.jobs() for own in plans}
  flat = [job for of_split in jobs.values() for job in of_split]

  def finish(facts: list[shard_jobs.Facts]) -> None:
    for job in flat:
      there = array_records.count_records(folder / job.file)
      if there != job.records:
        raise errors.UsageError(f'{folder / job.file} holds {there} records, expected {job.records}')
    tokens = {job.file: fact['tokens'] for job, fact in zip(flat, facts, strict=True)}
    splits = {
      own.name: {
        'source_split': own.source_split,
        'fingerprint': own.fingerprint,
        'records': sum(job.records for job in jobs[own.name]),
        'tokens': sum(tokens[job.file] for job in jobs[own.name]),
        'shards': [[job.file, job.records] for job in jobs[own.name]],
      }
      for own in plans
    }
    shard_jobs.write_json(folder / tokenised.INFO, {**made_of, 'splits': splits})

  write = functools.partial(_write, task, tokenizer, kind, dtype)
  shard_jobs.run(folder, plan, flat, write, finish, workers=workers)


def _check_same(folder: pathlib.Path, plan: dict[str, Any]) -> None:
  """Raises UsageError if the finished task in `folder` is not the one that is asked for, whatever its shards."""
  there = tokenised.read_info(str(folder))
  differing = [name for name in sorted(plan) if name != 'splits' and plan[name] != there.get(name)]
  for name, (source_split, fingerprint, _) in plan['splits'].items():
    own = there['splits'].get(name, {})
    if (own.get('source_split'), own.get('fingerprint')) != (source_split, fingerprint):
      differing.append(f'split {name!r}')
  if differing:
    raise errors.UsageError(
      f'{folder} holds another task, tokenised, which differs in {", ".join(differing)}: expected another folder'
    )


def _write(
  task: tasks.Task, tokenizer: tokenizers.Tokenizer, kind: str, dtype: str, job: shard_jobs.Job, path: pathlib.Path
) -> shard_jobs.Facts:
  """Writes one shard."""
  ids_of = _MAKERS[kind](task, tokenizer)
  split, begin, end = job.what
  opened = _opened(task.source, split)
  tokens = 0

  def records() -> Iterator[bytes]:
    nonlocal tokens
    for start in range(begin, end, _RECORDS_AT_ONCE):
      for ids in ids_of(opened.__getitems__(range(start, min(start + _RECORDS_AT_ONCE, end)))):
        arrays = token_ids.arrays_of(ids, kind)
        tokens += sum(map(len, arrays))
        yield token_ids.pack(arrays, dtype)

  array_records.write_records(path, records(), array_records.UNCOMPRESSED)
  return {'tokens': tokens}


_last_opened: tuple[sources.Source, str, sources.RandomAccess] | None = None


def _opened(source: sources.Source, split: str) -> sources.RandomAccess:
  """The records of a split, kept open between the shards of a process."""
  global _last_opened
  if _last_opened is None or _last_opened[0] is not source or _last_opened[1] != split:
    _last_opened = source, split, source.random_access(split)
  return _last_opened[2]


def identity(function: Callable[..., Any]) -> dict[str, Any]:
  """What a function is, JSON-able: its name, the SHA-256 of its source, and the arguments that are bound to it."""
  if isinstance(function, functools.partial):
    bound = [repr(value) for value in (*function.args, *sorted(function.keywords.items()))]
    return {**identity(function.func), 'arguments': bound}
  named = function if hasattr(function, '__qualname__') else type(function)
  try:
    source = hashlib.sha256(inspect.getsource(named).encode()).hexdigest()
  except (OSError, TypeError):  # typed in at a prompt
    source = None
  found: dict[str, Any] = {'name': f'{named.__module__}.{named.__qualname__}', 'source': source}
  return {**found, 'arguments': [repr(function)]} if dataclasses.is_dataclass(function) else found
