"""What TPUs would need, by their compiler and with no TPU: memory and compile time beside T5X, and xxl on 8 to 512.

    pip install '.[tpu]'
    python experiments/benchmarks/tpu.py peer --t5x=T5X_CHECKOUT [--rounds=1]
    python experiments/benchmarks/tpu.py devices [--quick]

`peer`: the train step of T5 1.1 base on v5e:2x4, 128 rows of 512 / 114, bfloat16, no dropout, by
`python -m t5x_lite.plan` and by T5X's own network (see `tpu_peers.py`), taking turns: layers unrolled with no product
computed again, and scanned with all of a layer computed again; parameters on every device, and scanned also as
`meshes/v5e_2x4.gin` cuts them. Ratios are ours to T5X's; the goal of each is one half.

`devices`: memory of a device for T5 1.1 xxl (11B), fully sharded, from 8 devices of v5p to 512, with 8 rows a device.
The ratio is of the state (parameters and optimiser), times devices, to what 8 devices hold: 1 is exactly 1 / devices.
`--quick` has the compiler take the least effort, see `plan`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

PEER = pathlib.Path(__file__).with_name('tpu_peers.py')
TOPOLOGY, ROWS = 'v5e:2x4', 128
UNROLLED, SCANNED = 'unrolled', 'scanned, full remat'
ON_EACH, CUT = 'meshes/data_parallel.gin', 'meshes/v5e_2x4.gin'
_FULL = ['REMAT_POLICY=full', 'Learner.vocab_chunk=4096']
OURS = (  # as what, beside which of T5X's, on which mesh, and how
  ('ours', UNROLLED, ON_EACH, ['SCAN_LAYERS=False', 'REMAT_POLICY=elementwise']),
  ('ours', SCANNED, ON_EACH, _FULL),
  ('ours, parameters cut', SCANNED, CUT, _FULL),
)
CURVE = {'v5p:2x2x2': 8, 'v5p:2x2x4': 16, 'v5p:4x4x4': 64, 'v5p:4x8x8': 256, 'v5p:8x8x8': 512}
GIB = 1 << 30


def last_json(command: list[str]) -> dict[str, Any]:
  """The JSON that a command prints in its last line."""
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    sys.exit(f'{" ".join(command)} failed:\n{done.stderr}')
  return json.loads(done.stdout.strip().splitlines()[-1])


def plan(gin_files: list[str], topology: str, settings: list[str], flags: tuple[str, ...] = ()) -> dict[str, Any]:
  """What `plan` says."""
  command = [sys.executable, '-m', 't5x_lite.plan', *(f'--gin_file={name}' for name in gin_files)]
  command += [f'--topology={topology}', '--json', *flags, *(f'--gin.{setting}' for setting in settings)]
  return last_json(command)


def peer(checkout: str, rounds: int) -> None:
  """Ours beside T5X's."""
  found: dict[tuple[str, str], list[dict[str, float]]] = {}
  for _ in range(rounds):
    for form in (UNROLLED, SCANNED):
      theirs = [sys.executable, str(PEER), checkout, TOPOLOGY, 'base', str(ROWS)]
      found.setdefault((form, 'T5X'), []).append(last_json(theirs + ['--scanned'] * (form == SCANNED)))
    for whose, form, mesh, settings in OURS:
      common = [f'BATCH_SIZE={ROWS}', 'ACTIVATION_DTYPE=bfloat16', 'DROPOUT_RATE=0.0']
      ours = plan(['t5_1_1_base.gin', mesh], TOPOLOGY, common + settings)
      temporaries = ours['memory']['temporaries_bytes'] + ours['memory']['activations_bytes']
      row = {'temporaries_bytes': temporaries, 'compile_seconds': ours['compile_seconds']}
      found.setdefault((form, whose), []).append(row)
  print('| | temporaries, GiB | ratio | compile, s | ratio |\n|---|---|---|---|---|')
  for (form, whose), rows in sorted(found.items(), reverse=True):
    names = ('temporaries_bytes', 'compile_seconds')
    memory, seconds = (statistics.median(row[name] for row in rows) for name in names)
    beside = [statistics.median(row[name] for row in found[form, 'T5X']) for name in names]
    ratios = [value / other for value, other in zip((memory, seconds), beside, strict=True)]
    print(f'| {form}, {whose} | {memory / GIB:.2f} | {ratios[0]:.2f} | {seconds:.0f} | {ratios[1]:.2f} |')


def devices(flags: tuple[str, ...]) -> None:
  """The curve of xxl."""
  print('| topology | devices | state, GiB | x devices / 8 | all, GiB | fits |\n|---|---|---|---|---|---|')
  first = None
  for topology, count in CURVE.items():
    settings = [f'BATCH_SIZE={8 * count}', 'ACTIVATION_DTYPE=bfloat16', 'REMAT_POLICY=full', 'Learner.vocab_chunk=4096']
    found = plan(['t5_1_1_xxl.gin', 'meshes/fsdp.gin'], topology, settings, flags)
    memory = found['memory']
    state = memory['parameters_bytes'] + memory['optimizer_bytes']
    first = first or state * count
    row = [topology, str(count), f'{state / GIB:.3f}', f'{state * count / first:.3f}']
    print(f'| {" | ".join(row)} | {memory["total_bytes"] / GIB:.2f} | {"yes" if found["fits"] else "no"} |', flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(dest='command', required=True)
  beside = commands.add_parser('peer')
  beside.add_argument('--t5x', required=True, help="T5X's repository")
  beside.add_argument('--rounds', type=int, default=1)
  curve = commands.add_parser('devices')
  curve.add_argument('--quick', action='store_true', help='the least effort')
  args = parser.parse_args()
  if args.command == 'peer':
    peer(args.t5x, args.rounds)
  else:
    devices(('--quick',) if args.quick else ())


if __name__ == '__main__':
  main()
