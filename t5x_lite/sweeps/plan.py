"""What a sweep is going to do, checked as a whole before anything runs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors, idle
from t5x_lite.sweeps import budget, evaluation_sets, spec
from t5x_lite.sweeps.budget import Cost
from t5x_lite.sweeps.resolved import Resolver, Variant, differences
from t5x_lite.sweeps.spec import Arm, Settings, Sweep

# What a run tells and keeps: no result depends on it.
_TOLD = re.compile(
  r'LoopConfig\.(log_period|stall_seconds)|CheckpointConfig\..*|train\.(num_samples|model_dir)|DatasetConfig\.prefetch'
)


@dataclasses.dataclass(frozen=True)
class PlannedArm:
  """An arm with all that is known of it.

  Attributes:
    arm: its name and settings, what holds it to the budget among them.
    values: its resolved values.
    text: its gin file.
    cost: of one run.
    order: the hash of its documents; None where it cannot be known here.
    differs: how its values differ from the baseline's, a line each.
    inert: those of its settings that change nothing in the base.
  """

  arm: Arm
  values: Mapping[str, str]
  text: str
  cost: Cost
  order: str | None
  differs: tuple[str, ...] = ()
  inert: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
  """A sweep that has passed all checks.

  Attributes:
    sweep: what its gin file says.
    arms: the baseline first only if it is the first.
    baseline: the name of that arm.
    amount: of the budget, for each run.
  """

  sweep: Sweep
  arms: tuple[PlannedArm, ...]
  baseline: str
  amount: float

  def as_json(self, name: str) -> dict[str, Any]:
    """What `sweep.json` holds."""
    return {
      'name': name,
      'arms': [_arm_json(planned) for planned in self.arms],
      'baseline': self.baseline,
      'seeds': list(self.sweep.seeds),
      'budget': {'kind': self.sweep.budget, 'amount': self.amount},
      'metrics': list(self.sweep.metrics),
      'evaluations': {name: list(_parts(self.sweep.evaluation(name))) for name in self.sweep.evaluations},
      'fingerprints': {planned.arm.name: planned.order for planned in self.arms},
      'same_data': self.sweep.same_data,
    }


def _parts(settings: Settings) -> tuple[str, ...]:
  return (*settings.files, *settings.bindings)


def _arm_json(planned: PlannedArm) -> dict[str, Any]:
  arm = planned.arm
  return {
    'name': arm.name,
    'description': arm.description,
    'bindings': list(arm.settings.bindings),
    'gin_files': list(arm.settings.files),
    'axes': dict(arm.axes),
    'differs': list(planned.differs),
    'cost': dataclasses.asdict(planned.cost),
    'values': digest(planned.values),
  }


def digest(values: Mapping[str, str]) -> str:
  """Hex SHA-256 of resolved values."""
  return hashlib.sha256(json.dumps(sorted(values.items())).encode()).hexdigest()


def make(sweep: Sweep, resolver: Resolver, more: Sequence[Arm] = ()) -> Plan:
  """Resolves all arms and checks them.

  Args:
    sweep: what its gin file says.
    resolver: how gin files become values.
    more: arms that a sampler has chosen since.

  Raises:
    UsageError: an arm that training would refuse, that is no other than another, or whose data, evaluation or budget
      is not the baseline's though it should be; a metric that no evaluation has.
  """
  common = Settings(sweep.base, (*sweep.bindings, f'{sweep.seed_binding}={sweep.seeds[0]}'))
  arms = [*spec.arms(sweep), *more]
  named = spec.baseline(sweep, arms)
  for arm in arms:
    _check_own(sweep, arm)
  base = resolver.run(common)
  variants = {arm.name: _resolve(resolver, arm, common + arm.settings) for arm in arms}
  costs = {name: _told(name, resolver.cost, variant) for name, variant in variants.items()}
  total = budget.amount(sweep, costs[named])
  held, planned = [], []
  for arm in arms:
    bound = budget.binding(sweep, arm.name, costs[arm.name], total)
    held.append(arm if bound is None else dataclasses.replace(arm, settings=arm.settings + Settings((), (bound,))))
  inert = _Inert(resolver, common, base)
  for arm, own in zip(held, arms, strict=True):
    same = arm.settings.bindings[-1:] == (f'{budget.STEPS_BINDING}={costs[arm.name].steps}',)
    variant = variants[arm.name] if same else _resolve(resolver, arm, common + arm.settings)
    cost = costs[arm.name] if same else _told(arm.name, resolver.cost, variant)
    order = _told(arm.name, resolver.order, variant)
    planned.append(PlannedArm(arm, variant.values, variant.text, cost, order, inert=inert.of(sweep, own)))
    variants[arm.name] = variant
  _check_distinct(arms, variants)  # by now, for what the budget binds may have been all that they differed in
  reference = next(each for each in planned if each.arm.name == named)
  _check_data(sweep, planned, reference)
  evaluation_sets.check(sweep, resolver, variants, named)
  planned = [dataclasses.replace(each, differs=differences(reference.values, each.values)) for each in planned]
  return Plan(sweep, tuple(planned), named, total)


def _resolve(resolver: Resolver, arm: Arm, settings: Settings) -> Variant:
  try:
    return resolver.run(settings)
  except errors.UsageError as error:
    raise errors.UsageError(f'arm {arm.name!r}: {error}') from error


def _told(arm: str, ask: Any, variant: Variant) -> Any:
  """What the resolver says of an arm; its errors name the arm."""
  try:
    return ask(variant)
  except errors.UsageError as error:
    raise errors.UsageError(f'arm {arm!r}: {error}') from error


def _check_distinct(arms: Sequence[Arm], variants: Mapping[str, Variant]) -> None:
  """Raises UsageError where two arms are the same run."""
  seen: dict[str, Arm] = {}
  for arm in arms:
    other = seen.setdefault(digest(_effective(variants[arm.name].values)), arm)
    if other is not arm:
      axes = [axis for axis in arm.axes if other.axes.get(axis) != arm.axes[axis]]
      what = (
        f'axis {axes[0]!r}: {other.axes[axes[0]]!r} and {arm.axes[axes[0]]!r}'
        if len(axes) == 1 and (other.axes.keys() == arm.axes.keys())
        else f'arms {other.name!r} and {arm.name!r}'
      )
      raise errors.UsageError(f'{what} come to the same resolved values: what they set changes nothing')


def _effective(values: Mapping[str, str]) -> dict[str, str]:
  """Resolved values without those that no result depends on."""
  return {
    key: value
    for key, value in values.items()
    if not idle.reason(key, values) and not _TOLD.fullmatch(key.rpartition('/')[2])
  }


def _check_own(sweep: Sweep, arm: Arm) -> None:
  """Raises UsageError for an arm that binds what the sweep binds for every run."""
  own = {'MODEL_DIR': 'the folder of a run', sweep.seed_binding: 'Sweep.seeds'}
  own |= {budget.STEPS_BINDING: f'the budget of {sweep.budget}'} if sweep.budget in (spec.TOKENS, spec.FLOPS) else {}
  for binding in arm.settings.bindings:
    name = binding.partition('=')[0].strip()
    if name in own:
      raise errors.UsageError(f'arm {arm.name!r} sets {name}, which is {own[name]}: expected what differs between arms')


class _Inert:
  """Which settings change nothing in the base. What is asked for again is remembered: a grid repeats its values."""

  def __init__(self, resolver: Resolver, common: Settings, base: Variant):
    self._resolver, self._common, self._base = resolver, common, base
    self._known: dict[Settings, tuple[str, ...]] = {}

  def of(self, sweep: Sweep, arm: Arm) -> tuple[str, ...]:
    """Of an arm: those of each of its values by themselves."""
    if not arm.axes:
      return self._among(arm.settings)
    own = (spec.settings(axis, sweep.axes[axis][value]) for axis, value in arm.axes.items())
    return tuple(itertools.chain.from_iterable(self._among(settings) for settings in own))

  def _among(self, settings: Settings) -> tuple[str, ...]:
    if settings not in self._known:
      parts = (*settings.files, *settings.bindings)
      self._known[settings] = tuple(part for part in parts if self._same(settings, part))
    return self._known[settings]

  def _same(self, settings: Settings, part: str) -> bool:
    """Whether the settings come to the same without one of them."""
    rest = Settings(
      tuple(file for file in settings.files if file != part), tuple(each for each in settings.bindings if each != part)
    )
    try:
      whole = self._resolver.run(self._common + settings)
      without = self._base if rest == Settings() else self._resolver.run(self._common + rest, strict=False)
    except errors.UsageError:  # The others cannot do without it.
      return False
    return dict(whole.values) == dict(without.values)


def _check_data(sweep: Sweep, planned: Sequence[PlannedArm], reference: PlannedArm) -> None:
  """Raises UsageError for an arm that reads other documents than the baseline, or in another order."""
  if not sweep.same_data:
    return
  for each in planned:
    if each.order != reference.order:
      data = [
        line
        for line in differences(reference.values, each.values)
        if line.startswith(('DatasetConfig.', 'Mixture.', 'train.dataset'))
      ]
      what = f' ({"; ".join(data)})' if data else ''
      raise errors.UsageError(
        f'arm {each.arm.name!r} reads other documents, or in another order, than the baseline {reference.arm.name!r}'
        f'{what}: expected the same in all arms, or Sweep.same_data = False'
      )
