"""A SentencePiece vocabulary of one's own: trained on the text of a task or a mixture."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence

from t5x_lite.core import errors
from t5x_lite.data import documents, task
from t5x_lite.data.mixtures import Mixture
from t5x_lite.data.vocabularies import training
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import MODEL_FILE


def make_vocabulary(
  entry: str | task.Task | Mixture,
  target: str,
  *,
  size: int,
  symbols: Sequence[str] = (),
  byte_fallback: bool = False,
  max_lines: int = 2_000_000,
) -> pathlib.Path:
  """Trains on the texts, inputs and targets of training examples, and writes the model.

  Args:
    entry: the task, or a mixture, whose tasks give as many lines each.
    target: the file, `spiece.model` by custom, or a folder that is there, for `spiece.model` in it.
    size: number of pieces; sentinels are not among them.
    symbols: texts that are one piece each, such as `<2de>`.
    byte_fallback: whether characters without a piece are written as bytes, with 256 of the pieces.
    max_lines: so many at most are used, of records that are evenly spaced over the data.

  Returns:
    The path of the file.

  Raises:
    UsageError: the file is there already, there are no data, or they are too small for the size.
  """
  path = pathlib.Path(target).expanduser()
  path = path / MODEL_FILE if path.is_dir() else path
  if path.exists():
    raise errors.UsageError(f'{path} is there already: expected the name of a new file')
  if max_lines < 1:
    raise errors.UsageError(f'got max_lines={max_lines}, expected at least 1')
  lines = _training_lines(task.tasks(entry), max_lines)
  model = training.train_sentencepiece(lines, size, task.name_of(entry), symbols=symbols, byte_fallback=byte_fallback)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.name}.tmp')  # what is there under its name is whole
  temporary.write_bytes(model)
  os.replace(temporary, path)
  return path


def _training_lines(tasks: Sequence[task.Task], max_lines: int) -> Iterator[str]:
  share = -(-max_lines // len(tasks))
  for each in tasks:
    records = each.source.random_access(each.source_split('train'))
    # In an order that is drawn once and for all: a record may have many lines, so that few of them are enough.
    order = documents.Order(len(records), (0, 0), repeat=False).dealt(0, 1)
    found = (
      line
      for place in range(len(records))
      if (index := order(place)) is not None
      for example in each.examples(records[index])
      for text in example.values()
      for line in text.splitlines()
      if line.strip()
    )
    yield from itertools.islice(found, share)
