"""Mixtures: tasks with rates, which are numbers or follow from the sizes of the sets, and may change over the steps.

    task.register(Mixture('c4_and_squad', (('c4_en', 9.0), ('squad', 1.0))))
    task.register(Mixture('glue', proportional(('glue_cola', 'glue_sst2'), limit=2**16)))

Source of the rates: Raffel et al. 2020 (T5), section 3.5.2. In a gin file: `MIXTURE_OR_TASK_NAME = @Mixture()`,
`Mixture.rates = @proportional()`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from t5x_lite.core import errors
from t5x_lite.data.task import Task, get, tasks

Rates = tuple[tuple[str, float], ...]
EXAMPLES, TOKENS = UNITS = ('examples', 'tokens')


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Tasks with rates: of all examples, a share of `rate / sum of rates` comes from each.

  A member that is a mixture itself passes its share on to its own members. A task that runs dry starts again: the
  shares stay.

  Attributes:
    name: what gin files call it.
    rates: `((name of a task or a mixture, positive rate), ...)`, or a function that returns them when the data is
      opened (see `proportional`): rates that depend on the sizes of the sets.
    unit: what the rates count: 'examples', or 'tokens' of the rows (without padding, of all sides).
    schedule: `((step, rates), ...)`: from these steps on other rates, of members that may be others.
    evaluated: names of tasks that are no part of it, and that a run on it is evaluated on besides, where they have the
      split that is evaluated: what T5 gives the rate 0.
  """

  name: str
  rates: Rates | Callable[[], Rates]
  unit: str = EXAMPLES
  schedule: tuple[tuple[int, Rates | Callable[[], Rates]], ...] = ()
  evaluated: tuple[str, ...] = ()

  def __post_init__(self):
    if self.unit not in UNITS:
      raise errors.unknown(f'unit of mixture {self.name!r}', self.unit, UNITS)
    steps = [0, *(step for step, _ in self.schedule)]
    if any(before >= after for before, after in itertools.pairwise(steps)):
      raise errors.UsageError(f'mixture {self.name!r}: got steps {steps[1:]} in its schedule, expected rising ones')
    for _, rates in self.stages:
      if not callable(rates):
        self._check(rates)

  @property
  def stages(self) -> tuple[tuple[int, Rates | Callable[[], Rates]], ...]:
    """The schedule, with step 0."""
    return ((0, self.rates), *self.schedule)

  def members(self) -> tuple[str, ...]:
    """The names of all members, of whatever stage. Rates that are a function are asked for theirs."""
    found = (name for _, rates in self.stages for name in _names(rates))
    return tuple(dict.fromkeys(found))

  def resolved(self) -> tuple[tuple[int, Rates], ...]:
    """The stages with their rates as numbers."""
    return tuple((step, self._check(rates() if callable(rates) else rates)) for step, rates in self.stages)

  def _check(self, rates: Rates) -> Rates:
    names = [name for name, _ in rates]
    if not names:
      raise errors.UsageError(f'mixture {self.name!r} has no tasks')
    if len(set(names)) < len(names):
      raise errors.UsageError(f'mixture {self.name!r} names a task twice: {", ".join(names)}')
    for name, rate in rates:
      if isinstance(rate, bool) or not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
        raise errors.UsageError(f'mixture {self.name!r}: got rate {rate!r} for {name!r}, expected a positive number')
    return rates


def _names(rates: Rates | Callable[[], Rates]) -> tuple[str, ...]:
  """The names in rates, of a function its attribute `names`, so that no data is opened for them."""
  if not callable(rates):
    return tuple(name for name, _ in rates)
  known = getattr(rates, 'names', None)
  return tuple(known) if known is not None else tuple(name for name, _ in rates())


@dataclasses.dataclass(frozen=True)
class Blend:
  """A mixture as numbers.

  Attributes:
    tasks: all of them.
    stages: `((first step, share of each task), ...)`; the shares of a stage add up to 1, and may be 0.
    unit: of the shares: 'examples' or 'tokens'.
  """

  tasks: tuple[Task, ...]
  stages: tuple[tuple[int, tuple[float, ...]], ...]
  unit: str = EXAMPLES


def blend(entry: str | Task | Mixture) -> Blend:
  """The tasks of a mixture or task and their shares. Opens data where rates depend on its size.

  Raises:
    UsageError: a member is not known, has no data, or has a schedule or counts tokens inside another mixture.
  """
  top, members = get(entry), tasks(entry)
  if isinstance(top, Task):
    return Blend(members, ((0, (1.0,)),))
  stages = []
  for step, rates in top.resolved():
    shares = _shares(rates, top)
    stages.append((step, tuple(shares.get(member.name, 0.0) for member in members)))
  return Blend(members, tuple(stages), top.unit)


def _shares(rates: Rates, parent: Mixture) -> dict[str, float]:
  """The shares of the tasks that rates name, passed on through mixtures; they add up to 1."""
  total = math.fsum(rate for _, rate in rates)
  shares: dict[str, float] = {}
  for name, rate in rates:
    member = get(name)
    if isinstance(member, Task):
      inner = {member.name: 1.0}
    elif member.schedule or member.unit != parent.unit:
      raise errors.UsageError(
        f'mixture {parent.name!r} holds {member.name!r}, which has a schedule or another unit: expected neither'
      )
    else:
      inner = _shares(member.resolved()[0][1], member)
    for task, share in inner.items():
      shares[task] = shares.get(task, 0.0) + share * rate / total
  return shares


@dataclasses.dataclass(frozen=True)
class _Proportional:
  names: tuple[str, ...]
  limit: float | None
  temperature: float
  scale: float
  split: str

  def __call__(self) -> Rates:
    return tuple((name, self._rate(name)) for name in self.names)

  def _rate(self, name: str) -> float:
    count = sum(member.num_examples(self.split) for member in tasks(name)) * self.scale
    if not count:
      raise errors.UsageError(f'{name!r} has no examples in its split {self.split!r}: expected some, for its rate')
    return min(count, self.limit or count) ** (1.0 / self.temperature)


def proportional(
  names: Sequence[str],
  *,
  limit: float | None = None,
  temperature: float = 1.0,
  scale: float = 1.0,
  split: str = 'train',
) -> Callable[[], Rates]:
  """Rates as large as the sets: `min(scale * number of records, limit) ** (1 / temperature)`.

  The arithmetic is that of seqio's `rate_num_examples`.

  Args:
    names: of tasks or mixtures; a mixture counts as all its tasks together.
    limit: T5's artificial size limit K, in records; None: none.
    temperature: 1 leaves the rates as they are; the larger, the more equal they are (mT5 and T5 write T).
    scale: what the numbers of records are multiplied by before the limit is applied.
    split: whose records are counted.
  """
  if limit is not None and not limit > 0:
    raise errors.UsageError(f'proportional rates: got limit {limit!r}, expected a positive number')
  if not temperature > 0 or not scale > 0:
    raise errors.UsageError(
      f'proportional rates: got temperature {temperature!r} and scale {scale!r}, expected positive numbers'
    )
  return _Proportional(tuple(names), limit, temperature, scale, split)


def equal(names: Sequence[str]) -> Rates:
  """The same rate for every task or mixture of these names."""
  return tuple((name, 1.0) for name in names)
