"""The study of a sweep in Optuna's database, to look at: a trial for each arm, its value the first metric.

What is done is never read from it: the notes of the runs say that. So a database that is lost or out of date costs
nothing, and a sweep that is begun again adds what is missing.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps import search
from t5x_lite.sweeps.outcomes import Outcome
from t5x_lite.sweeps.spec import Arm, Sweep

DATABASE = 'study.db'
_STARTUP = 4  # arms that have ended before one is judged by them
_DRIVERS = ('psycopg2', 'psycopg')
_FOLDER = 'folder'  # of the sweep, in a database that several may share
_PERCENTILE = 25.0  # of arms, the best, that a run has to be among


def open_study(sweep: Sweep, folder: pathlib.Path, storage: str | None, name: str) -> Study | None:
  """The study of a sweep; None where Optuna is not installed and nothing needs it.

  Raises:
    UsageError: it is needed and not installed, its database does not answer, or holds a study of the same name that is
      another sweep's.
  """
  if storage is not None or sweep.pruner is not None:
    search.optuna('--storage' if storage is not None else f'Sweep.pruner={sweep.pruner!r}')
  elif importlib.util.find_spec('optuna') is None:
    return None
  library = search.optuna('a study')
  folder.mkdir(parents=True, exist_ok=True)
  url = f'sqlite:///{folder / DATABASE}' if storage is None else _with_driver(storage)
  try:
    made = library.create_study(storage=url, study_name=name, direction=search.direction(sweep), load_if_exists=True)
  except Exception as error:
    if storage is None:
      raise
    # Of whichever driver the database has.
    raise errors.UsageError(f'--storage={_shown(storage)}: {" ".join(str(error).split())}') from error
  if storage is not None:
    owner = made.user_attrs.get(_FOLDER)
    if owner not in (None, str(folder)):
      raise errors.UsageError(
        f'--storage={_shown(storage)}: its study {name!r} is of the sweep in {owner}: expected a folder of another name'
      )
    made.set_user_attr(_FOLDER, str(folder))
  return Study(library, made, sweep)


def _with_driver(storage: str) -> str:
  """The URL with a driver that is installed, where it is of PostgreSQL and names none: which is the default depends on
  the version of SQLAlchemy.

  Raises:
    UsageError: there is none.
  """
  kind, separator, rest = storage.partition('://')
  if kind not in ('postgresql', 'postgres'):
    return storage
  driver = next((name for name in _DRIVERS if importlib.util.find_spec(name) is not None), None)
  if driver is None:
    raise errors.UsageError(f"--storage={_shown(storage)} needs a driver: pip install 't5x_lite[postgresql]'")
  return f'postgresql+{driver}{separator}{rest}'


def _shown(storage: str) -> str:
  """A URL without its password."""
  return re.sub(r'(://[^/@:]*):[^/@]*@', r'\1:***@', storage)


class Study:
  """See above.

  Args:
    library: Optuna.
    study: its study.
    sweep: whose it is.
  """

  def __init__(self, library: Any, study: Any, sweep: Sweep):
    self._library, self._study, self._sweep = library, study, sweep
    self._known = {trial.user_attrs.get('arm') for trial in study.get_trials(deepcopy=False)}
    self._pruner = None
    if sweep.pruner == 'median':
      self._pruner = library.pruners.MedianPruner(n_startup_trials=_STARTUP)
    elif sweep.pruner == 'percentile':
      self._pruner = library.pruners.PercentilePruner(_PERCENTILE, n_startup_trials=_STARTUP)

  def note(self, arm: Arm, ended: Sequence[Outcome], steps: Mapping[int, float]) -> None:
    """Adds an arm that has ended, unless the study has it.

    Args:
      arm: which.
      ended: its outcomes.
      steps: the first metric at the evaluations of the run of its first seed.
    """
    if arm.name not in self._known:
      trial = search.finished(self._library, self._sweep, arm, ended, steps)
      if trial is not None:
        self._study.add_trial(trial)
        self._known.add(arm.name)

  def prunes(self, steps: Mapping[int, float]) -> bool:
    """Whether a run with these evaluations is to be ended, by how those of other arms looked at the same step."""
    if self._pruner is None or not steps:
      return False
    trial = self._library.trial.create_trial(
      state=self._library.trial.TrialState.RUNNING, intermediate_values=dict(steps)
    )
    return bool(self._pruner.prune(self._study, trial))
