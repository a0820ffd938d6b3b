"""Predictions in the files that the servers of GLUE, SuperGLUE and SQuAD take.

What a model wrote that stands for no label is the first label there: a server takes nothing else.

Sources: the sample submission of gluebenchmark.com, and its FAQ; superglue.com's, as jiant (Pruksachatkun et al. 2020)
writes it; the `predictions.json` of the SQuAD scripts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from t5x_lite.metrics.classification import names_referent
from t5x_lite.scoring.items import Item, Prediction
from t5x_lite.tasks import glue_files, squad
from t5x_lite.tasks.super_glue_files import LABELS


class Submission(NamedTuple):
  """A file for a server.

  Attributes:
    name: that the server expects.
    text: of the file.
  """

  name: str
  text: str


_GLUE = {
  'cola': 'CoLA', 'sst2': 'SST-2', 'mrpc': 'MRPC', 'qqp': 'QQP', 'stsb': 'STS-B', 'qnli': 'QNLI', 'rte': 'RTE',
  'wnli': 'WNLI', 'mnli': 'MNLI-m', 'mnli_matched': 'MNLI-m', 'mnli_mismatched': 'MNLI-mm', 'ax': 'AX',
}  # fmt: skip
_GLUE_NUMBERED = ('cola', 'sst2', 'mrpc', 'qqp', 'wnli')  # classes by their index, elsewhere by their name
_SUPER_GLUE = {
  'boolq': 'BoolQ', 'cb': 'CB', 'copa': 'COPA', 'multirc': 'MultiRC', 'record': 'ReCoRD', 'rte': 'RTE', 'wic': 'WiC',
  'wsc': 'WSC', 'axb': 'AX-b', 'axg': 'AX-g',
}  # fmt: skip
_HIGHEST_GRADE = 5.0


def submission(task: str, split: str, items: Sequence[Item], predictions: Sequence[Prediction]) -> Submission | None:
  """The file for the benchmark of a task; None where there is no server that we know.

  Args:
    task: its name in the catalogue.
    split: that was predicted; of MNLI it tells which of two files it is.
    items: what was predicted, all of the split.
    predictions: for each.
  """
  benchmark, _, config = task.rpartition('glue_')
  if task in ('squad', 'squad_v2'):
    pairs = zip(items, predictions, strict=True)
    answers = {str(item.record['id']): squad.unpadded(str(own.value), item.record['context']) for item, own in pairs}
    return Submission('predictions.json', json.dumps(answers, ensure_ascii=False) + '\n')
  if benchmark == 'super_' and config in _SUPER_GLUE:
    rows = _super_glue(config, items, predictions)
    return Submission(f'{_SUPER_GLUE[config]}.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
  if not benchmark and config in _GLUE:
    name = 'MNLI-mm' if config == 'mnli' and split.endswith('mismatched') else _GLUE[config]
    return Submission(f'{name}.tsv', _glue(config, items, predictions))
  return None


def _glue(config: str, items: Sequence[Item], predictions: Sequence[Prediction]) -> str:
  labels = glue_files.LABELS[config]

  def told(value: Any) -> str:
    if not labels:
      return f'{min(max(float(value), 0.0), _HIGHEST_GRADE):.3f}'
    index = max(int(value), 0)
    return str(index) if config in _GLUE_NUMBERED else labels[index]

  rows = (
    f'{item.record.get("idx", number)}\t{told(own.value)}\n'
    for number, (item, own) in enumerate(zip(items, predictions, strict=True))
  )
  return 'index\tprediction\n' + ''.join(rows)


def _super_glue(config: str, items: Sequence[Item], predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
  if config == 'multirc':
    return _multirc(items, predictions)
  told: Callable[[Item, Any], Any] = _TOLD.get(config, lambda item, value: LABELS[config][max(int(value), 0)])
  rows: dict[Any, dict[str, Any]] = {}
  for number, (item, own) in enumerate(zip(items, predictions, strict=True)):
    index = item.record.get('idx', number)
    index = int(index['query']) if isinstance(index, Mapping) else int(index)
    # Of ReCoRD's queries with several right answers the first example counts, as in its metric.
    rows.setdefault(index, {'idx': index, 'label': told(item, own.value)})
  return list(rows.values())


def _wsc(item: Item, value: Any) -> str:
  label = names_referent(value, item.record['span1_text']) if isinstance(value, str) else value
  return 'True' if label == 1 else 'False'


_TOLD: dict[str, Callable[[Item, Any], Any]] = {
  'boolq': lambda item, value: 'true' if value == 1 else 'false',
  'wic': lambda item, value: 'true' if value == 1 else 'false',
  'copa': lambda item, value: max(int(value), 0),
  'record': lambda item, value: str(value),
  'wsc': _wsc,
}


def _multirc(items: Sequence[Item], predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
  """Passages with their questions with their answers."""
  passages: dict[int, dict[int, list[dict[str, int]]]] = {}
  for item, own in zip(items, predictions, strict=True):
    index = item.record['idx']
    answers = passages.setdefault(int(index['paragraph']), {}).setdefault(int(index['question']), [])
    answers.append({'idx': int(index['answer']), 'label': max(int(own.value), 0)})
  return [
    {
      'idx': passage,
      'passage': {'questions': [{'idx': question, 'answers': answers} for question, answers in questions.items()]},
    }
    for passage, questions in passages.items()
  ]
