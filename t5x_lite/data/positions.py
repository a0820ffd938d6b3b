"""The position of a stream, taken over by another stream: that of a run which branches off with other examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import pipeline, virtual_shards
from t5x_lite.data.opened import OpenedDataset
from t5x_lite.data.streams import Cursor

CONTINUED, DOCUMENTS, RESTARTED = 'continued', 'documents continued', 'restarted'
CONTINUE, RESTART = 'continue', 'restart'
CHOICES = (CONTINUE, RESTART)

# What the documents of a stream and their order depend on; of other names in the fingerprint only what is made of them.
_ORDER = ('split', 'sources', 'num_virtual_shards', 'seed', 'shuffle', 'repeat')


def taken_over(data: OpenedDataset, state: Mapping[str, Any], choice: str | None) -> tuple[pipeline.State | None, str]:
  """Where a stream begins that comes after another.

  Args:
    data: of the stream that begins.
    state: the position of the one before, merged over all processes.
    choice: `CONTINUE`, `RESTART`, or None: continue where that can be.

  Returns:
    The position, None being the beginning; and one of `CONTINUED` (the streams are the same, and so is the position),
    `DOCUMENTS` (other examples, of the documents behind those that have been begun, packed afresh, and a mixture's
    schedule from its beginning) and `RESTARTED`.

  Raises:
    UsageError: it is to continue, and the documents are others.
  """
  if choice not in (None, *CHOICES):
    raise errors.unknown('position of the data (branch_data)', str(choice), CHOICES)
  if choice == RESTART:
    return None, RESTARTED
  saved = state.get('fingerprint', {})
  current = data.fingerprint
  if state.get('version') == pipeline.STATE_VERSION and saved == current:
    return dict(state), CONTINUED
  differing = [name for name in _ORDER if saved.get(name) != current[name]]
  if (
    state.get('version') == pipeline.STATE_VERSION and not differing and list(saved['sources']) == list(_sources(data))
  ):
    return _documents(data, state), DOCUMENTS
  if choice == CONTINUE:
    raise errors.UsageError(
      f'the data cannot be continued, for their documents or order are others ({", ".join(differing) or "tasks"}): '
      f'expected --branch_data={RESTART}'
    )
  return None, RESTARTED


def _sources(data: OpenedDataset) -> list[str]:
  return [part.task.name for part in data.parts]


def _documents(data: OpenedDataset, state: Mapping[str, Any]) -> pipeline.State:
  """The position at the documents behind those that have been begun."""
  shards = {}
  for shard, position in state['shards'].items():
    cursors = [Cursor(*cursor) for cursor in position['cursors']]
    behind = [Cursor(each.document + (each.offset > 0), 0, each.example) for each in cursors]
    initial = virtual_shards.initial_state(tuple(data.side_lengths), len(data.parts))
    shards[shard] = {**initial, 'cursors': [list(cursor) for cursor in behind]}
  return {'version': pipeline.STATE_VERSION, 'fingerprint': dict(data.fingerprint), 'batches': 0, 'shards': shards}
