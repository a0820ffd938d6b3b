"""Shows what a run would read: `python -m t5x_lite.inspect_data --gin_file=t5_small.gin --num=3`.

`--hash=50 --hosts=4` adds the hash of the first 50 global batches as 4 hosts together would read them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command

_GIVEN = ('num', 'hashed_batches', 'hosts', 'as_json', 'page', 'documents')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_integer('num', 3, 'How many examples to print.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('hash', None, 'Hash so many global batches.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('hosts', None, 'Read them as so many processes would.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer(
    'documents',
    1000,
    'Count duplicates and empty ones among so many records of a task.',
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_bool('json', False, 'Print one JSON object, for machines.', flag_values=values)
  flags.DEFINE_string('html', None, 'Also write an HTML page to this file.', flag_values=values)


def _inspect(session: command.Session) -> int | None:
  given = session.flags
  return session.call(
    num=given.num,
    hashed_batches=given.hash,
    hosts=given.hosts,
    as_json=given.json,
    page=given.html,
    documents=given.documents,
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(
    argv, 'runs.inspect_data.inspect_data', usage=__doc__, define=_define, work=_inspect, given=_GIVEN, joins=False
  )


if __name__ == '__main__':
  sys.exit(main())
