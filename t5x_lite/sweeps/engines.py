"""What runs the arms of a sweep, by name."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.sweeps.local import Engine, Local

LOCAL, SLURM = 'local', 'slurm'
NAMES = (LOCAL, SLURM)


def make(name: str, folder: pathlib.Path, cluster: Mapping[str, Any]) -> Engine:
  """An engine.

  Args:
    name: one of `NAMES`.
    folder: of the sweep.
    cluster: parameters of submitit's executor.

  Raises:
    UsageError: no such engine, or what it needs is not installed.
  """
  if name == LOCAL:
    return Local()
  if name == SLURM:
    from t5x_lite.sweeps.slurm import Slurm

    return Slurm(folder, cluster)
  raise errors.unknown('engine', name, NAMES)
