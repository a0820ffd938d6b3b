"""The tasks of `finetune_heads.py`: sets, metrics and hyper-parameters, which are the same for both libraries."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import finetune_data

from t5x_lite.tasks import entities, intent_labels

CLASSES, TAGS, SPAN = 'classification', 'tagging', 'span'
DECAY, WARMUP, EPSILON, MAX_NORM = 0.01, 0.1, 1e-6, 1.0
_TIMED_STEPS = 20
STRIDE = 128  # tokens that two windows of a context share


@dataclasses.dataclass(frozen=True)
class Work:
  """A task and how it is fine-tuned.

  Attributes:
    task: its name in this library's catalogue.
    title: of the set.
    files: reads and writes the set.
    metrics: that are compared, with their titles.
    sizes: examples to train on, and held out.
    length: tokens of a row; every row is padded to it.
    rate: the peak learning rate.
    epochs: passes over the examples.
    batch: rows of a step.
    head: what answers.
    labels: of classes or tags, in the order of their indices.
    split: what this library calls the examples that are held out.
    gin_file: that registers the task.
  """

  task: str
  title: str
  files: finetune_data.Files
  metrics: dict[str, str]
  sizes: tuple[int, int]
  length: int
  rate: float
  epochs: int = 3
  batch: int = 16
  head: str = CLASSES
  labels: tuple[str, ...] = ('0', '1')
  split: str = 'validation'
  gin_file: str = 'data/glue.gin'

  @property
  def scorers(self) -> tuple[str, ...]:
    """The names of what computes the metrics, in `t5x_lite.metrics.registry`."""
    return ('squad',) if self.head == SPAN else tuple(self.metrics)


def shortened(work: Work) -> Work:
  """A task for its time alone: about as many steps as time them, and as good as nothing held out."""
  return dataclasses.replace(work, sizes=(_TIMED_STEPS * work.batch, work.batch), epochs=1)


def commonest(work: Work, held_out: Sequence[finetune_data.Example]) -> float:
  """The share of the commonest class among examples, in percent; 0 where there are no classes."""
  if work.head != CLASSES:
    return 0.0
  return 100.0 * max(collections.Counter(example.answer for example in held_out).values()) / len(held_out)


def times_of(times: Sequence[tuple[float, float]], steps: int) -> dict[str, float]:
  """`seconds` and `processor_seconds` of a step, and `steps`.

  Args:
    times: wall and processor seconds; the first at the end of the first step, the last at the end of the last.
    steps: how many there were.
  """
  wall, processor = ((last - first) / (steps - 1) for first, last in zip(times[0], times[-1], strict=True))
  return {'seconds': wall, 'processor_seconds': processor, 'steps': steps}


_ACCURACY = {'accuracy': 'accuracy'}
_RTE = ('entailment', 'not_entailment')
_INTENTS = tuple(intent_labels.BANKING77)

WORKS = {
  'sst2': Work(
    'glue_sst2', 'SST-2', finetune_data.Table('glue/SST-2/train.tsv', (0,), 1), _ACCURACY, (400, 400), 32, 2e-4
  ),
  'mrpc': Work(
    'glue_mrpc',
    'MRPC',
    finetune_data.Table('glue/MRPC/msr_paraphrase_train.txt', (3, 4), 0),
    {'accuracy': 'accuracy', 'f1': 'F1'},
    (240, 400),
    64,
    2e-4,
  ),
  'cola': Work(
    'glue_cola',
    'CoLA',
    finetune_data.Table('glue/CoLA/train.tsv', (3,), 1, header=False),
    {'matthews_corrcoef': "Matthews' correlation"},
    (640, 500),
    20,
    3e-4,
  ),
  'rte': Work(
    'glue_rte',
    'RTE',
    finetune_data.Table('glue/RTE/train.tsv', (1, 2), 3, _RTE),
    _ACCURACY,
    (240, 400),
    96,
    2e-4,
  ),
  'banking77': Work(
    'banking77',
    'BANKING77',
    finetune_data.Banking(_INTENTS),
    _ACCURACY,
    (640, 308),
    24,
    1e-3,
    labels=_INTENTS,
    split='test',
    gin_file='data/intents.gin',
  ),
  'wnut17': Work(
    'wnut17',
    'WNUT-17',
    finetune_data.Wnut(),
    {'entity_f1': 'entity F1'},
    (400, 300),
    40,
    1e-3,
    head=TAGS,
    labels=entities.WNUT.tags,
    gin_file='data/entities.gin',
  ),
  'squad': Work(
    'squad',
    'SQuAD 1.1',
    finetune_data.Squad(),
    {'em': 'EM', 'f1': 'F1'},
    (122, 60),
    384,
    5e-4,
    epochs=2,
    batch=8,
    head=SPAN,
    gin_file='data/squad.gin',
  ),
}
