"""Branches on the command line: another run's checkpoint, with its configuration, goes on with something changed."""

from __future__ import annotations

import pathlib

from absl import flags

from t5x_lite.cli.record import CONFIG_FILE
from t5x_lite.cli.statements import Binding
from t5x_lite.core import errors
from t5x_lite.core.checkpoint_names import LATEST, split_checkpoint

_RULES = ('continue', 'restart')


def define(values: flags.FlagValues) -> None:
  """Adds the flags."""
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
  run, at, step = source.rpartition('@')
  if at and (pathlib.Path(run).expanduser() / CONFIG_FILE).is_file():
    raise errors.UsageError(f'--branch_from={values.branch_from}: {step!r} is no checkpoint: expected a step or best')
  raise errors.UsageError(
    f'--branch_from={values.branch_from}: no {CONFIG_FILE} there; expected the MODEL_DIR of a run'
  )


def files(values: flags.FlagValues) -> tuple[str, ...]:
  """The parent's configuration, which that of a branch is based on."""
  if values.branch_from is None:
    for name in ('branch_data', 'branch_schedule'):
      if values[name].present:
        raise errors.UsageError(f'--{name} is for a branch: expected --branch_from=RUN@STEP too')
    return ()
  return (str(_parent(values)[0] / CONFIG_FILE),)


def bindings(values: flags.FlagValues) -> list[Binding]:
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
