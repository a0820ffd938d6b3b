"""What a sweep file says: a base run, what is varied, and what is held."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors

STEPS, TOKENS, FLOPS, PARAMETERS, SECONDS = 'steps', 'tokens', 'flops', 'parameters', 'seconds'
BUDGETS = (STEPS, TOKENS, FLOPS, PARAMETERS, SECONDS)
GRID, LIST, RANDOM = 'grid', 'list', 'random'
ADAPTIVE = ('tpe', 'qmc', 'gp', 'cmaes', 'nsgaii')  # of Optuna
SAMPLERS = (GRID, LIST, RANDOM, *ADAPTIVE)
PRUNERS = ('median', 'percentile')

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._+=,-]*')  # of an axis, a value, an arm: also the name of a folder

_EXAMPLES = {
  'axes': "{'dropout': {'none': 'DROPOUT_RATE=0.0', 'some': 'DROPOUT_RATE=0.1'}}",
  'arms': "{'lion': 'optimizers/lion.gin'}",
  'evaluations': "{'frozen': 'data/frozen_suite.gin'}",
  'ranges': "{'rate': ('PEAK_LEARNING_RATE', 1e-4, 1e-2, 'log')}",
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Gin files and bindings that go together.

  Attributes:
    files: gin files, first to last.
    bindings: `NAME=VALUE` each, over the files.
  """

  files: tuple[str, ...] = ()
  bindings: tuple[str, ...] = ()

  def __add__(self, other: Settings) -> Settings:
    return Settings(self.files + other.files, self.bindings + other.bindings)


@dataclasses.dataclass(frozen=True)
class Arm:
  """One of the things compared.

  Attributes:
    name: of the arm, and of its folder.
    axes: the name of its value on each axis; empty for an arm that is on none.
    settings: what makes it of the base.
  """

  name: str
  axes: Mapping[str, str]
  settings: Settings

  @property
  def description(self) -> str:
    """What it is, in words."""
    return ', '.join(f'{axis} {value}' for axis, value in self.axes.items()) or ', '.join(
      (*self.settings.files, *self.settings.bindings)
    )


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A sweep, as its gin file has it.

  A setting is a gin file or a binding `NAME=VALUE`, or a tuple of them.

  Attributes:
    base: the gin files of the run that all arms are variants of.
    bindings: `NAME=VALUE` each, for all arms.
    axes: what is varied: for each axis its values by name, each with its settings, or a list of single settings, which
      are named by what they set. An arm takes one value of each.
    arms: further arms by name: either a mapping from some axes to the names of values, the other axes having their
      first, or settings.
    baseline: the arm that others are compared with; None: the first.
    seeds: every arm is run once with each. Runs of one seed are paired.
    seed_binding: the macro that a seed is bound to. It decides on initial values, dropout and the order of documents.
    budget: what is held equal, one of `BUDGETS`. The number of steps of an arm follows from it, but for 'parameters',
      where arms are refused that are not of one size.
    amount: of the budget, for each run; None: what the baseline takes as it is.
    tolerance: by how much of itself the budget of an arm may be off, for steps are whole.
    metrics: what is compared: `TASK/METRIC` of the last evaluation of a run, or `EVALUATION/TASK/METRIC`.
    evaluations: by name, the settings of what `t5x_lite.evaluate` measures when a run has ended: one frozen suite for
      arms whose own evaluations are of different things.
    ranges: axes of numbers, for samplers that are neither grid nor list: `(NAME, LOW, HIGH)` of the binding, or
      `(NAME, LOW, HIGH, 'log')`.
    sampler: 'grid': all combinations; 'list': `arms` alone; 'random': `num_arms` different combinations; or one of
      Optuna's, 'tpe', 'qmc', 'gp', 'cmaes' or 'nsgaii', which chooses each arm by how those before did in the first
      metric.
    num_arms: how many arms such a sampler makes.
    sampler_seed: its seed.
    pruner: 'median' or 'percentile', Optuna's rule that ends runs whose evaluations look bad beside those of other
      arms; None: none, as in any ablation.
    retries: how often a run that died is begun again.
    command: what runs an arm; gin flags are appended. Empty: `python -m t5x_lite.train`.
    same_data: whether arms must read the same documents in the same order.
    same_evaluation: whether a metric must be measured on the same evaluation set in all arms.
    cluster: parameters of submitit's executor, such as `{'timeout_min': 60, 'slurm_partition': 'gpu'}`.
  """

  base: tuple[str, ...]
  metrics: tuple[str, ...]
  bindings: tuple[str, ...] = ()
  axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  arms: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  baseline: str | None = None
  seeds: tuple[int, ...] = (0,)
  seed_binding: str = 'RANDOM_SEED'
  budget: str = STEPS
  amount: float | None = None
  tolerance: float = 0.02
  evaluations: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  ranges: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
  sampler: str = GRID
  num_arms: int | None = None
  sampler_seed: int = 0
  pruner: str | None = None
  retries: int = 2
  command: tuple[str, ...] = ()
  same_data: bool = True
  same_evaluation: bool = True
  cluster: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.sampler not in SAMPLERS:
      raise errors.unknown('sampler', self.sampler, SAMPLERS)
    if self.budget not in BUDGETS:
      raise errors.unknown('budget', self.budget, BUDGETS)
    if self.amount is not None and self.amount <= 0:
      raise errors.UsageError(f'Sweep.amount={self.amount}: expected more than 0, or None for what the baseline takes')
    if self.budget == SECONDS and self.amount is None:
      raise errors.UsageError("Sweep.budget='seconds': expected Sweep.amount, the seconds that a run may train")
    if self.budget == SECONDS and self.amount is not None and self.amount < 1:
      raise errors.UsageError(f"Sweep.budget='seconds': amount={self.amount} cannot be held: expected 1 or more")
    if not self.base:
      raise errors.UsageError("Sweep.base: expected the gin files of a run, such as ('t5_tiny.gin',)")
    if not self.metrics:
      raise errors.UsageError("Sweep.metrics: expected what is compared, such as ('embedded_text/loss',)")
    twice = next((metric for metric in self.metrics if self.metrics.count(metric) > 1), None)
    if twice is not None:
      raise errors.UsageError(f'Sweep.metrics: {twice!r} stands there twice')
    if not self.seeds or len(set(self.seeds)) < len(self.seeds):
      raise errors.UsageError(f'Sweep.seeds={self.seeds}: expected different numbers, such as (0, 1, 2)')
    if self.retries < 0:
      raise errors.UsageError(f'Sweep.retries={self.retries}: expected 0 or more')
    if self.pruner is not None and self.pruner not in PRUNERS:
      raise errors.unknown('pruner', self.pruner, PRUNERS)
    if self.pruner is not None and len(self.seeds) > 1:
      raise errors.UsageError(f'Sweep.pruner={self.pruner!r}: expected one seed, got {len(self.seeds)}')
    for field in ('axes', 'arms', 'evaluations', 'ranges'):
      if not isinstance(getattr(self, field), Mapping):
        raise errors.UsageError(f'Sweep.{field}: expected names with what they stand for, such as {_EXAMPLES[field]}')
    object.__setattr__(self, 'axes', {axis: _named(axis, values) for axis, values in self.axes.items()})
    self._check_space()
    for kind, names in (('axis', {**self.axes, **self.ranges}), ('arm', self.arms), ('evaluation', self.evaluations)):
      for name in names:
        check_name(kind, name)
    for axis, values in self.axes.items():
      if not values:
        raise errors.UsageError(f'axis {axis!r}: expected values')
      for value in values:
        check_name(f'value of axis {axis!r}', value)

  def _check_space(self) -> None:
    """Raises UsageError where the sampler and what it has to choose from do not go together."""
    if self.ranges and self.sampler in (GRID, LIST):
      raise errors.UsageError(f'Sweep.ranges: expected a sampler that draws numbers, not {self.sampler!r}')
    if self.sampler not in (GRID, LIST) and (self.num_arms is None or self.num_arms < 1):
      raise errors.UsageError(f'Sweep.num_arms={self.num_arms}: expected how many arms {self.sampler!r} is to make')
    for axis, bounds in self.ranges.items():
      name, low, high, *scale = bounds if len(bounds) in (3, 4) else ('', 0, 0)
      if not (isinstance(name, str) and name and low < high and scale in ([], ['log']) and (low > 0 or not scale)):
        raise errors.UsageError(
          f"range {axis!r}: expected (NAME, LOW, HIGH) or (NAME, LOW, HIGH, 'log'), got {bounds!r}"
        )

  def evaluation(self, name: str) -> Settings:
    """The settings of an evaluation."""
    return settings(f'evaluation {name!r}', self.evaluations[name])


def _named(axis: str, values: Any) -> Mapping[str, Any]:
  """The values of an axis by name: of a list, `DROPOUT_RATE=0.1` is called 0.1, and `optimizers/lion.gin` lion."""
  if isinstance(values, Mapping):
    return values
  if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
    raise errors.UsageError(f'axis {axis!r}: expected its values by name, such as {_EXAMPLES["axes"]}, got {values!r}')
  names = [value.partition('=')[2].strip(' \'"') if '=' in value else pathlib.PurePath(value).stem for value in values]
  twice = next((name for name in names if names.count(name) > 1), None)
  if twice is not None:
    raise errors.UsageError(f'axis {axis!r}: two values would be called {twice!r}: expected names for them')
  return dict(zip(names, values, strict=True))


def check_name(kind: str, name: str) -> None:
  """Raises UsageError for a name that no folder could have everywhere."""
  if not isinstance(name, str) or not _NAME.fullmatch(name):
    raise errors.UsageError(f'{kind} {name!r}: expected letters, digits and any of . _ + = - in its name')


def settings(what: str, value: Any) -> Settings:
  """A setting, or several, of a sweep file.

  Raises:
    UsageError: it is neither text nor a tuple of texts.
  """
  parts = (value,) if isinstance(value, str) else value
  if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
    raise errors.UsageError(f"{what}: expected gin files and bindings such as 'DROPOUT_RATE=0.1', got {value!r}")
  return Settings(tuple(part for part in parts if '=' not in part), tuple(part for part in parts if '=' in part))


def arms(sweep: Sweep) -> list[Arm]:
  """The arms of a sweep, the baseline among them.

  Raises:
    UsageError: there are none, two of one name, or a baseline that is none of them.
  """
  listed = [_listed(sweep, name, value) for name, value in sweep.arms.items()]
  made = _combinations(sweep) + listed
  if not made:
    raise errors.UsageError('the sweep has no arms: expected Sweep.axes or Sweep.arms')
  names = [arm.name for arm in made]
  twice = next((name for name in names if names.count(name) > 1), None)
  if twice is not None:
    raise errors.UsageError(f'two arms are called {twice!r}')
  if sweep.baseline is not None and sweep.baseline not in names:
    raise errors.unknown('baseline', sweep.baseline, names)
  return made


def baseline(sweep: Sweep, made: Sequence[Arm]) -> str:
  """The name of the arm that others are compared with."""
  return made[0].name if sweep.baseline is None else sweep.baseline


def at(sweep: Sweep, chosen: Mapping[str, str], name: str | None = None) -> Arm:
  """The arm with these values, one for each axis; of a range, the number as text."""
  own = Settings()
  for axis, value in chosen.items():
    if axis in sweep.ranges:
      own += Settings((), (f'{sweep.ranges[axis][0]}={value}',))
    else:
      own += settings(f'axis {axis!r}, {value!r}', sweep.axes[axis][value])
  return Arm(name or ','.join(chosen.values()), dict(chosen), own)


def _combinations(sweep: Sweep) -> list[Arm]:
  """The arms that the sampler makes of the axes; of one that chooses by outcomes the first alone."""
  if sweep.sampler == LIST or not (sweep.axes or sweep.ranges):
    return []
  size = math.prod(len(values) for values in sweep.axes.values())
  if sweep.sampler == GRID:
    return [at(sweep, numbered(sweep, number)) for number in range(size)]
  if sweep.sampler == RANDOM:
    assert sweep.num_arms is not None
    draw = random.Random(sweep.sampler_seed)
    if sweep.ranges:
      return [at(sweep, numbered(sweep, draw.randrange(size)) | _drawn(sweep, draw)) for _ in range(sweep.num_arms)]
    if sweep.num_arms > size:
      raise errors.UsageError(f'Sweep.num_arms={sweep.num_arms}: expected 1 to {size}, the combinations that there are')
    return [at(sweep, numbered(sweep, number)) for number in draw.sample(range(size), sweep.num_arms)]
  middle = {axis: number(bounds, 0.5) for axis, bounds in sweep.ranges.items()}
  return [at(sweep, numbered(sweep, 0) | middle)]


def _drawn(sweep: Sweep, draw: random.Random) -> dict[str, str]:
  return {axis: number(bounds, draw.random()) for axis, bounds in sweep.ranges.items()}


def number(bounds: Sequence[Any], share: float) -> str:
  """The number at a share of the way through a range, as text."""
  _, low, high, *scale = bounds
  return f'{low * (high / low) ** share if scale else low + share * (high - low):.6g}'


def numbered(sweep: Sweep, number: int) -> dict[str, str]:
  """One of all combinations of the axes, the last one varying fastest."""
  chosen = {}
  for axis, values in reversed(list(sweep.axes.items())):
    number, index = divmod(number, len(values))
    chosen[axis] = next(itertools.islice(values, index, None))
  return dict(reversed(list(chosen.items())))


def _listed(sweep: Sweep, name: str, value: Any) -> Arm:
  if not isinstance(value, Mapping):
    return Arm(name, {}, settings(f'arm {name!r}', value))
  for axis, choice in value.items():
    if axis not in sweep.axes:
      raise errors.unknown(f'axis of arm {name!r}:', axis, sweep.axes)
    if choice not in sweep.axes[axis]:
      raise errors.unknown(f'value of axis {axis!r} of arm {name!r}:', str(choice), sweep.axes[axis])
  return at(sweep, {axis: value.get(axis, next(iter(values))) for axis, values in sweep.axes.items()}, name)
