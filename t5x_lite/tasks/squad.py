"""SQuAD 1.1 and 2.0: a question and a paragraph -> the answer, as text or as a span of the paragraph.

    squad       question: Where is Normandy ? context: ... a region in France .  ->  France
    squad_v2    the same, where some questions have no answer: unanswerable

As in T5, punctuation stands between spaces in all that the text-to-text task reads and writes, and a question with
several right answers has the first as its target and all as its reference. T5 has no wording for questions without an
answer; theirs is that of FLAN. A model with a head reads the texts as they are, and marks a span of the paragraph.

Records are TFDS's `squad/...:3.0.0`, or come from the published `train-v1.1.json` and so on (see `originals`). The test
splits were never published.

Sources: Rajpurkar et al. 2016 and 2018 (SQuAD); Raffel et al. 2020 (T5), appendix D, and `squad` in the published
`t5.data.preprocessors`; Wei et al. 2022 (FLAN).
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite.data import sources, task
from t5x_lite.tasks import labelled, original_files, originals

DOC_STRIDE = 128  # tokens that the windows of a context share, for encoders (Hugging Face's `run_qa.py`)
SPLITS = {'train': 'train', 'validation': 'validation'}
UNANSWERABLE = 'unanswerable'

_PUNCTUATION = re.compile(r'([!-/:-@\[-`{-~])')  # of ASCII, as RE2's [[:punct:]]
_WHITE_SPACE = re.compile(r'[\t\n\f\r ]+')  # of ASCII, as RE2's \s
_STEMS = {'train': 'train', 'validation': 'dev'}


def pad_punctuation(text: str) -> str:
  """`text` with single spaces around ASCII punctuation, and single spaces where there was other white space."""
  return _WHITE_SPACE.sub(' ', _PUNCTUATION.sub(r' \1 ', text))


def unpadded(answer: str, context: str) -> str:
  """An answer as it stands in the context, where the two differ in white space alone; any other as it is.

  What a model writes that has learnt from `squad` has spaces around punctuation, which the official script would take
  for other words.
  """
  letters = ''.join(answer.split())
  places = [place for place, letter in enumerate(context) if not letter.isspace()]
  start = ''.join(context[place] for place in places).find(letters) if letters else -1
  return answer if start < 0 else context[places[start] : places[start + len(letters) - 1] + 1]


def squad(record: task.Record) -> task.Example:
  """A question and its context -> the first of its answers, `<unk>` where there is none."""
  return _answered(record, labelled.UNKNOWN)


def squad_v2(record: task.Record) -> task.Example:
  """A question and its context -> the first of its answers, `unanswerable` where there is none."""
  return _answered(record, UNANSWERABLE)


def padded_answers(record: task.Record) -> list[str]:
  """All right answers, written as in `squad`."""
  return [pad_punctuation(answer) for answer in record['answers']['text']]


def right_answers(record: task.Record) -> list[str]:
  """All right answers, as a model that learnt from `squad` writes them and as they stand in the context, each once."""
  return list(dict.fromkeys([*padded_answers(record), *record['answers']['text']]))


def answer_or_none(text: str) -> str:
  """A predicted answer, empty where it says that there is none."""
  return '' if text.strip() == UNANSWERABLE else text


def spans(record: task.Record) -> task.Record:
  """A question, its context, and the answers with where they begin in it, in characters."""
  return {
    'text': record['question'],
    'pair': record['context'],
    'answers': list(record['answers']['text']),
    'starts': [int(start) for start in record['answers']['answer_start']],
  }


def _answered(record: task.Record, without: str) -> task.Example:
  question, context = (pad_punctuation(record[name]) for name in ('question', 'context'))
  answers = padded_answers(record)
  inputs = _WHITE_SPACE.sub(' ', f'question: {question} context: {context}')
  return {'inputs': inputs, 'targets': answers[0] if answers else without}


@dataclasses.dataclass(frozen=True)
class SquadFiles:
  """Reads the published JSON files: `SquadFiles('v1.1')(folder, 'train')`.

  Attributes:
    version: 'v1.1' or 'v2.0'; records of the latter say too whether a question `is_impossible`.
  """

  version: str

  def __call__(self, folder: pathlib.Path, split: str) -> Iterator[task.Record]:
    """The questions of a split, in the order of the file."""
    path = original_files.locate(folder, (f'{_STEMS[split]}-{self.version}.json',))
    content = original_files.json_file(path)
    at = 'at its top'
    try:
      for article_number, article in enumerate(content['data']):
        for paragraph_number, paragraph in enumerate(article['paragraphs']):
          at = f'article {article_number}, paragraph {paragraph_number}'
          for question in paragraph['qas']:
            yield self._record(question, paragraph['context'], article.get('title', ''))
    except (KeyError, TypeError) as error:
      what = f'lacks {error}' if isinstance(error, KeyError) else f'is malformed: {error}'
      raise original_files.malformed(path, at, what) from error

  def _record(self, question: Mapping[str, Any], context: str, title: str) -> task.Record:
    record = {
      'id': question['id'],
      'title': title,
      'context': context,
      'question': question['question'],
      'answers': _columns(question['answers']),
    }
    if self.version == 'v1.1':
      return record
    plausible = _columns(question.get('plausible_answers', ()))
    return {**record, 'plausible_answers': plausible, 'is_impossible': bool(question['is_impossible'])}


def _columns(answers: Any) -> dict[str, list[Any]]:
  return {
    'text': [answer['text'] for answer in answers],
    'answer_start': [int(answer['answer_start']) for answer in answers],
  }


def _register(name: str, version: str, preprocess: task.Preprocess, **options: Any) -> None:
  task.register(
    task.Task(
      name,
      sources.TfdsSource(f'squad/{version}:3.0.0'),
      preprocess,
      supervised=True,
      splits=SPLITS,
      metrics=(name,),
      reference=right_answers,
      encoder=task.EncoderTask(
        'span', spans, long_examples=task.SPLIT, stride=DOC_STRIDE, may_lack_answer=version == 'v2.0'
      ),
      **options,
    )
  )
  originals.register(name, SquadFiles(version))


_register('squad', 'v1.1', squad)
_register('squad_v2', 'v2.0', squad_v2, postprocess=answer_or_none)
