"""GLUE, all nine tasks and the diagnostics, as text and for models with heads.

    glue_cola glue_sst2 glue_mrpc glue_qqp glue_stsb glue_qnli glue_rte glue_wnli
    glue_mnli                 validation and test are the matched ones; validation_mismatched and test_mismatched exist
    glue_mnli_matched, glue_mnli_mismatched, glue_ax      to evaluate on: they have no training split
    glue_v002_proportional    all but WNLI together, each at the rate of its size, as T5 trains on them; evaluated on
                              glue_mnli_mismatched too, and on glue_ax where test splits are read, which have no labels

T5 also has WNLI as a Winograd schema, to evaluate models on that were trained on WSC: `wnli.py`.

The wording is T5's; a model with a head reads premise first, as BERT does. Records are TFDS's `glue/...:2.0.0`, or come
from the files that the benchmark publishes (see `originals`). Test splits have no labels.

Sources: Wang et al. 2019 (GLUE); Raffel et al. 2020 (T5), appendix D, and the published `t5.data.glue_utils`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from t5x_lite.data import mixtures, sources, task
from t5x_lite.tasks import glue_files, labelled, originals

MNLI_SPLITS = {
  'train': 'train',
  'validation': 'validation_matched',
  'test': 'test_matched',
  'validation_matched': 'validation_matched',
  'validation_mismatched': 'validation_mismatched',
  'test_matched': 'test_matched',
  'test_mismatched': 'test_mismatched',
}

# Without training, beside the matched examples that glue_mnli validates on.
EVALUATED = ('glue_mnli_mismatched', 'glue_ax')
# Sizes of the training splits, as T5 writes them down. It leaves WNLI out and trains on WSC instead.
PROPORTIONAL_RATES = (
  ('glue_cola', 8_551.0),
  ('glue_sst2', 67_349.0),
  ('glue_mrpc', 3_668.0),
  ('glue_qqp', 363_849.0),
  ('glue_stsb', 5_749.0),
  ('glue_mnli', 392_702.0),
  ('glue_qnli', 104_743.0),
  ('glue_rte', 2_490.0),
)

_NO_GRADE = -1.0
_GRADES_PER_POINT = np.float32(5)  # T5 rounds the similarity to the nearest of 0.0, 0.2, ..., 5.0
_F1_AND_ACCURACY = ('f1', 'accuracy')
_SENTENCES = ('sentence1', 'sentence2')
_HYPOTHESIS_AND_PREMISE = ('hypothesis', 'premise')


def stsb(record: task.Record) -> task.Example:
  """Two sentences -> their similarity, from 0 to 5 in steps of 0.2, with one decimal (-1.0: not known)."""
  rounded = np.round(np.float32(record['label']) * _GRADES_PER_POINT) / _GRADES_PER_POINT
  inputs = f'stsb sentence1: {record["sentence1"]} sentence2: {record["sentence2"]}'
  return {'inputs': inputs, 'targets': f'{rounded:.1f}'}


def grade(text: str) -> float:
  """The number that a predicted text stands for; -1 if it is none."""
  try:
    value = float(text)
  except ValueError:
    return _NO_GRADE
  return value if math.isfinite(value) else _NO_GRADE


def reference_grade(record: task.Record) -> float:
  """The similarity of a record's two sentences, as people judged it."""
  return float(record['label'])


def graded(record: task.Record) -> task.Record:
  """Two sentences and their similarity, for a regression head; -1 where it is not known."""
  return {'text': record['sentence1'], 'pair': record['sentence2'], 'label': float(record['label'])}


def _register(
  config: str,
  fields: tuple[str, ...],
  metrics: tuple[str, ...] = ('accuracy',),
  splits: Mapping[str, str] = labelled.SPLITS,
) -> None:
  """MNLI and what is like it share a wording, and have the premise, which T5 writes last, first where heads read.

  Its two evaluation sets are splits of it: TFDS has the same records as sets of their own, which need not be prepared.
  """
  inference, labels = fields == _HYPOTHESIS_AND_PREMISE, glue_files.LABELS[config]
  tfds_config = 'mnli' if config.startswith('mnli') else config
  task.register(
    labelled.labelled_task(
      f'glue_{config}',
      sources.TfdsSource(f'glue/{tfds_config}:2.0.0'),
      'mnli' if inference else config,
      fields,
      labels=labels,
      metrics=metrics,
      encoder=labelled.class_of(tuple(reversed(fields)) if inference else fields, labels),
      splits=splits,
    )
  )


_register('cola', ('sentence',), ('matthews_corrcoef',))
_register('sst2', ('sentence',))
_register('mrpc', _SENTENCES, _F1_AND_ACCURACY)
_register('qqp', ('question1', 'question2'), _F1_AND_ACCURACY)
_register('qnli', ('question', 'sentence'))
_register('rte', _SENTENCES)
_register('wnli', _SENTENCES)
_register('mnli', _HYPOTHESIS_AND_PREMISE, splits=MNLI_SPLITS)
for _kind in ('matched', 'mismatched'):
  _splits = {split: f'{split}_{_kind}' for split in ('validation', 'test')}
  _register(f'mnli_{_kind}', _HYPOTHESIS_AND_PREMISE, splits=_splits)
_register('ax', _HYPOTHESIS_AND_PREMISE, metrics=(), splits=labelled.TEST_ONLY)
task.register(
  task.Task(
    'glue_stsb',
    sources.TfdsSource('glue/stsb:2.0.0'),
    stsb,
    supervised=True,
    splits=labelled.SPLITS,
    metrics=('pearson_corrcoef', 'spearman_corrcoef'),
    postprocess=grade,
    reference=reference_grade,
    encoder=task.EncoderTask('regression', graded),
  )
)
task.register(mixtures.Mixture('glue_v002_proportional', PROPORTIONAL_RATES, evaluated=EVALUATED))

for _config in glue_files.LABELS:
  originals.register(f'glue_{_config}', glue_files.GlueFiles(_config))
