"""Sweeps without models: bindings are their own values, and runs are scripts."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import pytest

from t5x_lite.core import errors
from t5x_lite.sweeps import conduct, local, plan, spec
from t5x_lite.sweeps.budget import Cost

# A run: it counts its starts, and does what the file `do` beside it says for its arm and seed.
STUB = """
import json, os, pathlib, re, signal, sys, time
flags = dict(a.removeprefix('--').split('=', 1) for a in sys.argv[1:])
folder, seed = pathlib.Path(flags['gin.MODEL_DIR']), int(flags['gin.RANDOM_SEED'])
rate = float(re.search(r'RATE=(.*)', pathlib.Path(flags['gin_file']).read_text())[1])
folder.mkdir(parents=True, exist_ok=True)
with (folder / 'starts').open('a') as file:
  file.write('x')
starts = (folder / 'starts').stat().st_size
out, more = 'loss', [{'split': 'train', 'step': 10, 'loss': 1.0}]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
do = pathlib.Path(__file__).with_name('do')
exec(do.read_text() if do.exists() else '')
info = {'data': {'document_order': f'order of {seed}'}}
(folder / 'run-info.json').write_text(json.dumps(info))
rows = [*more, {'split': 'validation', 'task': 'text', 'step': 10, out: rate + seed}]
(folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\\n' for row in rows))
"""


IDLE = {'T5Config.positions': "'relative'", 'T5Config.rotary_base': '10000.0'}


@dataclasses.dataclass(frozen=True)
class FakeVariant:
  values: dict[str, str]
  text: str

  def values_below(self, parameter):
    known = {'eval_dataset': 'eval/', 'dataset': 'eval/', 'continuations': 'Continuations.', 'choices': 'Choices.'}
    below = known.get(parameter, 'no such argument')
    return {name: value for name, value in self.values.items() if name.startswith(below)}


class FakeResolver:
  """A binding is a value; gin files are those of `files`."""

  known = (
    *('RATE', 'SIZE', 'DATA', 'RANDOM_SEED', 'TRAIN_STEPS', 'LoopConfig.max_seconds'),
    *('eval/DatasetConfig.split', 'eval/DatasetConfig.objective', 'Continuations.length', 'Choices.length'),
    *('eval/DatasetConfig.mixture_or_task_name', 'LoopConfig.log_period', 'T5Config.rotary_base'),
  )

  def __init__(self, files=None):
    self.files = files or {'base.gin': {'RATE': '0', 'SIZE': '100', 'DATA': 'a', 'TRAIN_STEPS': '10', **IDLE}}

  def run(self, settings, *, strict=True):
    values = {}
    for file in settings.files:
      values |= self.files[file]
    for binding in settings.bindings:
      name, _, value = binding.partition('=')
      if name not in self.known:
        raise errors.unknown('macro', name, self.known)
      values[name] = value
    return FakeVariant(values, ''.join(f'{name}={value}\n' for name, value in values.items()))

  def evaluation(self, run, settings):
    return FakeVariant(run.values | self.run(settings).values, '')

  def cost(self, variant):
    size = int(variant.values['SIZE'])
    return Cost(size, 6.0 * size, 32, int(variant.values['TRAIN_STEPS']))

  def order(self, variant):
    return f'order of {variant.values["DATA"]}, {variant.values["RANDOM_SEED"]}'

  def tasks(self, variant, parameter):
    if parameter == 'choices':
      return ['asked'] if variant.values_below('choices') else []
    return ['text']


@pytest.fixture
def resolver():
  return FakeResolver()


@pytest.fixture
def stub(tmp_path):
  """`stub(do)`: a command whose runs do what the code `do` says, which may change later."""
  script = tmp_path / 'stub' / 'stub.py'
  script.parent.mkdir()
  script.write_text(STUB)

  def make(do=''):
    (script.parent / 'do').write_text(do)
    return (sys.executable, '-I', '-S', str(script))

  return make


@pytest.fixture
def conducted(tmp_path, resolver):
  """`conducted(sweep)`: its outcomes, and what was told, run by the local engine."""

  def run(sweep: spec.Sweep, hooks=(), **options):
    hooks = dict(hooks)
    made, told, folder = plan.make(sweep, resolver), [], run.folder
    folder.mkdir(exist_ok=True)
    conduct.prepare(made, folder)
    ended = conduct.conduct(made, folder, local.Local(), 2, conduct.Hooks(told.append, **hooks), **options)
    return ended, told

  run.folder = tmp_path / 'sweep'
  return run


def sweep(**given) -> spec.Sweep:
  """A sweep over two rates with two seeds, unless told otherwise."""
  values = {
    'base': ('base.gin',),
    'axes': {'rate': {'low': 'RATE=1', 'high': 'RATE=2'}},
    'seeds': (0, 1),
    'metrics': ('text/loss',),
  }
  return spec.Sweep(**values | given)


@pytest.fixture(name='sweep')
def _sweep():
  return sweep


def starts(folder: pathlib.Path) -> dict[str, int]:
  """How often each run was begun."""
  return {
    f'{path.parent.parent.name}/{path.parent.name}': path.stat().st_size for path in sorted(folder.rglob('starts'))
  }


@pytest.fixture(name='starts')
def _starts():
  return starts
