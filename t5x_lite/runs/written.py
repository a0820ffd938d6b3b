"""What an evaluation leaves behind: predictions as JSON lines, files for a benchmark's server, a page of each task."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from t5x_lite.scoring import items, page, review, submission
from t5x_lite.scoring.scorer import Scorer
from t5x_lite.training.writers import to_json

PREDICTIONS, SUBMISSIONS = 'predictions', 'submissions'


@dataclasses.dataclass(frozen=True)
class Written:
  """What is written of one checkpoint.

  Attributes:
    folder: where to.
    checkpoint: its name.
    split: of the tasks.
    report: whether a page is written beside the predictions: confusion matrix, calibration, worst errors.
    whole: whether all of the split is predicted, which a server wants.
  """

  folder: pathlib.Path
  checkpoint: str
  split: str
  report: bool = False
  whole: bool = True

  def row(self, task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a task, and what they are of."""
    return {'checkpoint': self.checkpoint, 'task': task, 'split': self.split, **values}

  def add(self, scorer: Scorer, predictions: Sequence[items.Prediction], values: Mapping[str, float]) -> None:
    """Writes the predictions of a task as JSON lines, in the format of its benchmark's server if any, and as a page."""
    task = scorer.task.name
    path = self._file(PREDICTIONS, f'{task}-{self.split}.jsonl')
    with path.open('w', encoding='utf-8') as file:
      for number, (item, own) in enumerate(zip(scorer.items, predictions, strict=True)):
        index = next((item.record[key] for key in ('idx', 'id') if key in item.record), number)
        row = {'index': _plain(index), 'reference': _plain(item.reference), 'prediction': _plain(own.value)}
        row |= {} if own.loss is None else {'loss': round(own.loss, 6)}
        print(to_json(row | {'details': _plain(own.shown)}), file=file)
    for_server = submission.submission(task, self.split, scorer.items, predictions) if self.whole else None
    if for_server is not None:
      self._file(SUBMISSIONS, for_server.name).write_text(for_server.text, encoding='utf-8')
    if self.report:
      found = review.review(scorer.task, scorer.metrics, scorer.items, predictions)
      title = f'{task}, {self.split}, checkpoint {self.checkpoint}'
      path.with_suffix('.html').write_text(page.render(title, values, found), encoding='utf-8')

  def _file(self, kind: str, name: str) -> pathlib.Path:
    path = self.folder / kind / self.checkpoint / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _plain(value: Any) -> Any:
  """A value as JSON has it."""
  if isinstance(value, Mapping):
    return {str(key): _plain(part) for key, part in value.items()}
  if isinstance(value, list | tuple | set | frozenset):
    return [_plain(part) for part in value]
  if hasattr(value, 'item') and not isinstance(value, str):
    return value.item() if getattr(value, 'size', 1) == 1 else value.tolist()
  return value
