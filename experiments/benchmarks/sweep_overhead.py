"""What a sweep costs beside its runs: 200 arms of a command that does nothing.

    python experiments/benchmarks/sweep_overhead.py [--arms=200] [--parallel=2]

Every arm differs from the others in its learning rate; all are resolved, checked, planned, supervised, judged and
written down as in any sweep, and so is the table at the end. The time of the commands themselves is measured apart, by
running them without a sweep, and taken off. Prints seconds an arm, and as a ratio to the limit of 0.2 s.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

LIMIT = 0.2  # seconds an arm

# As a run does, it leaves metrics; a bare interpreter, so that it takes as little as it can.
STUB = """
import json, pathlib, sys
flags = dict(argument.lstrip('-').split('=', 1) for argument in sys.argv[1:])
folder = pathlib.Path(flags['gin.MODEL_DIR'])
folder.mkdir(parents=True, exist_ok=True)
rows = [{'split': 'train', 'step': 150, 'loss': 1.0}]
rows += [{'split': 'validation', 'task': 'embedded_text', 'step': 150, 'loss': 2.0}]
(folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\\n' for row in rows))
"""


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--arms', type=int, default=200)
  parser.add_argument('--parallel', type=int, default=2)
  asked = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    stub = folder / 'stub.py'
    stub.write_text(STUB)
    command = (sys.executable, '-I', '-S', str(stub))
    values = {f'{n}': f'PEAK_LEARNING_RATE={0.01 + n / 10000}' for n in range(asked.arms)}
    (folder / 'sweep.gin').write_text(
      f"Sweep:\n  base = ('t5_tiny.gin',)\n  axes = {{'rate': {values!r}}}\n"
      f"  command = {command!r}\n  metrics = ('embedded_text/loss',)\n"
    )
    start = time.perf_counter()
    run = [sys.executable, '-m', 't5x_lite.sweep', f'--gin_file={folder / "sweep.gin"}', f'--output={folder / "out"}']
    subprocess.run([*run, f'--parallel={asked.parallel}'], check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    assert len((folder / 'out' / 'outcomes.jsonl').read_text().splitlines()) == asked.arms
    start = time.perf_counter()
    for n in range(asked.arms):
      subprocess.run([*command, f'--gin.MODEL_DIR={folder / "alone" / str(n)}'], check=True)
    alone = (time.perf_counter() - start) / asked.parallel
  overhead = (whole - alone) / asked.arms
  row = {'arms': asked.arms, 'seconds': whole, 'commands_alone': alone, 'seconds_an_arm': overhead}
  print(json.dumps({name: round(value, 4) for name, value in row.items()} | {'of_limit': round(overhead / LIMIT, 3)}))


if __name__ == '__main__':
  main()
