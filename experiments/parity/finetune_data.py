"""The sets of `finetune_heads.py`: their authors' files read, a part of each held out, and written for this library.

The reading is this module's own, and transformers learns from what it gives; this library reads the files that are
written here with its own readers. Every order is drawn with one seed, so that examples are the same in all runs.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SHUFFLED = 0  # the seed of the order of examples


@dataclasses.dataclass(frozen=True)
class Example:
  """What is learned or asked.

  Attributes:
    texts: a text, two, the words of a sentence, or a question and its context.
    answer: the index of a class; names of tags; or `(right answers, character where the first of them begins)`.
    source: as its file has it: a line, a row, the lines of a sentence, or an object of JSON.
  """

  texts: tuple[str, ...]
  answer: Any
  source: Any


Split = tuple[list[Example], list[Example]]  # for training, and held out
Sizes = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Table:
  """A task of GLUE: a table with tabs.

  Attributes:
    path: of `train.tsv` below the folder of all sets.
    columns: of the texts.
    label: the column of the label.
    labels: as they are written, in the order of their indices.
    header: whether the first line has names.
  """

  path: str
  columns: tuple[int, ...]
  label: int
  labels: tuple[str, ...] = ('0', '1')
  header: bool = True

  def read(self, data: pathlib.Path, sizes: Sizes) -> Split:
    """Lines in a drawn order."""
    found = []
    for line in (data / self.path).read_text(encoding='utf-8').rstrip('\n').split('\n')[self.header :]:
      cells = line.split('\t')
      texts = tuple(cells[column] for column in self.columns)
      found.append(Example(texts, self.labels.index(cells[self.label]), line))
    return cut(shuffled(found), sizes)

  def write(self, data: pathlib.Path, folder: pathlib.Path, split: Split) -> None:
    """`train.tsv` and `dev.tsv`."""
    head = [(data / self.path).read_text(encoding='utf-8').split('\n', 1)[0]] if self.header else []
    for name, examples in zip(('train.tsv', 'dev.tsv'), split, strict=True):
      _write_lines(folder / name, [*head, *(example.source for example in examples)])


@dataclasses.dataclass(frozen=True)
class Banking:
  """BANKING77: texts with a category each.

  Attributes:
    labels: the categories, in the order of their indices.
  """

  labels: tuple[str, ...]

  def read(self, data: pathlib.Path, sizes: Sizes) -> Split:
    """Examples of all categories in turn, so that any part has about as many of each."""
    with gzip.open(data / 'banking77' / 'train.csv.gz', 'rt', encoding='utf-8', newline='') as file:
      rows = list(csv.reader(file))[1:]
    per_label: dict[str, list[Example]] = {}
    for text, category in rows:
      per_label.setdefault(category, []).append(Example((text,), self.labels.index(category), (text, category)))
    columns = [shuffled(per_label[category]) for category in sorted(per_label)]
    return cut([example for turn in zip(*columns, strict=False) for example in turn], sizes)

  def write(self, data: pathlib.Path, folder: pathlib.Path, split: Split) -> None:
    """`train.csv` and `test.csv`."""
    for name, examples in zip(('train.csv', 'test.csv'), split, strict=True):
      with (folder / name).open('w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([('text', 'category'), *(example.source for example in examples)])


@dataclasses.dataclass(frozen=True)
class Wnut:
  """WNUT-17: sentences of tagged words; those with an entity, which are a third."""

  def read(self, data: pathlib.Path, sizes: Sizes) -> Split:
    """Of its training file and of its development file."""
    files = (data / 'wnut17' / 'wnut17train.conll.gz', data / 'wnut17' / 'emerging.dev.conll')
    train, held_out = (shuffled(list(filter(_has_entity, _sentences(path)))) for path in files)
    return cut(train, (sizes[0], 0))[0], cut(held_out, (sizes[1], 0))[0]

  def write(self, data: pathlib.Path, folder: pathlib.Path, split: Split) -> None:
    """`wnut17train.conll` and `emerging.dev.conll`."""
    for name, examples in zip(('wnut17train.conll', 'emerging.dev.conll'), split, strict=True):
      _write_lines(folder / name, [line for example in examples for line in (*example.source, '')])


@dataclasses.dataclass(frozen=True)
class Squad:
  """SQuAD 1.1. The questions of a paragraph are all learned or all held out."""

  def read(self, data: pathlib.Path, sizes: Sizes) -> Split:
    """Questions of paragraphs in a drawn order."""
    with gzip.open(data / 'squad' / 'train-v1.1.json.gz', 'rt', encoding='utf-8') as file:
      articles = json.load(file)['data']
    paragraphs = shuffled([paragraph for article in articles for paragraph in article['paragraphs']])
    groups = [[_question(paragraph['context'], qa) for qa in paragraph['qas']] for paragraph in paragraphs]
    found: Split = ([], [])
    for group in groups:
      side = 0 if len(found[0]) < sizes[0] else 1
      found[side].extend(group[: sizes[side] - len(found[side])])
    return _enough(found, sizes)

  def write(self, data: pathlib.Path, folder: pathlib.Path, split: Split) -> None:
    """`train-v1.1.json` and `dev-v1.1.json`."""
    for name, examples in zip(('train-v1.1.json', 'dev-v1.1.json'), split, strict=True):
      paragraphs = [{'context': example.texts[1], 'qas': [example.source]} for example in examples]
      content = {'version': '1.1', 'data': [{'title': 'part', 'paragraphs': paragraphs}]}
      (folder / name).write_text(json.dumps(content), encoding='utf-8')


Files = Table | Banking | Wnut | Squad


def shuffled(items: Sequence[Any]) -> list[Any]:
  """The items in a drawn order, always the same."""
  return random.Random(_SHUFFLED).sample(list(items), len(items))


def cut(examples: Sequence[Example], sizes: Sizes) -> Split:
  """The first examples, and those that come next."""
  train, held_out = sizes
  return _enough((list(examples[:train]), list(examples[train : train + held_out])), sizes)


def _enough(split: Split, sizes: Sizes) -> Split:
  counts = tuple(map(len, split))
  if counts != sizes:
    raise SystemExit(f'got {counts[0]} and {counts[1]} examples, expected {sizes[0]} and {sizes[1]}')
  return split


def _has_entity(example: Example) -> bool:
  return any(tag != 'O' for tag in example.answer)


def _sentences(path: pathlib.Path) -> list[Example]:
  """The sentences of a file with a word and its tag a line; lines that hold white space alone part them."""
  opened: Callable[..., Any] = gzip.open if path.suffix == '.gz' else open
  with opened(path, 'rt', encoding='utf-8', newline='\n') as file:
    lines = [line.rstrip('\r\n') for line in file]
  found, block = [], []
  for line in (*lines, ''):
    if line.strip():
      block.append(line)
    elif block:
      cells = [row.split('\t') for row in block]
      words, tags = (tuple(row[column].strip() for row in cells) for column in (0, 1))
      found.append(Example(words, tags, tuple(block)))
      block = []
  return found


def _question(context: str, qa: Mapping[str, Any]) -> Example:
  answers = qa['answers']
  texts = tuple(answer['text'] for answer in answers)
  return Example((qa['question'], context), (texts, int(answers[0]['answer_start'])), qa)


def _write_lines(path: pathlib.Path, lines: Sequence[str]) -> None:
  path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8', newline='\n')
