"""Examples with labels of one task in one virtual shard, as a stream."""

from __future__ import annotations

from t5x_lite.data import documents
from t5x_lite.data.streams import Cursor, TaskExample, TheEnd


class LabelledStream:
  """A task for a head: its examples as `encoder_examples.tokenise_labelled` makes them, a record after the other.

  Args:
    reader: of documents that are lists of examples.
  """

  def __init__(self, reader: documents.DocumentReader[documents.Examples[TaskExample]]):
    self._reader = reader
    self.cursor = Cursor()

  def next(self) -> TaskExample | TheEnd:
    """The next example."""
    document, offset, example = self.cursor
    document, examples, dropped = self._reader.next_filled(document)
    if examples is None:
      self.cursor = Cursor(document, 0, example)
      return TheEnd(dropped)
    is_last = offset + 1 == len(examples)
    self.cursor = Cursor(document + is_last, 0 if is_last else offset + 1, example + 1)
    return examples[offset]._replace(dropped=0 if offset else dropped)
