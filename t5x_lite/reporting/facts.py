"""What the files of a run's folder say besides metrics: configuration, versions, data, checkpoints, lineage."""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from t5x_lite.reporting.folders import CONFIG, RUN_INFO

_CHECKPOINT = re.compile(r'checkpoint_(\d+)')
_BINDING = re.compile(r'([\w./]+) = (.+)')
_MODEL_INFO = 'model-info.txt'
_TOTAL = re.compile(r'total: ([\d,]+) parameters')


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of a run.

  Attributes:
    values: every resolved parameter, as the checkpoints hold them; empty before the first one.
    bindings: macros and bindings of `config.gin`.
    config: the text of `config.gin`.
    info: `run-info.json`.
    parameters: of the model.
    checkpoints: step and metrics of each that is kept.
    consumed: by task, `examples` and `tokens` that the newest checkpoint has seen.
  """

  values: Mapping[str, str]
  bindings: Mapping[str, str]
  config: str
  info: Mapping[str, Any]
  parameters: int | None
  checkpoints: tuple[tuple[int, Mapping[str, Any]], ...]
  consumed: Mapping[str, Mapping[str, float]]

  @property
  def shares(self) -> Mapping[str, float]:
    """The planned share of each task."""
    shares = _mapping(_mapping(self.info.get('data')).get('shares'))
    return {name: float(share) for name, share in shares.items() if isinstance(share, int | float)}

  @property
  def total_steps(self) -> int | None:
    """How many steps the run is to take."""
    found = self.values.get('LoopConfig.total_steps') or self.bindings.get('TRAIN_STEPS')
    return int(found) if found is not None and found.replace('_', '').isdecimal() else None

  @property
  def parent(self) -> tuple[str, int | None] | None:
    """The run, or the model, that this one began from, and its step."""
    lineage = _mapping(self.info.get('lineage'))
    if isinstance(lineage.get('parent'), str):
      step = lineage.get('step')
      return lineage['parent'], step if isinstance(step, int) else None
    start = self.values.get('train.initial_checkpoint_path') or self.bindings.get('INITIAL_CHECKPOINT_PATH', 'None')
    try:
      path = ast.literal_eval(start)
    except (ValueError, SyntaxError):
      path = None
    return (path, None) if isinstance(path, str) and path else None


def read_facts(folder: pathlib.Path) -> Facts:
  """The facts of a run's folder; what is not there, or broken, is left out."""
  steps = sorted(
    (int(match[1]), path) for path in _listed(folder) if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
  )
  newest = steps[-1][1] if steps else folder / 'none'
  values = _json(newest / 'config' / 'metadata')
  config = _text(folder / CONFIG)
  total = _TOTAL.search(_text(folder / _MODEL_INFO))
  return Facts(
    values={str(name): str(value) for name, value in values.items()},
    bindings=_bindings(config),
    config=config,
    info=_json(folder / RUN_INFO),
    parameters=int(total[1].replace(',', '')) if total else None,
    checkpoints=tuple((step, _json(path / 'metrics' / 'metrics')) for step, path in steps),
    consumed=_consumed(_json(newest / 'data' / 'metadata')),
  )


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return list(folder.iterdir())
  except OSError:
    return []


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding='utf-8', errors='replace')
  except OSError:
    return ''


def _json(path: pathlib.Path) -> dict[str, Any]:
  """What a JSON file holds; nothing where it is not there or no object."""
  try:
    return _mapping(json.loads(_text(path)))
  except ValueError:
    return {}


def _mapping(value: Any) -> dict[str, Any]:
  return value if isinstance(value, dict) else {}


def _bindings(config: str) -> dict[str, str]:
  """Macros and bindings of a `config.gin` that a run has written: one on each line."""
  matches = (_BINDING.fullmatch(line) for line in config.splitlines())
  return {match[1]: match[2] for match in matches if match}


def _consumed(state: Mapping[str, Any]) -> dict[str, dict[str, float]]:
  """Examples and tokens of each task that a checkpoint's position in the data tells of."""
  tasks = list(_mapping(_mapping(state.get('fingerprint')).get('shares')))
  sums = [_mapping(_mapping(shard).get('sums')) for shard in _mapping(state.get('shards')).values()]
  consumed: dict[str, dict[str, float]] = {}
  for name, written in (('examples', 'examples'), ('tokens', 'part_tokens')):
    columns = [shard.get(written, ()) for shard in sums]
    if not all(isinstance(column, list) and len(column) == len(tasks) for column in columns):
      continue
    for place, task in enumerate(tasks):
      consumed.setdefault(task, {})[name] = float(sum(column[place] for column in columns))
  return consumed
