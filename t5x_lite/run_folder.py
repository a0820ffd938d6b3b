"""The folder of a run: held by one run at a time, and saying what the run is made of."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import jax

import t5x_lite
from t5x_lite.core import errors, tree
from t5x_lite.training import processes
from t5x_lite.training.steps import Trainer

MODEL_INFO = 'model-info.txt'  # T5X's name
RUN_INFO = 'run-info.json'
FIRST_BATCHES = 'first_batches'  # beside it: how many, and their hash, as soon as they have been trained on
DOCUMENT_ORDER = 'document_order'  # beside the fingerprint of a run's data: `data.hashes.order_hash` of them
LINEAGE = 'lineage'  # in it, of a branch
_LOCK = '.lock'


def locate(model_dir: str) -> str:
  """The absolute path that `model_dir` means.

  Raises:
    UsageError: it is empty, or the address of a bucket: folders are local or mounted.
  """
  if not model_dir.strip():
    raise errors.UsageError('MODEL_DIR is empty: expected a folder')
  if '://' in model_dir:
    raise errors.UsageError(f'MODEL_DIR={model_dir}: expected a local folder (mount the bucket)')
  return str(pathlib.Path(model_dir).expanduser().absolute())


@contextlib.contextmanager
def hold(model_dir: str) -> Iterator[None]:
  """Makes the folder, and keeps other runs out of it. The lock goes with the process, however that ends.

  A folder that was not there before, and in which nothing has been written, is removed at the end.

  Raises:
    UsageError: a run that is still going on holds it, or it cannot be made.
  """
  if not processes.is_primary():
    yield
    return
  folder = pathlib.Path(model_dir)
  made = [path for path in (folder, *folder.parents) if not path.exists()]
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / _LOCK).open('w')
  except OSError as error:
    raise errors.UsageError(f'MODEL_DIR={model_dir}: cannot write there ({error.strerror})') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.UsageError(f'MODEL_DIR={model_dir}: another run is going on there; choose another folder') from None
    except OSError:  # A file system without locks: nothing to hold.
      pass
    try:
      yield
    finally:
      _remove_unused(made)


def _remove_unused(made: list[pathlib.Path]) -> None:
  """Removes the folders that `hold` has made, innermost first, unless something besides the lock is in them."""
  with contextlib.suppress(OSError):
    if made and [path.name for path in made[0].iterdir()] == [_LOCK]:
      (made[0] / _LOCK).unlink()
      for path in made:
        path.rmdir()  # Not if there is something in it.


def write_info(
  model_dir: str, trainer: Trainer, data: Mapping[str, Any], seed: int, lineage: Mapping[str, Any] | None = None
) -> None:
  """Writes `model-info.txt` and `run-info.json`.

  Args:
    model_dir: the folder.
    trainer: of the run.
    data: the fingerprint of its data, and the hash of their order.
    seed: of parameters and dropout.
    lineage: of a branch: what it began with.
  """
  params = tree.named_leaves(trainer.abstract_state.params)
  rows = [f'{name}  {leaf.dtype}{list(leaf.shape)}  {leaf.sharding.spec}' for name, leaf in params.items()]
  total = tree.count_parameters(trainer.abstract_state.params)
  _write(pathlib.Path(model_dir) / MODEL_INFO, '\n'.join([*rows, f'total: {total:,} parameters', '']))
  info = {
    't5x_lite': t5x_lite.__version__,
    'jax': jax.__version__,
    'python': platform.python_version(),
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'processes': jax.process_count(),
    'seed': seed,
    'parameters': total,
    'flops_per_step': trainer.learner.module.flops_per_step(trainer.batch_spec),
    'data': dict(data),
  }
  if lineage:
    info[LINEAGE] = dict(lineage)
  path = pathlib.Path(model_dir) / RUN_INFO
  known = _read(path).get('data', {})
  if FIRST_BATCHES in known and dict(data) == {name: value for name, value in known.items() if name != FIRST_BATCHES}:
    info['data'][FIRST_BATCHES] = known[FIRST_BATCHES]  # a run that goes on does not see them again
  _write(path, json.dumps(info, indent=2) + '\n')


def add_first_batches(model_dir: str, batches: int, digest: str) -> None:
  """Adds to `run-info.json` the hash of the first batches, see `data.hashes.stream_hash`."""
  path = pathlib.Path(model_dir) / RUN_INFO
  info = _read(path)
  info.setdefault('data', {})[FIRST_BATCHES] = {'batches': batches, 'hash': digest}
  _write(path, json.dumps(info, indent=2) + '\n')


def read_lineage(model_dir: str | os.PathLike[str]) -> dict[str, Any]:
  """The lineage in `run-info.json`; empty for what is no branch."""
  return _read(pathlib.Path(model_dir) / RUN_INFO).get(LINEAGE, {})


def _read(path: pathlib.Path) -> dict[str, Any]:
  """What a JSON file holds; nothing if it is not there or broken."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return {}


def fingerprints(data: Mapping[str, Any]) -> str:
  """One line for the log: which data, in which order, and which vocabulary a run reads, as `write_info` has them."""
  sources = ', '.join(f'{name} {_short(value)}' for name, value in data['sources'].items())
  order = f'; document order {_short(data[DOCUMENT_ORDER])}' if DOCUMENT_ORDER in data else ''
  return f'data fingerprints: {sources}; vocabulary {_short(data["tokenizer"])}{order}'


def _short(fingerprint: str) -> str:
  return fingerprint if len(fingerprint) <= 24 else fingerprint[:16]


def _write(path: pathlib.Path, text: str) -> None:
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)
