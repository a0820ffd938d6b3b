"""Tokens per second of the data pipeline on one core, ours and the peers' on the same text and vocabulary, with ratios.

    python experiments/benchmarks/data.py
    python experiments/benchmarks/data.py --seqio_python=PATH --hf_python=PATH --wordpiece=DIR

`--seqio_python` has seqio and t5, `--hf_python` torch and transformers, `--wordpiece` is the folder of a published BERT
tokenizer; what is not given is left out. The text is the embedded corpus, cut into documents as long as those of C4, in
a file that all read. All run on one core, each in a process of its own, in turns: whoever has no turn is stopped.
Tokens are those of all sides that are not padding, seconds are those of the processor, so that others on the machine
disturb less; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
import tempfile

import data_ours
import data_rounds

_HERE = pathlib.Path(__file__).parent
_MEMORY_BATCHES = (1_000, 9_000)  # the second on top of the first
_MEMORY_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Arm:
  """One row of the table: who makes the batches, how, and what its tokens/s are compared with.

  Attributes:
    title: of the row.
    python: the interpreter.
    script: `data_ours.py` or `data_peers.py`.
    name: of the arm in the script.
    options: for it.
    base: title of the row to compare with, above or below.
    goal: least ratio to that row.
    least: least tokens/s.
  """

  title: str
  python: str
  script: str
  name: str
  options: dict[str, object] = dataclasses.field(default_factory=dict)
  base: str | None = None
  goal: float | None = None
  least: float | None = None


def arms(args: argparse.Namespace) -> list[Arm]:
  """The rows of the table, for the peers that there are."""

  def ours(title: str, name: str, base: str | None = None, goal: float | None = None, **options: object) -> Arm:
    return Arm(title, sys.executable, 'data_ours.py', name, options, base, goal)

  def peer(title: str, python: str, name: str, **options: object) -> Arm:
    return Arm(title, python, 'data_peers.py', name, options)

  seqio, collators = 'seqio, span corruption', ('transformers, collator to torch', 'transformers, collator to NumPy')
  found = [ours('span corruption, packed', 'span_corruption', *((seqio, 5.0) if args.seqio_python else ()))]
  if args.seqio_python:
    found.append(peer(seqio, args.seqio_python, 'seqio_span_corruption'))
  from_ids = ours('span corruption, packed, from ids', 'span_corruption', found[0].title, ids=True)
  found.append(dataclasses.replace(from_ids, least=5e6))
  against = (collators[0], 2.0) if args.hf_python else ()
  found.append(ours('masked LM, collation of ready ids', 'collation', *against))
  found.append(ours('masked LM, packed, from ids', 'masked_lm', *against, ids=True))
  if args.hf_python:
    kinds = zip(collators, ('pt', 'np'), strict=True)
    found += [peer(title, args.hf_python, 'hugging_face_collation', return_tensors=kind) for title, kind in kinds]
  if args.wordpiece:
    pipeline, whole = 'masked LM, packed, with WordPiece', 'transformers, tokenizer to batches'
    against = (whole, 1.0) if args.hf_python else ()
    found.append(ours(pipeline, 'masked_lm', *against, wordpiece=args.wordpiece))
    if args.hf_python:
      found.append(peer(whole, args.hf_python, 'hugging_face_masked_lm', wordpiece=args.wordpiece))
    found.append(ours('WordPiece alone', 'tokenizer_alone', pipeline, wordpiece=args.wordpiece))
  return found


def measure(chosen: list[Arm], args: argparse.Namespace, folder: str) -> dict[str, list[float]]:
  """Tokens per second of the processor, by title, round by round."""
  speeds: dict[str, list[float]] = {arm.title: [] for arm in chosen}
  with contextlib.ExitStack() as stack:
    processes = {}
    for arm in chosen:
      process = data_rounds.Process(arm.python, _HERE / arm.script, arm.name, args.core, folder, **arm.options)
      processes[arm.title] = stack.enter_context(contextlib.closing(process))
    for _ in range(args.rounds):
      for title, process in processes.items():
        found = process.turn(seconds=args.seconds)
        speeds[title].append(found['tokens'] / found['cpu'])
  return speeds


def show(chosen: list[Arm], speeds: dict[str, list[float]]) -> None:
  """Prints the table."""
  print(f'{"":36} {"Mtokens/s":>9}  ratio and goal')
  for arm in chosen:
    speed = statistics.median(speeds[arm.title])
    notes = []
    if arm.base is not None:
      pairs = zip(speeds[arm.title], speeds[arm.base], strict=True)
      ratio = statistics.median(own / other for own, other in pairs)
      notes.append(f'{ratio:.2f} of {arm.base}' + (f' (goal {arm.goal:.2f})' if arm.goal else ''))
    if arm.least is not None:
      notes.append(f'{speed / arm.least:.2f} of the goal of {arm.least / 1e6:.0f} Mtokens/s')
    print(f'{arm.title:36} {speed / 1e6:9.2f}  {"; ".join(notes)}'.rstrip())


def memory(args: argparse.Namespace, folder: str) -> None:
  """Prints the resident memory early and late in a run."""
  process = data_rounds.Process(
    sys.executable, _HERE / 'data_ours.py', 'span_corruption', args.core, folder, rows=_MEMORY_ROWS
  )
  with contextlib.closing(process):
    early, late = (process.turn(batches=count)['rss'] for count in _MEMORY_BATCHES)
  total = sum(_MEMORY_BATCHES)
  print(
    f'resident memory of span corruption from text, batches of {_MEMORY_ROWS}: {early:.1f} MiB after '
    f'{_MEMORY_BATCHES[0]:,} batches, {late:.1f} MiB after {total:,} ({late - early:+.1f})'
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seqio_python', help='a Python with seqio and t5')
  parser.add_argument('--hf_python', help='a Python with torch and transformers')
  parser.add_argument('--wordpiece', help='folder of a published BERT tokenizer')
  parser.add_argument('--core', type=int, default=max(os.sched_getaffinity(0)), help='number of the core')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--seconds', type=float, default=3.0, help='of a turn')
  parser.add_argument('--memory', action=argparse.BooleanOptionalAction, default=True)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    data_ours.prepare(pathlib.Path(folder))
    chosen = arms(args)
    print(f'core {args.core}, {args.rounds} rounds of {args.seconds:g} s, batches of {data_ours.ROWS} rows')
    show(chosen, measure(chosen, args, folder))
    if args.memory:
      memory(args, folder)


if __name__ == '__main__':
  main()
