"""What a data set says about long examples and documents in place of what its tasks say, so that a gin file can say it.

LONG_EXAMPLES = 'split'
STRIDE = 128
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import task as tasks

LONG_EXAMPLES, STRIDE, DOCUMENTS = NAMES = ('long_examples', 'stride', 'documents')  # fields of `task.Task`


def applied(
  what: str, members: tuple[tasks.Task, ...], choices: Mapping[str, Any], *, heads: bool
) -> tuple[tasks.Task, ...]:
  """The tasks with these fields changed, those of their examples for heads too.

  Args:
    what: whose tasks they are, for errors.
    members: the tasks.
    choices: for each of `NAMES` a value; None: what each task says.
    heads: whether the examples for heads are read.

  Raises:
    UsageError: a value is not known, or there is no task that it could be for.
  """
  given = {name: value for name, value in choices.items() if value is not None}
  if not given:
    return members
  changed = tuple(_with(member, given) for member in members)
  with_pairs = heads or any(member.supervised for member in members)
  with_text = not heads and any(not member.supervised for member in members)
  if LONG_EXAMPLES in given and not with_pairs:
    raise errors.UsageError(
      f'{what}: got {LONG_EXAMPLES}={given[LONG_EXAMPLES]!r}, which is for supervised tasks, and has none: the text of '
      f'unsupervised ones is cut as {DOCUMENTS}={tasks.SPLIT_DOCUMENTS!r} or {tasks.TRUNCATED!r} say'
    )
  if DOCUMENTS in given and not with_text:
    raise errors.UsageError(
      f'{what}: got {DOCUMENTS}={given[DOCUMENTS]!r}, which is for unsupervised tasks, and has none: examples that are '
      f'too long are treated as {LONG_EXAMPLES}={tasks.SPLIT!r} or {tasks.DROP!r} say'
    )
  if given.get(STRIDE) and not any(_splits(member, heads) for member in changed):
    raise errors.UsageError(
      f'{what}: got {STRIDE}={given[STRIDE]}, and nothing is split: expected {LONG_EXAMPLES}={tasks.SPLIT!r} (of '
      f'supervised tasks) or {DOCUMENTS}={tasks.SPLIT_DOCUMENTS!r} (of others) too'
    )
  return changed


def _with(member: tasks.Task, given: Mapping[str, Any]) -> tasks.Task:
  """The task, and its examples for heads, with other values."""
  encoder = member.encoder
  if encoder is not None:
    encoder = dataclasses.replace(encoder, **{name: value for name, value in given.items() if name != DOCUMENTS})
  return dataclasses.replace(member, encoder=encoder, **given)


def _splits(member: tasks.Task, heads: bool) -> bool:
  """Whether the task makes several parts of what is too long."""
  if heads:
    return member.encoder is not None and (member.encoder.long_examples or member.long_examples) == tasks.SPLIT
  return member.long_examples == tasks.SPLIT if member.supervised else member.documents == tasks.SPLIT_DOCUMENTS
