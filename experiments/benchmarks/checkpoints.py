"""Seconds to save and to restore the training state of T5 small, beside torch.save and torch.load of transformers' own.

    python experiments/benchmarks/checkpoints.py [--rounds=3] [--folder=DIRECTORY] [--transformers_python=PYTHON]

Both sides hold 60.5 million float32 parameters; ours has Adafactor's state besides, theirs that of transformers'
Adafactor. Each round is a process of its own for each side, in turn. `blocked` is how long the training loop stands
still for a save, `saved` how long until the checkpoint is complete under its name, `restored` how long until its arrays
are back (ours placed on the device, and checked against the record of their bytes; theirs loaded into model and
optimiser).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SAVES = 3
KEYS = ('blocked', 'saved', 'restored', 'mib')


def ours(folder: pathlib.Path) -> dict[str, float]:
  import jax

  from t5x_lite.data import features
  from t5x_lite.models import t5
  from t5x_lite.partitioning.mesh import MeshShape, make_mesh
  from t5x_lite.training import checkpoints, learner, optimizers, steps

  spec = features.batch_spec(features.EncoderDecoderFeatures(), {'inputs': 512, 'targets': 114}, 4)
  taught = learner.Learner(t5.T5(t5.T5Config(vocab_size=32128)), optimizers.adafactor(0.01), 0.01)
  trainer = steps.Trainer(taught, make_mesh(MeshShape()), spec)
  state = jax.block_until_ready(trainer.init(0))
  saver = checkpoints.Checkpointer(folder, keep=1)
  blocked, saved = [], []
  for step in range(1, SAVES + 1):
    start = time.perf_counter()
    saver.save(step, state, data_state={}, config={})
    blocked.append(time.perf_counter() - start)
    saver.wait()
    saved.append(time.perf_counter() - start)
  saver.close()
  start = time.perf_counter()
  restored = checkpoints.Checkpointer(folder).restore(trainer.abstract_state)
  assert restored is not None
  jax.block_until_ready(restored.state)
  return _result(blocked[1:], saved[1:], time.perf_counter() - start, folder)


def transformers(folder: pathlib.Path) -> dict[str, float]:
  import torch
  from transformers import Adafactor, T5Config, T5ForConditionalGeneration

  shape = {'d_model': 512, 'd_ff': 2048, 'd_kv': 64, 'num_heads': 8, 'num_layers': 6, 'num_decoder_layers': 6}
  model = T5ForConditionalGeneration(T5Config(vocab_size=32128, decoder_start_token_id=0, **shape))
  optimizer = Adafactor(model.parameters(), lr=1e-3, relative_step=False)
  for parameter in model.parameters():
    parameter.grad = torch.ones_like(parameter)
  optimizer.step()
  saved = []
  for step in range(1, SAVES + 1):
    start = time.perf_counter()
    torch.save({'model': model.state_dict(), 'optimizer': optimizer.state_dict()}, folder / 'new.pt')
    (folder / 'new.pt').rename(folder / 'checkpoint.pt')
    saved.append(time.perf_counter() - start)
    assert step
  start = time.perf_counter()
  held = torch.load(folder / 'checkpoint.pt')
  model.load_state_dict(held['model'])
  optimizer.load_state_dict(held['optimizer'])
  return _result(saved[1:], saved[1:], time.perf_counter() - start, folder)


def _result(blocked: list[float], saved: list[float], restored: float, folder: pathlib.Path) -> dict[str, float]:
  """The first save is left out: it imports and starts threads."""
  size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 2**20
  return dict(zip(KEYS, (statistics.median(blocked), statistics.median(saved), restored, size), strict=True))


SIDES = {'ours': ours, 'transformers': transformers}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--folder', help='where to save; default: a temporary folder')
  parser.add_argument('--transformers_python')
  parser.add_argument('--side', choices=SIDES, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.side:
    print(json.dumps(SIDES[args.side](pathlib.Path(args.folder))))
    return
  pythons = {'ours': sys.executable}
  if args.transformers_python:
    pythons['transformers'] = args.transformers_python
  rows: dict[str, list[dict[str, float]]] = {side: [] for side in pythons}
  for _ in range(args.rounds):
    for side, python in pythons.items():
      folder = tempfile.mkdtemp(dir=args.folder)
      command = [python, __file__, f'--side={side}', f'--folder={folder}']
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      rows[side].append(json.loads(done.stdout.splitlines()[-1]))
      shutil.rmtree(folder)
  medians = {side: {key: statistics.median(row[key] for row in found) for key in KEYS} for side, found in rows.items()}
  for side, found in medians.items():
    parts = [f'{key} {found[key]:6.3f} s' for key in KEYS[:3]]
    print(f'{side:13} {"  ".join(parts)}  {found["mib"]:5.0f} MiB')
  if 'transformers' in medians:
    parts = [f'{key} {medians["ours"][key] / medians["transformers"][key]:.2f}' for key in KEYS[:3]]
    print(f'{"ratio":13} {"  ".join(parts)}')


if __name__ == '__main__':
  main()
