"""Trains a model, or goes on with a run: `python -m t5x_lite.train --gin_file=t5_small.gin`.

A branch goes on from another run's checkpoint in a folder of its own: --branch_from=RUN@STEP. It has the parent's
configuration, and over it the --gin_file and --gin flags that are given: another objective, mixture, schedule or
optimiser. --branch_data and --branch_schedule say where the data and the learning rate go on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import branch, command, environment, record

DIVERGED = 3

_GIVEN = ('config', 'dry_run', 'profile_steps', 'heartbeat_timeout')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_bool('dry_run', False, 'Print the configuration and the size of the run, and stop.', flag_values=values)
  flags.DEFINE_bool(
    record.ALLOW_CHANGE, False, 'Go on with a run under another configuration than it began with.', flag_values=values
  )
  flags.DEFINE_string(
    'profile_steps',
    None,
    'FIRST:LAST: steps, both included, to write a trace of to MODEL_DIR/profile.',
    flag_values=values,
  )
  branch.define(values)


def _train(session: command.Session) -> int | None:
  session.refuse_idle_flags()
  if session.flags.dry_run:
    print('\n'.join(record.summary(session.record.values)))
  from t5x_lite.training.monitor import TrainingDiverged  # JAX is imported by now, and was not at the start.

  try:
    return session.call(
      config=session.record, **{name: getattr(session.flags, name) for name in _GIVEN if name != 'config'}
    )
  except TrainingDiverged as error:
    print(f'error: {error}', file=sys.stderr)
    return DIVERGED


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(
    argv,
    'runs.train.train',
    usage=__doc__,
    define=_define,
    work=_train,
    given=_GIVEN,
    files=branch.files,
    bindings=branch.bindings,
  )


if __name__ == '__main__':
  environment.leave(main)
