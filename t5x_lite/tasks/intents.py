"""What an utterance asks for: the intents of BANKING77 and CLINC150, and intents with slots of SNIPS.

    banking77      Casanueva et al. 2020; from its files
    clinc150       Larson et al. 2019, with queries that are out of scope; TFDS has it as clinc_oos
    snips          Coucke et al. 2018 in the split of Goo et al. 2018: intent and slots together; from its files
    snips_intent   its intents alone

Wording: T5's for a text and its class; TANL's (Paolini et al. 2021) for an intent with slots:

    snips : listen to westbam on google music
      ->  (( play music )) listen to [ westbam | artist ] on [ google music | service ]
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import sources, task
from t5x_lite.tasks import augmented_language, files_only, intent_labels, labelled, original_files, originals

TEXT_FIELDS = ('text',)
BANKING_SPLITS = {'train': 'train', 'test': 'test'}
CLINC_SPLITS = {name + part: name + part for part in ('', '_oos') for name in ('train', 'validation', 'test')}
SNIPS_SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}
SLOTS = augmented_language.TaggedWords(
  'snips', augmented_language.iob_tags(intent_labels.SNIPS_SLOTS), tags_field='slots'
)

_INTENTS = {augmented_language.natural(name): name for name in intent_labels.SNIPS}
_BEGIN_INTENT, _END_INTENT = '((', '))'
# The keys of CLINC150's files for TFDS's splits.
_CLINC_KEYS = {'train': 'train', 'validation': 'val', 'test': 'test'} | {
  f'{split}_oos': f'oos_{key}' for split, key in (('train', 'train'), ('validation', 'val'), ('test', 'test'))
}
_CLINC_FILES = ('data_full.json', 'data_small.json', 'data_imbalanced.json', 'data_oos_plus.json')
_SNIPS_FILES = ('seq.in', 'seq.out', 'label')


def clinc_label(record: task.Record) -> int:
  """The index of a record's intent. TFDS's own indices have no published order, its names do."""
  name = str(record['intent_name']).strip().replace(' ', '_')
  if name not in intent_labels.CLINC150:
    raise errors.unknown('intent of clinc150', name, intent_labels.CLINC150)
  return intent_labels.CLINC150.index(name)


def clinc(record: task.Record) -> task.Example:
  """A query -> the name of its intent."""
  labelled_record = {'text': record['text'], 'label': clinc_label(record)}
  return labelled.worded(labelled_record, benchmark='clinc150', fields=TEXT_FIELDS, labels=intent_labels.CLINC150)


def clinc_class(record: task.Record) -> task.Record:
  """A query and its class."""
  return {'text': record['text'], 'label': clinc_label(record)}


def intent_and_slots(record: task.Record) -> task.Example | None:
  """An utterance -> its intent in double brackets, and the utterance with its slots in brackets; None without words."""
  example = SLOTS.preprocess(record)
  if example is None:
    return None
  intent = augmented_language.natural(intent_labels.SNIPS[record['label']])
  return {**example, 'targets': f'{_BEGIN_INTENT} {intent} {_END_INTENT} {example["targets"]}'}


def parsed_intent_and_slots(text: str) -> dict[str, Any]:
  """Intent, words and tags of what a model wrote; the intent is '' where there is none that is known."""
  intent, end, rest = text.partition(_END_INTENT)
  name = intent.replace(_BEGIN_INTENT, ' ').strip() if end else ''
  return {'intent': _INTENTS.get(name, ''), **SLOTS.postprocess(rest if end else text)}


def reference_intent_and_slots(record: task.Record) -> dict[str, Any]:
  """Intent, words and tags of a record."""
  return {'intent': intent_labels.SNIPS[record['label']], **SLOTS.reference(record)}


def banking_files(folder: pathlib.Path, split: str) -> Iterator[task.Record]:
  """The records of `train.csv` and `test.csv`: `{'text', 'label'}`.

  Raises:
    UsageError: a row has not two fields, or an unknown category.
  """
  path = original_files.locate(folder, (f'{split}.csv',))
  reader = csv.reader(f'{line}\n' for _, line in original_files.lines(path))
  for row in reader:
    if reader.line_num == 1 and row == ['text', 'category']:
      continue
    if len(row) != 2:
      raise original_files.malformed(path, reader.line_num, f'has {len(row)} fields, expected text and category')
    if row[1] not in intent_labels.BANKING77:
      known = errors.unknown('category', row[1], intent_labels.BANKING77)
      raise errors.UsageError(f'{path}, line {reader.line_num}: {known}')
    yield {'text': row[0].strip(), 'label': intent_labels.BANKING77.index(row[1])}


def clinc_files(folder: pathlib.Path, split: str) -> Iterator[task.Record]:
  """The records of `data_full.json` or another of the authors' files: `{'text', 'intent_name'}`."""
  path = original_files.locate(folder, _CLINC_FILES)
  key = _CLINC_KEYS[split]
  for number, row in enumerate(original_files.field(original_files.json_file(path), key, path, 'its object')):
    if not (isinstance(row, list) and len(row) == 2 and row[1] in intent_labels.CLINC150):
      raise original_files.malformed(path, f'{key}, row {number}', f'is no text with an intent: {row!r}')
    yield {'text': row[0], 'intent_name': row[1]}


def snips_files(folder: pathlib.Path, split: str) -> Iterator[task.Record]:
  """The records of the three parallel files of a split: `{'tokens', 'slots': indices of tags, 'label'}`.

  Raises:
    UsageError: the files differ in their lines, or a line in its words and tags, or a name is unknown.
  """
  paths = [original_files.locate(folder / split, (name,)) for name in _SNIPS_FILES]
  columns = [[line for _, line in original_files.lines(path)] for path in paths]
  if len({len(column) for column in columns}) > 1:
    lengths = ', '.join(f'{path.name} {len(column)}' for path, column in zip(paths, columns, strict=True))
    raise errors.UsageError(f'{folder / split}: got {lengths} lines, expected as many in each')
  for number, (text, slots, intent) in enumerate(zip(*columns, strict=True), 1):
    tokens, tags = text.split(), slots.split()
    if len(tokens) != len(tags):
      raise original_files.malformed(paths[1], number, f'has {len(tags)} tags for {len(tokens)} words')
    unknown = [tag for tag in tags if tag not in SLOTS.tags]
    if unknown or intent.strip() not in intent_labels.SNIPS:
      raise original_files.malformed(paths[1], number, f'has unknown tags or intent: {unknown} {intent.strip()!r}')
    label = intent_labels.SNIPS.index(intent.strip())
    yield {'text': ' '.join(tokens), 'tokens': tokens, 'slots': [SLOTS.tags.index(tag) for tag in tags], 'label': label}


def _register_classes(name: str, reader: originals.Reader, files: str, splits: dict[str, str], labels: tuple[str, ...]):
  files_only.register(
    name,
    reader,
    files,
    splits=splits,
    preprocess=functools.partial(labelled.worded, benchmark=name, fields=TEXT_FIELDS, labels=labels),
    metrics=('accuracy',),
    postprocess=functools.partial(labelled.label_id, labels=labels),
    reference=labelled.reference_label,
    encoder=task.EncoderTask('classification', functools.partial(labelled.classified, fields=TEXT_FIELDS), labels),
  )


_SNIPS_FOLDERS = 'the folders train, valid and test with seq.in, seq.out and label of SNIPS'

_register_classes(
  'banking77', banking_files, 'train.csv and test.csv of BANKING77', BANKING_SPLITS, intent_labels.BANKING77
)
_register_classes('snips_intent', snips_files, _SNIPS_FOLDERS, SNIPS_SPLITS, intent_labels.SNIPS)
files_only.register(
  'snips',
  snips_files,
  _SNIPS_FOLDERS,
  splits=SNIPS_SPLITS,
  preprocess=intent_and_slots,
  metrics=('intent_and_slots',),
  postprocess=parsed_intent_and_slots,
  reference=reference_intent_and_slots,
  encoder=dataclasses.replace(SLOTS.encoder, metrics=('entity_f1',)),
)
task.register(
  task.Task(
    'clinc150',
    sources.TfdsSource('clinc_oos:0.1.0'),
    clinc,
    supervised=True,
    splits=CLINC_SPLITS,
    metrics=('accuracy',),
    postprocess=functools.partial(labelled.label_id, labels=intent_labels.CLINC150),
    reference=clinc_label,
    encoder=task.EncoderTask('classification', clinc_class, intent_labels.CLINC150),
  )
)
originals.register('clinc150', clinc_files, CLINC_SPLITS.values())
