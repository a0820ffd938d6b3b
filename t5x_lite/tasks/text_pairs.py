"""Texts that are alike, for models whose head is 'embedding': pairs of GLUE (Wang et al. 2019).

    stsb_pairs   STS-B, all pairs; those of grade 4 and more are alike. Cosines are compared with grades (Spearman)
    mnli_pairs   MNLI, a premise and what it entails (Conneau et al. 2017)
    qqp_pairs    QQP, questions that ask the same
    mrpc_pairs   MRPC, sentences that say the same

Of the last three all other pairs are left out. Their sources and splits are those of `glue_stsb` and so on.
"""

from __future__ import annotations

import dataclasses
import functools

from t5x_lite.data import task
from t5x_lite.tasks import glue, glue_files, originals

LEAST_GRADE = 4.0  # "mostly equivalent" (Cer et al. 2017, table 1)
_CLASSES = {  # the fields, and the class of pairs that are alike
  'mnli': (('premise', 'hypothesis'), 'entailment'),
  'qqp': (('question1', 'question2'), 'duplicate'),
  'mrpc': (('sentence1', 'sentence2'), 'equivalent'),
}


def graded_pair(record: task.Record) -> task.Record:
  """Two sentences, and whether they are graded as alike."""
  grade = glue.reference_grade(record)
  label = -1 if grade < 0 else int(grade >= LEAST_GRADE)
  return {'text': record['sentence1'], 'pair': record['sentence2'], 'label': label}


def pair_of_class(record: task.Record, *, fields: tuple[str, str], label: int) -> task.Record | None:
  """Two texts, if they are of the class of those that are alike."""
  text, pair = fields
  return {'text': record[text], 'pair': record[pair]} if record['label'] == label else None


def _register(config: str, encoder: task.EncoderTask) -> None:
  known = task.get(f'glue_{config}')
  assert isinstance(known, task.Task)
  task.register(dataclasses.replace(known, name=f'{config}_pairs', encoder=encoder))
  originals.register(f'{config}_pairs', glue_files.GlueFiles(config))


_register('stsb', task.EncoderTask('embedding', graded_pair, metrics=('spearman_corrcoef',)))
for _config, (_fields, _class) in _CLASSES.items():
  _pair = functools.partial(pair_of_class, fields=_fields, label=glue_files.LABELS[_config].index(_class))
  _register(_config, task.EncoderTask('embedding', _pair, metrics=()))
