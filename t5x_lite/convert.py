"""Converts a model: `python -m t5x_lite.convert --source=google-t5/t5-small --target=DIRECTORY --to=t5x_lite`.

The source is a Hugging Face directory or a name on its hub, a MODEL_DIR of ours, or a T5X checkpoint. The target is a
directory that transformers loads (--to=hf), or a MODEL_DIR (--to=t5x_lite) for infer and INITIAL_CHECKPOINT_PATH.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command
from t5x_lite.core import errors

FORMATS = ('hf', 't5x_lite')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('source', None, 'A directory, a name on the hub, a MODEL_DIR, a checkpoint.', flag_values=values)
  flags.DEFINE_string('target', None, 'The directory to write; it is there only when it is whole.', flag_values=values)
  flags.DEFINE_string('to', None, f'What to write: {" or ".join(FORMATS)}.', flag_values=values)
  flags.DEFINE_bool('overwrite', False, 'Replace the model at the target.', flag_values=values)


def _files(values: flags.FlagValues) -> tuple[str]:
  for name in ('source', 'target', 'to'):
    if not getattr(values, name):
      raise errors.UsageError(f'no {name}: choose one with --{name}')
  if values.to not in FORMATS:
    raise errors.unknown('format', values.to, FORMATS)
  return ('runs/convert.gin',)


def _convert(session: command.Session) -> int | None:
  session.refuse_idle_flags()
  given = session.flags
  return session.call(source=given.source, target=given.target, to=given.to, overwrite=given.overwrite)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  given = ('source', 'target', 'to', 'overwrite')
  return command.run(
    argv, 'runs.convert.convert', usage=__doc__, define=_define, work=_convert, files=_files, given=given, joins=False
  )


if __name__ == '__main__':
  sys.exit(main())
