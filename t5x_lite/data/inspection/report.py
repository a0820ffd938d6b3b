"""What a data set looks like on its way to the model: text, packed rows, mixture shares, padding, speed, hashes."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any, TextIO

from t5x_lite.core import errors
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.inspection import facts as inspection_facts
from t5x_lite.data.inspection import page as inspection_page
from t5x_lite.data.inspection import text as inspection_text


def inspect(
  config: DatasetConfig,
  num: int,
  out: TextIO | None = None,
  *,
  as_json: bool = False,
  page: str | None = None,
  **how: Any,
) -> None:
  """Prints what `config` makes of its data.

  Args:
    config: the data set.
    num: how many examples to show, from the tasks of the mixture in turn.
    out: where to; None: standard output.
    as_json: print all facts as one JSON object, instead of text.
    page: a file to write an HTML page to besides; None: none.
    **how: the other arguments of `inspection_facts.gather`.

  Raises:
    UsageError: the configuration is impossible, the data is not there, or the folder of the page is not.
  """
  out = out or sys.stdout
  if page is not None:
    _check_page(page)  # before minutes of reading
  facts = inspection_facts.gather(config, num, **how)
  if page is not None:
    pathlib.Path(page).expanduser().write_text(inspection_page.render(facts), encoding='utf-8')
  print(json.dumps(facts.as_dict(), ensure_ascii=False) if as_json else inspection_text.render(facts), file=out)
  if page is not None and not as_json:
    print(f'\npage written to {page}', file=out)


def _check_page(page: str) -> None:
  path = pathlib.Path(page).expanduser()
  if not page.strip() or path.is_dir() or not path.parent.is_dir():
    raise errors.UsageError(f'cannot write a page to {page!r}: expected the name of a file in a folder that exists')
