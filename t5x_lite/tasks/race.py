"""RACE: an article, questions about it and four options each -> the right option, as text or as a choice.

    race_middle, race_high     from the exams of middle and of high schools
    race                       both, each at the rate of its number of questions

    how old is he? \\n (a) 9 (b) 10 (c) 11 (d) 12 \\n tom is ten years old. ...  ->  10

T5 has no wording for RACE: this is UnifiedQA's, which writes all in lower case and a backslash and an n between the
parts, since T5's vocabulary has no line break. (It also takes pairs of single quotes off, which we leave in place.) A
question is one example; an article has several.

Records are TFDS's `race/...:2.0.0`, or come from the published tree of files, or its `RACE.tar.gz` (see `originals`).

Sources: Lai et al. 2017 (RACE); Khashabi et al. 2020 (UnifiedQA), section 3.2, and its published `encode_datasets.py`;
the choices are those of the fine-tuning scripts of XLNet and RoBERTa.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import string
import tarfile
import zlib
from collections.abc import Iterator

from t5x_lite.core import errors
from t5x_lite.data import mixtures, sources, task
from t5x_lite.tasks import original_files, originals

SPLITS = {'train': 'train', 'validation': 'dev', 'dev': 'dev', 'test': 'test'}
PROPORTIONAL_RATES = (('race_middle', 25_421.0), ('race_high', 62_445.0))  # questions of the training splits

_SEPARATOR = r' \n '
_BLANK = '_'
_FIELDS = ('article', 'questions', 'options', 'answers')


def race(record: task.Record) -> Iterator[task.Example]:
  """An article and its questions -> for each question an example: question, options, article -> the right option."""
  article = _one_line(record['article'])
  for question, options, right in _questions(record):
    letters = string.ascii_uppercase
    listed = ' '.join(f'({letter}) {_one_line(option)}' for letter, option in zip(letters, options, strict=False))
    inputs = _SEPARATOR.join([_one_line(question), listed, article])
    yield {'inputs': inputs.lower(), 'targets': _one_line(options[right]).lower()}


def race_choices(record: task.Record) -> Iterator[task.Record]:
  """The article, and the question with each option."""
  for question, options, right in _questions(record):
    choices = [with_option(question, option) for option in options]
    yield {'text': record['article'], 'choices': choices, 'label': right}


def with_option(question: str, option: str) -> str:
  """The question with an option: in place of its blank if it has one, else after it."""
  return question.replace(_BLANK, option) if _BLANK in question else f'{question} {option}'


def option_text(text: str) -> str:
  """A predicted option, written as in `race`."""
  return _one_line(text).lower()


def _questions(record: task.Record) -> Iterator[tuple[str, list[str], int]]:
  """Questions with their options and the index of the right one."""
  for question, options, answer in zip(record['questions'], record['options'], record['answers'], strict=True):
    yield question, list(options), string.ascii_uppercase.index(answer)


def _one_line(text: str) -> str:
  return ' '.join(text.split())


@dataclasses.dataclass(frozen=True)
class RaceFiles:
  """Reads the published files, one JSON object for each article: `RaceFiles('middle')(folder, 'dev')`.

  Attributes:
    level: 'middle' or 'high'.
  """

  level: str

  def __call__(self, folder: pathlib.Path, split: str) -> Iterator[task.Record]:
    """The articles of a split, in the order of their numbers.

    Args:
      folder: the folder `RACE`, the one above it, or one with a `tar.gz` of it; or that file itself.
      split: `train`, `dev` or `test`.
    """
    for where, content in sorted(self._contents(folder, split), key=lambda item: _number(item[0])):
      yield _record(content, where)

  def _contents(self, folder: pathlib.Path, split: str) -> list[tuple[pathlib.Path, bytes]]:
    """The files of a split and what they hold."""
    for base in (folder, folder / 'RACE'):
      if paths := list((base / split / self.level).glob('*.txt')):
        return [(path, path.read_bytes()) for path in paths]
    archives = [folder] if folder.is_file() else sorted(folder.glob('*.tar.gz'))
    for archive in archives:
      if found := self._members(archive, split):
        return found
    raise errors.UsageError(f'{folder} has no {split}/{self.level}/*.txt, nor a tar.gz with RACE/{split}/{self.level}')

  def _members(self, archive: pathlib.Path, split: str) -> list[tuple[pathlib.Path, bytes]]:
    found = []
    try:
      with tarfile.open(archive) as tar:
        for member in tar:
          path = pathlib.Path(member.name)
          file = tar.extractfile(member) if path.parts[-3:-1] == (split, self.level) and path.suffix == '.txt' else None
          if file is not None:
            found.append((archive / path, file.read()))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
      raise original_files.unreadable(archive, error) from error
    return found


def _number(path: pathlib.Path) -> tuple[int, str]:
  return (int(path.stem) if path.stem.isdecimal() else -1, path.stem)


def _record(content: bytes, path: pathlib.Path) -> task.Record:
  """One article. Raises `UsageError` where the file is malformed."""
  try:
    row = json.loads(content)
    record = {**{name: row[name] for name in _FIELDS}, 'example_id': row['id']}
    list(_questions(record))
  except KeyError as error:
    raise errors.UsageError(f'{path} lacks {error}') from error
  except (TypeError, ValueError) as error:  # JSON and UTF-8 errors are ValueErrors
    raise errors.UsageError(f'{path} is malformed: {error}') from error
  return record


for _level in ('middle', 'high'):
  task.register(
    task.Task(
      f'race_{_level}',
      sources.TfdsSource(f'race/{_level}:2.0.0'),
      race,
      supervised=True,
      splits=SPLITS,
      metrics=('accuracy',),
      postprocess=option_text,
      encoder=task.EncoderTask('multiple_choice', race_choices),
    )
  )
  originals.register(f'race_{_level}', RaceFiles(_level))
task.register(mixtures.Mixture('race', PROPORTIONAL_RATES))
