"""Trains a model, or goes on with a run: `python -m t5x_lite.train --gin_file=t5_small.gin`.

A branch goes on from another run's checkpoint in a folder of its own: --branch_from=RUN@STEP. It has the parent's
configuration, and over it the --gin_file and --gin flags that are given: another objective, mixture, schedule or
optimiser. --branch_data and --branch_schedule say where the data and the learning rate go on.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command, environment, record
from t5x_lite.cli.record import CONFIG_FILE
from t5x_lite.cli.statements import Binding
from t5x_lite.core import errors
from t5x_lite.core.checkpoint_names import LATEST, split_checkpoint

DIVERGED = 3

_RULES = ('continue', 'restart')
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
  _define_branch(values)


def _define_branch(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    'branch_from',
    None,
    'RUN (its newest checkpoint), RUN@STEP or RUN@best: the checkpoint of another run to go on from.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'branch_data',
    None,
    _RULES,
    'Whether a branch continues with the documents behind those its parent has read (the default where they are the '
    'same) or restarts from the beginning.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'branch_schedule',
    _RULES[0],
    _RULES,
    "Whether a branch's step and learning rate schedule continue at its parent's step or restart at 0.",
    flag_values=values,
  )


def _parent(values: flags.FlagValues) -> tuple[pathlib.Path, str]:
  """The folder of the parent of a branch, and which of its checkpoints."""
  source, which = split_checkpoint(values.branch_from)
  folder = pathlib.Path(source).expanduser().absolute()
  if (folder / CONFIG_FILE).is_file():
    return folder, which
  if (folder.parent / CONFIG_FILE).is_file() and folder.is_dir():  # one checkpoint in it
    return folder.parent, folder.name
  raise errors.UsageError(
    f'--branch_from={values.branch_from}: no {CONFIG_FILE} there; expected the MODEL_DIR of a run'
  )


def _files(values: flags.FlagValues) -> tuple[str, ...]:
  """The parent's configuration, which that of a branch is based on."""
  if values.branch_from is None:
    for name in ('branch_data', 'branch_schedule'):
      if values[name].present:
        raise errors.UsageError(f'--{name} is for a branch: expected --branch_from=RUN@STEP too')
    return ()
  return (str(_parent(values)[0] / CONFIG_FILE),)


def _bindings(values: flags.FlagValues) -> list[Binding]:
  """What a branch has instead of its parent's: a folder beside it unless another is chosen, and its own rules."""
  if values.branch_from is None:
    return []
  folder, which = _parent(values)
  source, said = split_checkpoint(values.branch_from)
  source = str(pathlib.Path(source).expanduser().absolute()) + ('' if said == LATEST else f'@{said}')
  stems = [pathlib.PurePath(name).stem for name in values.gin_file] or ['branch']
  own = '-'.join([folder.name, *([] if which == LATEST else [which]), *stems])
  chosen = {
    'branch_from': source,
    'branch_data': values.branch_data,
    'branch_schedule': values.branch_schedule,
  }
  origin = f'--branch_from={values.branch_from}'
  return [
    Binding('', '', 'MODEL_DIR', str(folder.with_name(own)), origin),
    *(Binding('', 'runs.train.train', name, value, origin) for name, value in chosen.items()),
  ]


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
    argv, 'runs.train.train', usage=__doc__, define=_define, work=_train, given=_GIVEN, files=_files, bindings=_bindings
  )


if __name__ == '__main__':
  environment.leave(main)
