"""A folder with a gin file and a module that it configures, and a way to run a command there within this process."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from absl import flags

from t5x_lite.cli import command, environment

MODULE = """
from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Optim:
  rate: float
  momentum: float | None = None


@dataclasses.dataclass(frozen=True)
class Reader:
  split: str
  batch: int
  sizes: tuple[int, ...] = (1,)


class Unrelated:
  pass


def go(*, steps: int, optim: Optim, lengths: dict[str, int], folder: str, train: Reader | None = None,
       test: Reader | None = None, shuffle: bool = True, dry_run: bool = False):
  return locals()
"""

GIN = """
import toy_run
STEPS = 10
RATE = 1
OPTIM = @Optim()

go:
  steps = %STEPS
  optim = %OPTIM
  lengths = {'inputs': 5, 'targets': %STEPS}
  folder = %MODEL_DIR
  train = @train/Reader()
  test = @test/Reader()

Optim.rate = %RATE
Reader.batch = 4
train/Reader.split = 'a'
test/Reader.split = 'b'
test/Reader.batch = 2
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a command came to: exit code, the arguments that `go` got, the configuration, what it printed on stderr."""

  code: int
  got: dict[str, Any] | None
  record: Any
  error: str


Run = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
  (tmp_path / 'toy_run.py').write_text(MODULE)
  (tmp_path / 'toy.gin').write_text(GIN)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, 'toy_run', raising=False)
  # This process has its JAX and its log handlers already.
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)
  return tmp_path


@pytest.fixture
def run(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Run:
  """Runs `go` with the given arguments, on top of `--gin_file=toy.gin` unless they choose a file."""

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_bool('dry_run', False, 'Stop early.', flag_values=values)
    flags.DEFINE_bool('allow_config_change', False, 'Go on.', flag_values=values)

  def run(*arguments: str) -> Outcome:
    result: dict[str, Any] = {}

    def work(session: command.Session) -> None:
      session.refuse_idle_flags()
      result['record'] = session.record
      result['got'] = session.call(dry_run=session.flags.dry_run)

    files = () if any('gin_file' in argument for argument in arguments) else ('--gin_file=toy.gin',)
    code = command.run(
      ['prog', *files, *arguments], 'toy_run.go', usage='Goes.', work=work, given=('dry_run',), define=define
    )
    return Outcome(code, result.get('got'), result.get('record'), capsys.readouterr().err)

  return run
