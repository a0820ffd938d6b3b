"""Compares arms of an ablation: `python -m t5x_lite.sweep --gin_file=experiments/dropout.gin --output=sweeps/dropout`.

The gin file binds `Sweep`: a base run, what is varied on which axes, seeds, a budget to hold equal and the metrics to
compare. The plan is printed first: arms, what differs between them in resolved values, what each costs, which settings
are inert. What is unfair or impossible is refused before anything runs. Then the arms run, `--parallel` at once, each
as a `python -m t5x_lite.train`. Interrupted in any way, the same command goes on; nothing is done twice.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command
from t5x_lite.cli.variants import Variants
from t5x_lite.core import errors

_FLAGS = ('output', 'engine', 'parallel', 'storage', 'dry_run', 'retry_failed')
_GIVEN = ('variants', 'search_paths', *_FLAGS)
_ENGINES = ('local', 'slurm')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('output', None, 'The folder of the sweep.', flag_values=values)
  flags.DEFINE_enum('engine', 'local', _ENGINES, 'What runs arms: this machine, or Slurm.', flag_values=values)
  flags.DEFINE_integer('parallel', 1, 'How many runs at once.', lower_bound=1, flag_values=values)
  flags.DEFINE_string(
    'storage',
    None,
    'The database of the study, such as postgresql://USER@HOST/NAME (default: SQLite in the folder).',
    flag_values=values,
  )
  flags.DEFINE_bool('dry_run', False, 'Print the plan and stop.', flag_values=values)
  flags.DEFINE_bool('retry_failed', False, 'Begin runs that have failed again.', flag_values=values)


def _files(values: flags.FlagValues) -> tuple[str, ...]:
  if not values.gin_file:
    raise errors.UsageError('no gin file: choose one with --gin_file, such as --gin_file=experiments/dropout.gin')
  if values.output is None:
    raise errors.UsageError('no folder: choose one with --output, such as --output=sweeps/dropout')
  return ('runs/sweep.gin',)


def _sweep(session: command.Session) -> int | None:
  session.refuse_idle_flags()
  paths = [path for path in session.flags.gin_search_paths if path]
  given = {name: getattr(session.flags, name) for name in _FLAGS}
  return session.call(variants=Variants(paths), search_paths=paths, **given)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(
    argv, 'runs.sweep.sweep', usage=__doc__, define=_define, work=_sweep, files=_files, given=_GIVEN, devices=False
  )


if __name__ == '__main__':
  sys.exit(main())
