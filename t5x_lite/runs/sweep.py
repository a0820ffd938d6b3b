"""A sweep: its plan, its runs, its results."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from t5x_lite import families
from t5x_lite.cli.variants import Variants
from t5x_lite.core import batch as batch_lib
from t5x_lite.core import errors, tree
from t5x_lite.data import dataset_checks, dataset_config, features, hashes, opened
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.scoring import choices
from t5x_lite.scoring.choices import Choices
from t5x_lite.sweeps import conduct, engines, outcomes, plan_text, search, spec, study
from t5x_lite.sweeps import ended as ended_lib
from t5x_lite.sweeps import plan as plan_lib
from t5x_lite.sweeps.budget import Cost
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.plan import Plan
from t5x_lite.sweeps.resolved import Variant
from t5x_lite.sweeps.spec import Arm, Settings, Sweep
from t5x_lite.training.job import LoopConfig
from t5x_lite.training.learner import Learner
from t5x_lite.training.window import count_positions

_LOCK = '.lock'
_DROPOUT = re.compile(r'\w*dropout\w*=[^,)]*')  # Of a model's fields, those that no parameter's shape depends on.
_NOT_OF_ORDER = ('batch_size', 'task_feature_lengths', 'prefetch')  # what no order of documents depends on
_GIVEN_TRAIN = ('config', 'dry_run', 'profile_steps', 'heartbeat_timeout')
_GIVEN_EVALUATE = ('checkpoint', 'output', 'rank_classification', 'limit', 'report')


def sweep(
  *,
  plan: Sweep,
  variants: Variants,
  output: str,
  search_paths: Sequence[str] = (),
  engine: str = engines.LOCAL,
  parallel: int = 1,
  storage: str | None = None,
  dry_run: bool = False,
  retry_failed: bool = False,
) -> int:
  """Plans a sweep, prints the plan, runs its arms and tells how they compare.

  Args:
    plan: what is compared.
    variants: resolves gin files.
    output: the folder of the sweep; one that is there is gone on with.
    search_paths: folders of gin files, for the evaluations.
    engine: what runs arms, one of `engines.NAMES`.
    parallel: how many at once.
    storage: the URL of the database that Optuna keeps the study in; None: SQLite in the folder.
    dry_run: whether to stop after the plan.
    retry_failed: whether runs that have failed are begun again.

  Returns:
    The exit code: 0, or 1 where a run has failed. A run that diverged is an outcome like others.

  Raises:
    UsageError: the sweep is impossible or unfair, or the folder is another sweep's.
  """
  folder = pathlib.Path(output).expanduser().absolute()
  if not dry_run and (folder / _LOCK).exists():
    with _hold(folder):  # told at once, and not after the plan
      pass
  name, resolver = folder.name, _Resolver(variants)
  made = plan_lib.make(plan, resolver, _chosen(plan, folder))
  _check_known(made, folder, name)
  print(plan_text.render(made, name), flush=True)
  if plan.sampler in spec.ADAPTIVE:
    search.optuna(f'Sweep.sampler={plan.sampler!r}')
  if dry_run:
    return 0
  started = engines.make(engine, folder, plan.cluster)
  folder.mkdir(parents=True, exist_ok=True)
  with _hold(folder):
    kept = study.open_study(plan, folder, storage, name)
    prepare = functools.partial(_prepare, folder=folder, name=name)
    prepare(made)
    hooks = _hooks(made, resolver, kept, prepare)
    ended = conduct.conduct(made, folder, started, parallel, hooks, again=retry_failed, search_paths=search_paths)
    _results(folder)
  return _exit_code(ended)


def _chosen(plan: Sweep, folder: pathlib.Path) -> list[Arm]:
  """The arms that a sampler has chosen already, before an interruption."""
  path = folder / outcomes.SWEEP
  if plan.sampler not in spec.ADAPTIVE or not path.exists():
    return []
  own = {arm.name for arm in spec.arms(plan)}
  arms = json.loads(path.read_text(encoding='utf-8'))['arms']
  for arm in arms:
    if arm['name'] in own:
      continue
    for axis, value in arm['axes'].items():
      if axis not in plan.ranges and value not in plan.axes.get(axis, ()):
        told = f'the sweep there has an arm with {axis} {value}, and this one has not'
        raise errors.UsageError(f'--output={folder}: {told}; choose another folder')
  return [spec.at(plan, arm['axes'], arm['name']) for arm in arms if arm['name'] not in own]


def _prepare(made: Plan, folder: pathlib.Path, name: str) -> None:
  _check_known(made, folder, name)
  conduct.write(folder / outcomes.SWEEP, json.dumps(made.as_json(name), indent=2, ensure_ascii=False) + '\n')
  conduct.prepare(made, folder)


def _hooks(made: Plan, resolver: _Resolver, kept: study.Study | None, prepare: Callable[[Plan], None]) -> conduct.Hooks:
  """What is told and asked while the sweep goes on."""
  current, refused = [made], set[str]()

  def more(ended: Sequence[Outcome]) -> Plan | None:
    plan = current[0]
    if plan.sweep.sampler not in spec.ADAPTIVE:
      return None
    known = len(spec.arms(plan.sweep))
    own = [spec.at(plan.sweep, each.arm.axes, each.arm.name) for each in plan.arms[known:]]
    while (chosen := search.propose(plan.sweep, [each.arm for each in plan.arms], ended, refused)) is not None:
      try:
        current[0] = plan_lib.make(plan.sweep, resolver, [*own, chosen])
      except errors.UsageError as error:
        print(f'not taken: {chosen.description}: {error}', flush=True)
        refused.add(chosen.name)
        continue
      prepare(current[0])
      print(f'next arm: {chosen.description}', flush=True)
      return current[0]
    return None

  def prunes(steps: Mapping[int, float]) -> bool:
    return kept is not None and kept.prunes(steps)

  def arm_ended(arm: Arm, ended: Sequence[Outcome], steps: Mapping[int, float]) -> None:
    if kept is not None:
      kept.note(arm, ended, steps)

  return conduct.Hooks(_tell, more, arm_ended, prunes)


def _tell(line: str) -> None:
  print(line, flush=True)


def _results(folder: pathlib.Path) -> None:
  """Writes the tables of results and prints the one for terminals."""
  from t5x_lite.sweeps import tables

  tables.write(folder)
  print(tables.render(folder))


def _exit_code(ended: Sequence[Outcome]) -> int:
  failed = [
    outcome for outcome in ended if outcome.status == outcomes.FAILED and not outcome.note.startswith(ended_lib.PRUNED)
  ]
  if failed:
    names = ', '.join(f'{outcome.arm} seed {outcome.seed}' for outcome in failed[:5])
    more = f' and {len(failed) - 5} more' if len(failed) > 5 else ''
    print(f'{len(failed)} runs failed ({names}{more}); --retry_failed begins them again')
  unsaid = next((outcome for outcome in ended if outcome.status == outcomes.COMPLETE and outcome.note), None)
  if unsaid is not None:
    print(f'{unsaid.arm} seed {unsaid.seed} is complete, but: {unsaid.note}')
  return 1 if failed or unsaid is not None else 0


@contextlib.contextmanager
def _hold(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other sweeps out of the folder; the lock goes with the process."""
  with (folder / _LOCK).open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.UsageError(f'--output={folder}: another sweep is going on there') from None
    yield


def _check_known(made: Plan, folder: pathlib.Path, name: str) -> None:
  """Compares a plan with the one that lies in the folder, to which it may add arms, seeds and metrics.

  Raises:
    UsageError: it changes or leaves out what is there: it is another sweep.
  """
  path = folder / outcomes.SWEEP
  if not path.exists() or not (folder / conduct.JOBS).exists():  # or no run has begun
    return
  own, known = made.as_json(name), json.loads(path.read_text(encoding='utf-8'))
  values = {arm['name']: arm['values'] for arm in own['arms']}
  before = {arm['name']: arm['values'] for arm in known['arms']}
  changed = next((arm for arm in before if arm in values and before[arm] != values[arm]), None)
  left_out = [f'arm {arm!r}' for arm in before if arm not in values]
  left_out += [f'seed {seed}' for seed in known['seeds'] if seed not in own['seeds']]
  if own['seeds'][:1] != known['seeds'][:1]:
    what = f'the first seed there is {known["seeds"][0]}, behind which others may be added'
  elif changed is not None:
    what = f'arm {changed!r} was begun with other values'
  elif left_out:
    what = f'the sweep there has {left_out[0]}, and this one has not'
  elif own['evaluations'] != known.get('evaluations', own['evaluations']):
    what = 'the sweep was begun with other evaluations'
  else:
    return
  raise errors.UsageError(
    f'--output={folder}: {what}; choose another folder (arms and seeds may be added, not changed or left out)'
  )


class _Resolver:
  """See `resolved.Resolver`. What is costly to find out is remembered by what it depends on."""

  def __init__(self, variants: Variants):
    self._variants = variants
    self._resolved: dict[tuple[Settings, bool], Any] = {}
    self._orders: dict[Any, str | None] = {}
    self._parameters: dict[Any, int] = {}

  def run(self, settings: Settings, *, strict: bool = True) -> Any:
    """See `resolved.Resolver`."""
    key = settings, strict
    if key not in self._resolved:
      bindings = ('MODEL_DIR=MODEL_DIR', *settings.bindings)
      self._resolved[key] = self._variants.resolve(
        'runs.train.train', _GIVEN_TRAIN, settings.files, bindings, strict=strict
      )
    return self._resolved[key]

  def evaluation(self, run: Variant, settings: Settings) -> Any:
    """See `resolved.Resolver`."""
    files = ('runs/evaluate.gin', *settings.files)
    target = 'runs.evaluate.evaluate'
    return self._variants.resolve(target, _GIVEN_EVALUATE, files, settings.bindings, text=run.text)

  def cost(self, variant: Any) -> Cost:
    """See `resolved.Resolver`."""
    return variant.call(self._cost)

  def order(self, variant: Any) -> str | None:
    """See `resolved.Resolver`."""
    values = variant.values_below('dataset')
    key = frozenset((name, value) for name, value in values.items() if name.rpartition('.')[2] not in _NOT_OF_ORDER)
    if key not in self._orders:
      try:
        self._orders[key] = variant.call(self._order)
      except errors.UsageError:
        if any(self._orders.values()):  # The data are here, and it is the arm that cannot read them.
          raise
        self._orders[key] = None
    return self._orders[key]

  def tasks(self, variant: Any, parameter: str) -> list[str]:
    """See `resolved.Resolver`."""

    def names(**given: Any) -> list[str]:
      value = given.get(parameter)
      if isinstance(value, Choices):
        return [member.name for member in choices.members(value)]
      return [] if value is None else list(dataset_config.of_each_task(value))

    return variant.call(names)

  def _cost(self, *, learner: Learner, dataset: DatasetConfig, loop: LoopConfig, **_: Any) -> Cost:
    dataset_checks.check_values(dataset)
    families.check(learner.module, dataset.features)
    spec = features.batch_spec(dataset.features, dataset.task_feature_lengths, dataset.batch_size)
    families.check_length(learner.module, spec)
    flops = learner.module.flops_per_step(spec)
    return Cost(self._count(learner, spec), float(flops), count_positions(spec), loop.total_steps)

  def _count(self, learner: Learner, spec: Any) -> int:
    """Parameters of the model, by tracing its initialisation."""
    import jax
    from flax import linen as nn

    def init() -> Any:
      return nn.meta.unbox(learner.init(jax.random.key(0), batch_lib.zeros(spec)))

    module = _DROPOUT.sub('', repr(learner.module))
    key = (module, repr(learner.lora), repr(learner.trained), repr(spec))
    if key not in self._parameters:
      self._parameters[key] = tree.count_parameters(jax.eval_shape(init))
    return self._parameters[key]

  def _order(self, *, dataset: DatasetConfig, **_: Any) -> str:
    return hashes.order_hash(opened.open_dataset(dataset))
