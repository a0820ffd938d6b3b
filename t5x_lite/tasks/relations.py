"""Relations between two nouns: SemEval-2010 task 8.

    semeval2010_task8 : A [ child ] is bound into the [ cradle ] . The relationship between [ child ] and [ cradle ] is
      ->  relationship between [ child ] and [ cradle ] = Entity-Destination(e1,e2)

Source: Hendrickx et al. 2010. Wording: TANL (Paolini et al. 2021), appendix A, for relation classification; the labels
keep their direction. For models with heads the nouns are marked as R-BERT has it (Wu and He 2019).
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.tasks import files_only, original_files

RELATIONS = (
  'Cause-Effect',
  'Component-Whole',
  'Content-Container',
  'Entity-Destination',
  'Entity-Origin',
  'Instrument-Agency',
  'Member-Collection',
  'Message-Topic',
  'Product-Producer',
)
OTHER = 'Other'
NAME = 'semeval2010_task8'
LABELS = (*(f'{name}({order})' for name in RELATIONS for order in ('e1,e2', 'e2,e1')), OTHER)
SPLITS = {'train': 'train', 'test': 'test'}

_FILES = {'train': ('TRAIN_FILE.TXT',), 'test': ('TEST_FILE_FULL.TXT',)}
_SENTENCE = re.compile(r'(\d+)\t"(.*)"\s*')
_NOUNS = re.compile(r'<(e[12])>(.*?)</\1>')
_IS = ' = '


def relation(record: task.Record) -> task.Example:
  """A sentence with its nouns in brackets and the question -> the relation."""
  between = ' and '.join(f'[ {text} ]' for text in _nouns(record))
  sentence = _marked(record, {'e1': ('[', ']'), 'e2': ('[', ']')})
  return {
    'inputs': f'{NAME} : {sentence} The relationship between {between} is',
    'targets': f'relationship between {between}{_IS}{LABELS[record["relation"]]}',
  }


def relation_label(text: str) -> str | None:
  """The label that a predicted text ends with; None if it ends with none."""
  label = text.rpartition(_IS.strip())[2].strip()
  return label if label in LABELS else None


def relation_reference(record: task.Record) -> str:
  """The label of a record."""
  return LABELS[record['relation']]


def relation_class(record: task.Record) -> task.Record:
  """The sentence with `$` around the first noun and `#` around the second, and the class."""
  return {'text': _marked(record, {'e1': ('$', '$'), 'e2': ('#', '#')}), 'label': record['relation']}


def relation_of_class(record: task.Record, label: int) -> str:
  """The name of a predicted class."""
  return LABELS[label]


def semeval_files(folder: pathlib.Path, split: str) -> Iterator[task.Record]:
  """The records of `TRAIN_FILE.TXT`: `{'sentence': with <e1> and <e2>, 'relation': index of the label}`.

  Raises:
    UsageError: a record is not a numbered sentence in quotes with both nouns, or its next line no label.
  """
  path = original_files.locate(folder, _FILES[split])
  sentence = None
  for number, line in original_files.lines(path):
    if not line.strip() or line.startswith('Comment'):
      continue
    if sentence is None:
      match = _SENTENCE.fullmatch(line)
      if match is None or {name for name, _ in _NOUNS.findall(match[2])} != {'e1', 'e2'}:
        raise original_files.malformed(path, number, 'is no numbered sentence in quotes with <e1> and <e2>')
      sentence = match[2]
      continue
    if line.strip() not in LABELS:
      raise errors.UsageError(f'{path}, line {number}: {errors.unknown("relation", line.strip(), LABELS)}')
    yield {'sentence': sentence, 'relation': LABELS.index(line.strip())}
    sentence = None
  if sentence is not None:
    raise original_files.malformed(path, 'the end', 'lacks the relation of the last sentence')


def _nouns(record: task.Record) -> list[str]:
  """The first noun and the second."""
  found = dict(_NOUNS.findall(record['sentence']))
  return [found['e1'], found['e2']]


def _marked(record: task.Record, marks: dict[str, tuple[str, str]]) -> str:
  """The sentence with marks around its nouns, single spaces between."""

  def put(match: re.Match[str]) -> str:
    before, after = marks[match[1]]
    return f' {before} {match[2]} {after} '

  return ' '.join(_NOUNS.sub(put, record['sentence']).split())


files_only.register(
  NAME,
  semeval_files,
  'TRAIN_FILE.TXT and TEST_FILE_FULL.TXT of SemEval-2010 task 8',
  splits=SPLITS,
  preprocess=relation,
  metrics=('semeval_relation_f1',),
  postprocess=relation_label,
  reference=relation_reference,
  encoder=task.EncoderTask('classification', relation_class, LABELS, answer=relation_of_class),
)
