"""Makes a page of runs and sweeps: `python -m t5x_lite.report runs/a runs/b --output=report.html`.

Each word is the MODEL_DIR of a run or the folder of a sweep. The page is one file that needs no network: curves, tables
of evaluations, samples, configurations and what differs between them. With --serve it is shown at http://127.0.0.1:8008
instead, and follows runs that are still going on, until Ctrl-C.

Attention maps are shown that `infer --mode=attention --output=RUN/attention.jsonl` has written: of files of such names
(attention*.jsonl) in the folders of runs, and of files of JSON lines that are given beside them.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command, record
from t5x_lite.core import errors


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('output', None, 'The HTML file to write; it is there only when it is whole.', flag_values=values)
  flags.DEFINE_bool('serve', False, 'Show the page on this machine and follow the runs.', flag_values=values)
  flags.DEFINE_integer(
    'port', 8008, 'Where to show it; 0: any that is free.', lower_bound=0, upper_bound=65535, flag_values=values
  )
  flags.DEFINE_string('title', None, 'The heading of the page; default: the names of the folders.', flag_values=values)


def _report(given: flags.FlagValues, words: tuple[str, ...]) -> int:
  from t5x_lite.reporting import folders, page, payload, server  # NumPy comes with them

  if not words:
    raise errors.UsageError('no run: expected the folder of a run or a sweep, such as runs/t5_small')
  if not given.output and not given.serve:
    raise errors.UsageError('nowhere to put the page: expected --output=report.html or --serve')
  if given.output:
    folders.check_output(given.output)
  found = folders.find(words, may_wait=given.serve)
  reader = payload.FolderReader(found, record.may_change, given.title)
  if given.output:
    text = page.render(reader.read())
    page.write(given.output, text)
    print(f'{pathlib.Path(given.output)}: {reader.describe()}, {len(text.encode()) / 2**20:.1f} MiB')
  if given.serve:
    server.serve(reader, given.port)
  return 0


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run_words(argv, usage=__doc__, define=_define, work=_report)


if __name__ == '__main__':
  sys.exit(main())
