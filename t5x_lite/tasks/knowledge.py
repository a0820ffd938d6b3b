"""Knowledge-graph completion as text: which entity stands in a relation to a given one.

    fb15k237   Toutanova and Chen 2015
    wn18rr     Dettmers et al. 2018

Both from their files, each triple once for its tail and once for its head. Wording: KGT5 (Saxena et al. 2022), section
3:

    predict tail: Berlin | capital of |  ->  Germany
    predict head: Germany | capital of |  ->  Berlin

Entities and relations are called as `entity2text.txt` and `relation2text.txt` (Yao et al. 2019, KG-BERT) have it.
Entities that would be called the same have their own name behind the text, as KGT5 does it.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterator, Mapping

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.tasks import files_only, original_files

METRICS = ('filtered_hits',)
SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}
TAIL, HEAD = 'tail', 'head'
ENTITIES, RELATIONS = 'entity2text.txt', 'relation2text.txt'

Triple = tuple[str, str, str]


def complete(record: task.Record) -> task.Example:
  """What is asked for, the entity and the relation -> the other entity."""
  return {
    'inputs': f'predict {record["asked"]}: {record["entity"]} | {record["relation"]} |',
    'targets': record['answer'],
  }


def answers(record: task.Record) -> dict[str, object]:
  """The answer, and all that are right in any split, which filtered ranks leave out."""
  return {'answer': record['answer'], 'known': list(record['known'])}


def triple_files(folder: pathlib.Path, split: str) -> Iterator[task.Record]:
  """Two records for each line of `train.txt`, `valid.txt` or `test.txt`: `{'asked': 'tail' or 'head', 'entity',
  'relation', 'answer', 'known': all right answers of the splits that are there}`.

  Raises:
    UsageError: a line has not three columns, or a file of texts not two.
  """
  entities, relations = _apart(_texts(folder, ENTITIES)), _texts(folder, RELATIONS)
  triples = {split: _triples(original_files.locate(folder, (f'{split}.txt', f'{split}.tsv')))}
  for other in SPLITS.values():
    try:
      path = original_files.locate(folder, (f'{other}.txt', f'{other}.tsv'))
    except errors.UsageError:
      continue  # a split that is not there filters nothing
    if other not in triples:
      triples[other] = _triples(path)
  known = collections.defaultdict[tuple[str, str, str], list[str]](list)
  for each in triples.values():
    for head, relation, tail in each:
      known[TAIL, head, relation].append(tail)
      known[HEAD, tail, relation].append(head)
  for head, relation, tail in triples[split]:
    for asked, entity, answer in ((TAIL, head, tail), (HEAD, tail, head)):
      right = dict.fromkeys(known[asked, entity, relation])
      yield {
        'asked': asked,
        'entity': entities.get(entity, entity),
        'relation': relations.get(relation, relation),
        'answer': entities.get(answer, answer),
        'known': [entities.get(name, name) for name in right],
      }


def _triples(path: pathlib.Path) -> list[Triple]:
  found = []
  for number, row in original_files.rows(path):
    if len(row) != 3:
      raise original_files.malformed(path, number, f'has {len(row)} columns, expected head, relation and tail')
    head, relation, tail = (column.strip() for column in row)
    found.append((head, relation, tail))
  return found


def _texts(folder: pathlib.Path, name: str) -> dict[str, str]:
  """The texts of a file of names and texts; none without the file."""
  try:
    path = original_files.locate(folder, (name,))
  except errors.UsageError:
    return {}
  texts = {}
  for number, row in original_files.rows(path):
    if len(row) < 2 or not row[1].strip():
      raise original_files.malformed(path, number, 'has no text after the name')
    texts[row[0].strip()] = row[1].strip()
  return texts


def _apart(texts: Mapping[str, str]) -> dict[str, str]:
  """Texts with the name behind those that several names have."""
  uses = collections.Counter(texts.values())
  return {name: f'{text} {name}' if uses[text] > 1 else text for name, text in texts.items()}


for _name in ('fb15k237', 'wn18rr'):
  files_only.register(
    _name,
    triple_files,
    'train.txt, valid.txt and test.txt with a triple a line, and entity2text.txt',
    splits=SPLITS,
    preprocess=complete,
    metrics=METRICS,
    reference=answers,
  )
