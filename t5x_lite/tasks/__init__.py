"""The catalogue of tasks and mixtures: values, little code."""

import importlib
import pkgutil

from t5x_lite.data import task


def load() -> None:
  """Registers all tasks and mixtures of the catalogue."""
  for module in pkgutil.iter_modules(__path__, f'{__name__}.'):
    importlib.import_module(module.name)


task.set_catalogue(load)
