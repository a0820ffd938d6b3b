"""How a checkpoint of a run is named on the command line: `RUN`, `RUN@STEP`, `RUN@best`, `RUN@all`."""

from __future__ import annotations

import pathlib
import re

BEST, ALL, LATEST = 'best', 'all', 'latest'

_WHICH = re.compile(r'(.+)@(best|all|latest|\d+)')


def split_checkpoint(checkpoint: str) -> tuple[str, str]:
  """`RUN@best` as `('RUN', 'best')`; `latest` where nothing is said, or the whole is the name of a folder."""
  match = _WHICH.fullmatch(checkpoint)
  return (match[1], match[2]) if match and not pathlib.Path(checkpoint).exists() else (checkpoint, LATEST)
