"""SuperGLUE, its eight tasks and the diagnostics, as text and for models with heads; WSC is in `wsc`.

    super_glue_boolq super_glue_cb super_glue_copa super_glue_multirc super_glue_record super_glue_rte super_glue_wic
    super_glue_axb, super_glue_axg     to evaluate on: they have a test split only
    super_glue_v102_proportional       all eight and DPR together, each at the rate of its size, as T5 trains on them;
                                       evaluated on the two diagnostics too where test splits are read

Records are TFDS's `super_glue/...:1.0.2`, or come from the files that the benchmark publishes (see `originals`). Test
splits have no labels. A model with a head chooses among the alternatives of COPA and, with the query filled in, among
the entities of ReCoRD; all else are classes.

Sources: Wang et al. 2019 (SuperGLUE); Raffel et al. 2020 (T5), appendix D, and `glue` and `record` in the published
`t5.data.preprocessors`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from t5x_lite.data import mixtures, sources, task
from t5x_lite.tasks import labelled, originals, super_glue_files, wsc
from t5x_lite.tasks.super_glue_files import LABELS

# Sizes of the training splits, as T5 writes them down: of WSC the sentences whose pronoun stands for the phrase.
PROPORTIONAL_RATES = (
  *wsc.PROPORTIONAL_RATES,
  ('super_glue_boolq', 9_427.0),
  ('super_glue_cb', 250.0),
  ('super_glue_copa', 400.0),
  ('super_glue_multirc', 27_243.0),
  ('super_glue_record', 138_854.0),
  ('super_glue_rte', 2_490.0),
  ('super_glue_wic', 5_428.0),
)
EVALUATED = ('super_glue_axb', 'super_glue_axg')
# What COPA's questions ask, in the words of its authors (Roemmele et al. 2011).
COPA_QUESTIONS = {'cause': 'What was the CAUSE of this?', 'effect': 'What happened as a RESULT?'}
PLACEHOLDER = '@placeholder'

_HIGHLIGHT_AFTER_SENTENCE = re.compile(r'([.?!"\'])\n@highlight\n')
_HIGHLIGHT = '\n@highlight\n'
_MULTIRC_FIELDS = ('question', 'answer', 'paragraph')
_BOLD = re.compile('</?b>')


def multirc(record: task.Record) -> task.Example:
  """A question, an answer and a paragraph without its markup -> 'True' if the answer is right, else 'False'."""
  labels = LABELS['multirc']
  example = labelled.worded(record, benchmark='multirc', fields=_MULTIRC_FIELDS, labels=labels)
  return {**example, 'inputs': _without_markup(example['inputs'])}


def multirc_reference(record: task.Record) -> dict[str, Any]:
  """The label of an answer, and the question that it answers."""
  group = (int(record['idx']['paragraph']), int(record['idx']['question']))
  return {'group': group, 'value': int(record['label'])}


def multirc_classified(record: task.Record) -> task.Record:
  """The paragraph, and the question with its answer as a pair."""
  pair = _without_markup(f'{record["question"]} {record["answer"]}')
  return {'text': _without_markup(record['paragraph']), 'pair': pair, 'label': int(record['label'])}


def copa_choices(record: task.Record) -> task.Record:
  """The premise with the question about it, and two answers."""
  text = f'{record["premise"]} {COPA_QUESTIONS[record["question"]]}'
  return {'text': text, 'choices': [record['choice1'], record['choice2']], 'label': int(record['label'])}


def wic_classified(record: task.Record) -> task.Record:
  """The word before the first sentence, and the second one as a pair."""
  text = f'{record["word"]}: {record["sentence1"]}'
  return {'text': text, 'pair': record['sentence2'], 'label': int(record['label'])}


def axb(record: task.Record) -> task.Example:
  """The two sentences of a diagnostic -> what RTE says of a premise and a hypothesis."""
  renamed = {'premise': record['sentence1'], 'hypothesis': record['sentence2'], 'label': record['label']}
  fields, labels = ('hypothesis', 'premise'), LABELS['axb']
  return labelled.worded(renamed, benchmark='rte', fields=fields, labels=labels)


def record_entities(record: task.Record) -> Iterator[task.Example]:
  """A query, the entities of its passage and the passage -> each entity that is right: as many examples.

  Without a right one, as in the test split, there is one example whose target is `<unk>`.
  """
  entities = ', '.join(record['entities'])
  inputs = f'record query: {record["query"]} entities: {entities} passage: {passage_of_sentences(record["passage"])}'
  for answer in list(record['answers']) or [labelled.UNKNOWN]:
    yield {'inputs': inputs, 'targets': answer}


def record_reference(record: task.Record) -> dict[str, Any]:
  """The entities that are right, and the query that they answer."""
  group = (int(record['idx']['passage']), int(record['idx']['query']))
  return {'group': group, 'value': list(record['answers'])}


def record_choices(record: task.Record) -> Iterator[task.Record]:
  """The passage, and the query filled in with each entity; for each right one an example, as in `record_entities`."""
  entities = list(record['entities'])
  text = passage_of_sentences(record['passage'])
  choices = [record['query'].replace(PLACEHOLDER, entity) for entity in entities]
  right = [entities.index(answer) for answer in record['answers'] if answer in entities]
  for label in right or [labelled.UNKNOWN_LABEL]:
    yield {'text': text, 'choices': choices, 'label': label}


def record_entity(record: task.Record, choice: int) -> str:
  """The entity that is chosen."""
  return list(record['entities'])[choice]


def passage_of_sentences(passage: str) -> str:
  """A ReCoRD passage with its highlights, each on a line of its own after a mark, as sentences like the others."""
  return _HIGHLIGHT_AFTER_SENTENCE.sub(r'\1 ', passage).replace(_HIGHLIGHT, '. ')


def _without_markup(text: str) -> str:
  return _BOLD.sub('', text.replace('<br>', ' '))


def _worded(config: str, fields: tuple[str, ...], **options: Any) -> task.Task:
  """A task of T5's wording, named after TFDS's config."""
  source, labels = sources.TfdsSource(f'super_glue/{config}:1.0.2'), LABELS[config]
  benchmark = 'rte' if config in ('axb', 'axg') else config
  return labelled.labelled_task(f'super_glue_{config}', source, benchmark, fields, labels=labels, **options)


def _class_of(config: str, *fields: str) -> task.EncoderTask:
  return labelled.class_of(fields, LABELS[config])


_HYPOTHESIS_AND_PREMISE = ('hypothesis', 'premise')

_TASKS = (
  _worded('boolq', ('passage', 'question'), encoder=_class_of('boolq', 'question', 'passage')),
  _worded(
    'cb',
    _HYPOTHESIS_AND_PREMISE,
    metrics=('mean_3class_f1', 'accuracy'),
    encoder=_class_of('cb', 'premise', 'hypothesis'),
  ),
  _worded(
    'copa',
    ('choice1', 'choice2', 'premise', 'question'),
    encoder=task.EncoderTask('multiple_choice', copa_choices, LABELS['copa']),
  ),
  dataclasses.replace(
    _worded(
      'multirc',
      _MULTIRC_FIELDS,
      metrics=('multirc',),
      encoder=task.EncoderTask('classification', multirc_classified, LABELS['multirc']),
    ),
    preprocess=multirc,
    reference=multirc_reference,
  ),
  task.Task(
    'super_glue_record',
    sources.TfdsSource('super_glue/record:1.0.2'),
    record_entities,
    supervised=True,
    splits=labelled.SPLITS,
    metrics=('record',),
    reference=record_reference,
    encoder=task.EncoderTask('multiple_choice', record_choices, answer=record_entity),
  ),
  _worded('rte', _HYPOTHESIS_AND_PREMISE, encoder=_class_of('rte', 'premise', 'hypothesis')),
  _worded(
    'wic',
    ('sentence1', 'sentence2', 'word'),
    encoder=task.EncoderTask('classification', wic_classified, LABELS['wic']),
  ),
  dataclasses.replace(
    _worded('axb', ('sentence1', 'sentence2'), metrics=(), splits=labelled.TEST_ONLY), preprocess=axb
  ),
  _worded(
    'axg',
    _HYPOTHESIS_AND_PREMISE,
    metrics=(),
    encoder=_class_of('axg', 'premise', 'hypothesis'),
    splits=labelled.TEST_ONLY,
  ),
)
for _task in _TASKS:
  task.register(_task)
  originals.register(_task.name, super_glue_files.SuperGlueFiles(_task.name.removeprefix('super_glue_')))
task.register(mixtures.Mixture('super_glue_v102_proportional', PROPORTIONAL_RATES, evaluated=EVALUATED))
