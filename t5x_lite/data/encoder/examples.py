"""Examples for models with heads: ids in the family's frame, and labels, of what `task.EncoderTask` makes of a record.

Every example has `inputs` and `token_types`, int32 `[n]`, and what its head learns from:

    classification   `pooled` int32 `[1]`, the position that stands for the text ([CLS]); `label` int32 `[1]`
    regression       `pooled`; `label` float32 `[1]`, NaN where it is unknown
    multiple_choice  `pooled` int32 `[C]`; `segments` int32 `[n]`, which of the C choices, from 1; `label` int32 `[1]`
    span             see `encoder_spans`
    tagging          see `encoder_tags`
    embedding        `pooled` int32 `[C]`; `segments` int32 `[n]`, which of the C texts, 2 or 3; `label` int32 `[1]`;
                     `ids` int32 `[C]`, see `core.batch`

Sources: Devlin et al. 2019 (BERT), section 4 and the published `run_classifier.py`; multiple choice: Radford et al.
2018, section 3.3, as Hugging Face's `run_swag.py`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import documents
from t5x_lite.data import task as tasks
from t5x_lite.data.encoder import spans as encoder_spans
from t5x_lite.data.encoder import tags as encoder_tags
from t5x_lite.data.encoder.frames import Framer, Ids, Texts
from t5x_lite.data.streams import TaskExample
from t5x_lite.data.vocabularies import token_layouts, tokenizers

# How many tokens a question has at most, in BERT's `run_squad.py`.
MAX_QUERY_LENGTH = 64

_KEYS: dict[str, tuple[frozenset[str], frozenset[str]]] = {  # required, and all
  head: (frozenset(required), frozenset((*required, *optional)))
  for head, required, optional in (
    ('classification', ('text', 'label'), ('pair',)),
    ('regression', ('text', 'label'), ('pair',)),
    ('multiple_choice', ('text', 'choices', 'label'), ()),
    ('span', ('text', 'pair', 'answers', 'starts'), ()),
    ('tagging', ('words', 'tags'), ()),
    ('embedding', ('text', 'pair'), ('negative', 'label', 'group')),
  )
}


def tokenise_labelled(
  task: tasks.Task, tokenizer: tokenizers.Tokenizer, length: int, max_query_length: int = MAX_QUERY_LENGTH
) -> documents.Tokenise[documents.Examples[TaskExample]]:
  """A function from records of a task to examples for its head, as long as `length` at most, as the task wants it.

  Args:
    task: has an `encoder`.
    tokenizer: has a token that stands for a text.
    length: of an example in tokens, special ones included.
    max_query_length: tokens of a question that is asked of a context, at most.

  Raises:
    UsageError: the length or the stride is impossible; and, from the function, an example is not as its head needs it.
  """
  parts_of = labelled_parts(task, tokenizer, length, max_query_length)

  def tokenise(records: Sequence[tasks.Record]) -> list[documents.Examples[TaskExample]]:
    return [_examples_of([parts for _, parts in of_record]) for of_record in parts_of(records)]

  return tokenise


def labelled_parts(
  task: tasks.Task, tokenizer: tokenizers.Tokenizer, length: int, max_query_length: int = MAX_QUERY_LENGTH
) -> Callable[[Sequence[tasks.Record]], list[list[tuple[tasks.Record, list[TaskExample]]]]]:
  """As `tokenise_labelled`: for each record its examples as the task gives them, each with the parts that it makes."""
  assert task.encoder is not None, task.name
  head, labels = task.encoder.head, task.encoder.labels
  long_examples = task.encoder.long_examples or task.long_examples
  stride = task.stride if task.encoder.stride is None else task.encoder.stride
  framer = Framer(tokenizer, length, long_examples, stride)
  _check_room(framer, head, max_query_length)

  def parts_of(records: Sequence[tasks.Record]) -> list[list[tuple[tasks.Record, list[TaskExample]]]]:
    given = [[_checked(example, head, labels, task.name) for example in task.encoder_examples(r)] for r in records]
    flat = [example for of_record in given for example in of_record]
    if head == 'span':
      made = iter(encoder_spans.spans(framer, flat, max_query_length))
    else:
      made = iter(_MAKERS[head](framer, flat))
    return [[(example, next(made)) for example in of_record] for of_record in given]

  return parts_of


def classified(framer: Framer, examples: Sequence[tasks.Record]) -> list[list[TaskExample]]:
  """Texts and pairs of texts with a class: for each the parts that it makes, see `Framer.fitted`."""
  return _texts(framer, examples, lambda label: np.array([label], np.int32))


def graded(framer: Framer, examples: Sequence[tasks.Record]) -> list[list[TaskExample]]:
  """The same with a number; NaN or -1 is an unknown one."""
  return _texts(framer, examples, lambda label: np.array([math.nan if label == -1 else label], np.float32))


def chosen(framer: Framer, examples: Sequence[tasks.Record]) -> list[list[TaskExample]]:
  """Choices that each stand with the text, one after the other: the choices of a question share a row.

  Where they do not fit, C choices get a C-th of the length each, and there the longer of text and choice gives way
  first. With so many that not even a token of each text is left, the question is dropped, and counted. It is never
  split: what is left of it would not be one.
  """
  texts = [text for example in examples for text in (example['text'], *example['choices'])]
  ids = iter(framer.tokenizer.encode_batch(texts))
  made = []
  for example in examples:
    text = next(ids)
    choices = [next(ids) for _ in example['choices']]
    made.append(_in_a_row(framer, [(text, choice) for choice in choices], example['label']))
  return made


def compared(framer: Framer, examples: Sequence[tasks.Record]) -> list[list[TaskExample]]:
  """Texts that each stand alone, one after the other: two, and a third if there is one unlike them.

  Where they do not fit, C texts get a C-th of the length each.
  """
  given = [
    [example[key] for key in ('text', 'pair', 'negative') if example.get(key) is not None] for example in examples
  ]
  ids = iter(framer.tokenizer.encode_batch([text for texts in given for text in texts]))
  made = []
  for example, texts in zip(examples, given, strict=True):
    found = _in_a_row(framer, [(next(ids), None) for _ in texts], example.get('label', 1))
    keys = [*[example.get('group') or text for text in texts[:2]], *texts[2:]]
    for each in found:
      each.features['ids'] = np.array([_id(key) for key in keys], np.int32)
    made.append(found)
  return made


def _id(text: str) -> int:
  """The CRC-32 of a text without its top bit, and not 0: different texts of a batch hardly ever share one."""
  return zlib.crc32(text.encode()) & 0x7FFFFFFF or 1


def _texts(
  framer: Framer, examples: Sequence[tasks.Record], label: Callable[[Any], np.ndarray]
) -> list[list[TaskExample]]:
  ids = iter(framer.tokenizer.encode_batch([text for example in examples for text in _given(example)]))
  made = []
  for example in examples:
    first, second = next(ids), next(ids) if len(_given(example)) == 2 else None
    parts, truncated = framer.fitted((first, second))
    arrays = (framer.arrays(part) for part in parts)
    made.append([TaskExample({**part, 'label': label(example['label'])}, truncated) for part in arrays])
  return made


def _given(example: tasks.Record) -> list[str]:
  """One text or two."""
  return [example[key] for key in ('text', 'pair') if example.get(key) is not None]


def _in_a_row(framer: Framer, texts: Sequence[Texts], label: int) -> list[TaskExample]:
  """One text or two of each segment, as one example; none where not a token of each text would be left."""
  pair = texts[0][1] is not None
  special, truncated = framer.frame(pair).special, False
  if sum(special + len(first) + len(second or ()) for first, second in texts) > framer.length:
    room = framer.length // len(texts) - special
    if framer.long_examples == tasks.DROP or room < 1 + pair:
      return []
    texts, truncated = [_truncated(*each, room) for each in texts], True
  parts = [framer.arrays(each) for each in texts]
  ends = np.cumsum([len(part['inputs']) for part in parts])
  starts = [0, *ends[:-1]]
  segments = [np.full(len(part['inputs']), number, np.int32) for number, part in enumerate(parts, 1)]
  features = {name: np.concatenate([part[name] for part in parts]) for name in ('inputs', 'token_types')}
  features['pooled'] = np.array(
    [start + part['pooled'][0] for start, part in zip(starts, parts, strict=True)], np.int32
  )
  features['segments'] = np.concatenate(segments)
  features['label'] = np.array([label], np.int32)
  return [TaskExample(features, truncated)]


def _truncated(first: Ids, second: Ids | None, room: int) -> Texts:
  return (first[:room], None) if second is None else token_layouts.truncate_longest_first(first, second, room)


_MAKERS: dict[str, Callable[[Framer, Sequence[tasks.Record]], list[list[TaskExample]]]] = {
  'classification': classified,
  'regression': graded,
  'multiple_choice': chosen,
  'tagging': encoder_tags.tagged,
  'embedding': compared,
}


def _examples_of(made: list[list[TaskExample]]) -> documents.Examples[TaskExample]:
  found = documents.Examples(example for parts in made for example in parts)
  found.dropped = sum(not parts for parts in made)
  return found


def _check_room(framer: Framer, head: str, max_query_length: int) -> None:
  """Raises UsageError where examples could not be made, whatever the texts."""
  if head in ('classification', 'regression', 'tagging'):
    room = framer.room(pair=False)
    if head != 'tagging' and framer.long_examples == tasks.SPLIT:
      room = (framer.room(pair=True) + 1) // 2  # what a second text, if there is one, leaves at least
    framer.windows(0, room)
  elif head == 'span':
    framer.windows(0, encoder_spans.context_room(framer, max_query_length))
  elif head == 'embedding':
    framer.for_each(2).room(pair=False)
  else:
    framer.room(pair=True)


def _checked(example: tasks.Record, head: str, labels: Sequence[str], name: str) -> tasks.Record:
  """The example, if it has what its head needs; else `UsageError`."""
  required, known = _KEYS[head]
  if not required <= set(example) <= known:
    raise errors.UsageError(
      f'task {name!r}: encoder.preprocess returned the keys {sorted(example)}, expected {sorted(required)} for {head}'
    )
  if head == 'multiple_choice' and not example['choices']:
    raise errors.UsageError(f'task {name!r}: got a question without choices')
  for label, count in _indices(example, head, len(labels)):
    if not -1 <= label < count:
      raise errors.UsageError(f'task {name!r}: got label {label}, expected one of {count}, or -1 where it is unknown')
  for one, other in (('words', 'tags'), ('answers', 'starts')):
    if one in required and len(example[one]) != len(example[other]):
      raise errors.UsageError(
        f'task {name!r}: got {len(example[one])} {one} and {len(example[other])} {other}, expected as many'
      )
  return example


def _indices(example: tasks.Record, head: str, num_labels: int) -> Iterator[tuple[int, int]]:
  """Indices in an example, and how many things they choose from."""
  if head == 'multiple_choice':
    yield example['label'], len(example['choices'])
  elif head == 'classification' and num_labels:
    yield example['label'], num_labels
  elif head == 'embedding':
    yield example.get('label', 1), 2
  elif head == 'tagging' and num_labels:
    for tag in example['tags']:
      yield tag, num_labels
