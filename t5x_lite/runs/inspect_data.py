"""What a run would read."""

from __future__ import annotations

from typing import Any

from t5x_lite import families
from t5x_lite.core import errors
from t5x_lite.data import dataset_checks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.inspection import report as inspection


def inspect_data(
  *,
  dataset: DatasetConfig,
  num: int,
  hashed_batches: int | None = None,
  hosts: int | None = None,
  as_json: bool = False,
  page: str | None = None,
  documents: int = 1000,
  module: Any = None,
) -> int:
  """Prints examples of a data set, a packed row, shares, padding, speed and hashes.

  Args:
    dataset: what to read.
    num: how many examples to show.
    hashed_batches: how many of the first global batches to hash; None: none.
    hosts: as how many processes to read these; None: one.
    as_json: print one JSON object for machines.
    page: a file to write an HTML page to.
    documents: in how many records of each task empty ones and duplicates are looked for.
    module: the model of the run, which has to read what the data set makes; None: it is not looked at.

  Returns:
    The exit code, 0.

  Raises:
    UsageError: the data set is impossible, not there or none for the model, or there are hosts and nothing to hash or
      more than rows.
  """
  if hosts is not None and hashed_batches is None:
    raise errors.UsageError(f'got hosts={hosts} and nothing to hash: expected a number of batches too, as --hash=50')
  dataset_checks.check_values(dataset)
  if module is not None:
    families.check(module, dataset.features)
  inspection.inspect(
    dataset,
    num,
    as_json=as_json,
    page=page,
    hashed_batches=hashed_batches or 0,
    hosts=1 if hosts is None else hosts,
    sample_records=documents,
  )
  return 0
