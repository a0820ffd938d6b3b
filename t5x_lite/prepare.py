"""Prepares data: `python -m t5x_lite.prepare COMMAND`, with `--help` after a command for its flags.

Commands:
  embedded: Build the embedded corpus and its vocabulary, and print where they lie.
  check: Tell for every task of a mixture whether its data are there.
  convert: Convert a data set that TFDS has prepared from TFRecord to ArrayRecord files.
  tokenise: Make token ids of a task or a mixture, which training then reads without tokenising.
  vocabulary: Train a SentencePiece vocabulary on the text of a task or a mixture.
  tfds: Prepare a data set through TFDS with an Apache Beam runner (needs t5x_lite[beam]).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command
from t5x_lite.cli.preparation import COMMANDS, Command
from t5x_lite.core import errors

_GIN_FILE = 'runs/prepare.gin'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  program, *rest = sys.argv if argv is None else argv
  if not rest or rest[0] in ('--help', '-h', 'help'):
    print((__doc__ or '').strip())
    return 0 if rest else command.BAD_INPUT
  name, *rest = rest
  if name not in COMMANDS:
    print(f'error: {errors.unknown("command", name, COMMANDS)}', file=sys.stderr)
    return command.BAD_INPUT
  return _run(COMMANDS[name], [program, *rest])


def _run(chosen: Command, argv: Sequence[str]) -> int:
  def files(values: flags.FlagValues) -> tuple[str]:
    for name in chosen.needed:
      if not getattr(values, name):
        raise errors.UsageError(f'no {name}: choose one with --{name}')
    return (_GIN_FILE,)

  def work(session: command.Session) -> int | None:
    session.refuse_idle_flags()
    return session.call(**{name: getattr(session.flags, name) for name in chosen.given})

  return command.run(
    argv,
    chosen.target,
    usage=chosen.usage,
    define=chosen.define,
    work=work,
    files=files,
    given=chosen.given,
    joins=False,
  )


if __name__ == '__main__':
  sys.exit(main())
