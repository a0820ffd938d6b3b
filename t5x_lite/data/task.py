"""Tasks and mixtures: what text there is to learn from, by name. They know neither model nor tokenizer (seqio's idea).

A `Task` is a source and a function that makes text of its records. A `Mixture` is tasks with rates. Both are plain
values, kept in one registry, so that a gin file can name them:

    task.register(task.Task('c4_en', source, preprocess=lambda record: {'text': record['text']}))
    task.register(task.Mixture('c4_and_squad', (('c4_en', 9.0), ('squad', 1.0))))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from t5x_lite.core import errors

if TYPE_CHECKING:
  from t5x_lite.data import sources

Record = Mapping[str, Any]
Example = Mapping[str, str]
Preprocess = Callable[[Record], 'Example | Iterable[Example]']

UNSUPERVISED_FEATURES = ('text',)
SUPERVISED_FEATURES = ('inputs', 'targets')


@dataclasses.dataclass(frozen=True)
class Task:
  """A source and how its records become text.

  Attributes:
    name: what gin files call it.
    source: where the records come from. It is not touched before the task is used, so registering costs nothing.
    preprocess: a record -> one example or several (none: the record is left out). An example has exactly the keys
      `text` if the task is unsupervised, `inputs` and `targets` if it is supervised; all values are `str`.
    supervised: False: the run's objective makes inputs and targets of the text. True: they are taken as they are.
    splits: the task's splits as `{name: name in the source}`; None: the source's own.
    metrics: names of the metrics that its predictions are scored with.
  """

  name: str
  source: sources.Source
  preprocess: Preprocess
  supervised: bool = False
  splits: Mapping[str, str] | None = None
  metrics: tuple[str, ...] = ()

  @property
  def features(self) -> tuple[str, ...]:
    """The keys that every example must have."""
    return SUPERVISED_FEATURES if self.supervised else UNSUPERVISED_FEATURES

  def source_split(self, split: str) -> str:
    """What the source calls `split`. Raises `UsageError` where the task has no such split."""
    names = self.splits if self.splits is not None else {name: name for name in self.source.splits}
    if split not in names:
      raise errors.unknown(f'split of task {self.name!r}', split, names)
    return names[split]

  def examples(self, record: Record) -> Iterator[Example]:
    """The examples of one record. Raises `UsageError` where `preprocess` returns other keys than it should."""
    made = self.preprocess(record)
    for example in (made,) if isinstance(made, Mapping) else made:
      if set(example) != set(self.features):
        raise errors.UsageError(
          f'task {self.name!r} (supervised={self.supervised}): preprocess returned the keys {sorted(example)}, '
          f'expected {sorted(self.features)}'
        )
      yield example


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Tasks with rates: of all examples, a share of `rate / sum of rates` comes from each.

  Attributes:
    name: what gin files call it.
    rates: `((name of a task, positive rate), ...)`. A task that runs dry starts again: the shares stay.
  """

  name: str
  rates: tuple[tuple[str, float], ...]

  def __post_init__(self):
    names = [name for name, _ in self.rates]
    if not names:
      raise errors.UsageError(f'mixture {self.name!r} has no tasks')
    if len(set(names)) < len(names):
      raise errors.UsageError(f'mixture {self.name!r} names a task twice: {", ".join(names)}')
    for name, rate in self.rates:
      if not (math.isfinite(rate) and rate > 0):
        raise errors.UsageError(f'mixture {self.name!r}: got rate {rate!r} for {name!r}, expected a positive number')


_registry: dict[str, Task | Mixture] = {}


def register(entry: Task | Mixture) -> Task | Mixture:
  """Makes `entry` known by its name, and returns it. Raises `UsageError` if the name is taken."""
  if entry.name in _registry:
    raise errors.UsageError(f'a {type(_registry[entry.name]).__name__.lower()} {entry.name!r} is already registered')
  _registry[entry.name] = entry
  return entry


def get(name: str) -> Task | Mixture:
  """The task or mixture called `name`. Raises `UsageError` with the nearest match where there is none."""
  if name not in _registry:
    raise errors.unknown('mixture or task', name, _registry)
  return _registry[name]


def names() -> tuple[str, ...]:
  """The names of all tasks and mixtures, sorted."""
  return tuple(sorted(_registry))


def parts(name: str) -> tuple[tuple[Task, float], ...]:
  """The tasks of the mixture or task called `name`, each with its share of the examples (the shares add up to 1)."""
  entry = get(name)
  if isinstance(entry, Task):
    return ((entry, 1.0),)
  total = math.fsum(rate for _, rate in entry.rates)
  members = [(get(member), rate / total) for member, rate in entry.rates]
  for member, _ in members:
    if not isinstance(member, Task):
      raise errors.UsageError(f'mixture {name!r} holds the mixture {member.name!r}: expected tasks only')
  return tuple((member, share) for member, share in members if isinstance(member, Task))
