"""Where the metrics of a sweep come from, and whether they are measured on the same in all arms."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps.resolved import Resolver, Variant, differences
from t5x_lite.sweeps.spec import Sweep

OWN = ''  # the source of metrics that are of a run's own evaluations

# Of an evaluation set, what has no influence on what is measured.
_NOT_OF_EVALUATION = ('DatasetConfig.prefetch', 'DatasetConfig.shuffle', 'DatasetConfig.repeat')
# And what has, where texts are continued that are cut before any tokenizer, objective or feature converter sees them.
_MIXTURE = 'DatasetConfig.mixture_or_task_name'
_SPLIT = 'DatasetConfig.split'
_OF_CONTINUATIONS = (_MIXTURE, _SPLIT)
_CHOICES = 'choices'  # the argument of an evaluation


def source_of(sweep: Sweep, metric: str) -> tuple[str, str, str]:
  """Where a metric comes from: an evaluation or `OWN`, the task, and its name there.

  Raises:
    UsageError: it does not say of which task it is.
  """
  first, _, rest = metric.partition('/')
  source, named = (first, rest) if first in sweep.evaluations else (OWN, metric)
  task, slash, name = named.partition('/')
  if not (task and slash and name):
    raise errors.UsageError(f'metric {metric!r}: expected TASK/METRIC or EVALUATION/TASK/METRIC')
  return source, task, name


def check(sweep: Sweep, resolver: Resolver, variants: Mapping[str, Variant], named: str) -> None:
  """Checks the evaluations that metrics come from: that they are there, have the task, and are the same in all arms."""
  sources = {source_of(sweep, metric)[0]: metric for metric in sweep.metrics}
  for source in (OWN, *sweep.evaluations):
    parameter = 'dataset' if source else 'eval_dataset'
    made = dict(variants)
    if source:
      own = sweep.evaluation(source)
      for name, variant in variants.items():
        try:
          made[name] = resolver.evaluation(variant, own)
        except errors.UsageError as error:
          raise errors.UsageError(f'evaluation {source!r} of arm {name!r}: {error}') from error
    if source not in sources:
      continue
    wanted = {metric: task for metric in sweep.metrics for of, task, _ in [source_of(sweep, metric)] if of == source}
    of_mixture = {repr(_mixture(made[name], parameter)): name for name in (*made, named)}
    chosen: Sequence[str] = ()
    for name in sorted(of_mixture.values(), key=lambda name: name != named):
      chosen = resolver.tasks(made[name], _CHOICES) if source else ()
      known = (*resolver.tasks(made[name], parameter), *chosen)
      for metric, task in wanted.items():
        if task not in known:
          where = '' if name == named else f' in arm {name!r}'
          raise errors.unknown(f'task of metric {metric!r}{where}:', task, known)
    kinds = {task in chosen: metric for metric, task in wanted.items()} if sweep.same_evaluation else {}
    for is_choice, metric in kinds.items():
      of = _choices if is_choice else functools.partial(_evaluation_set, parameter=parameter)
      _check_same(metric, {name: of(each) for name, each in made.items()}, named)


def _mixture(variant: Variant, parameter: str) -> tuple[Any, ...]:
  """What an evaluation is a mixture of, and what is chosen from besides."""
  values = variant.values_below(parameter).items()
  named = [value for key, value in values if key.rpartition('/')[2] == _MIXTURE]
  return named, variant.values_below(f'{parameter}.mixture_or_task_name'), variant.values_below(_CHOICES)


def _choices(variant: Variant) -> dict[str, str]:
  """What a choice among answers depends on: neither tokenizer, objective nor feature converter sees it before."""
  values = variant.values_below('dataset').items()
  return variant.values_below(_CHOICES) | {key: own for key, own in values if key.rpartition('/')[2] == _SPLIT}


def _evaluation_set(variant: Variant, parameter: str) -> dict[str, str]:
  """What a metric depends on. Tasks are evaluated one by one, whatever the mixture and its rates."""
  values = variant.values_below(parameter)
  continued = variant.values_below('continuations') if parameter == 'dataset' else {}
  mixed = variant.values_below(f'{parameter}.mixture_or_task_name')
  is_mixture = any(key.rpartition('/')[2].startswith('Mixture.') for key in mixed)
  dropped = {*_NOT_OF_EVALUATION, *((_MIXTURE,) if is_mixture or not mixed else ())}
  kept = {key: value for key, value in values.items() if key.rpartition('/')[2] not in dropped}
  if is_mixture:
    kept = {key: value for key, value in kept.items() if key not in mixed}
  if continued:
    kept = {key: value for key, value in kept.items() if key in mixed or key.rpartition('/')[2] in _OF_CONTINUATIONS}
    return continued | kept
  return kept if parameter == 'dataset' else kept | {'eval_steps': variant.values.get('train.eval_steps', 'None')}


def _check_same(metric: str, sets: Mapping[str, Mapping[str, str]], named: str) -> None:
  for name, values in sets.items():
    changed = differences(sets[named], values)
    if changed:
      raise errors.UsageError(
        f'metric {metric!r} is not measured on the same in arm {name!r} as in the baseline {named!r} ({changed[0]}): '
        'compare metrics of one of Sweep.evaluations, or set Sweep.same_evaluation = False'
      )
