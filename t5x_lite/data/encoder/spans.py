"""Questions whose answer is a span of a context: windows of the context, each with the whole question.

    inputs   [CLS] who wrote it ? [SEP] it was written by ada lovelace in 1843 . [SEP]
    span     12 13
    offsets  -1 ... -1 0:2 3:6 7:14 15:17 18:21 22:30 31:33 34:38 38:39 -1

An example has, besides `inputs` and `token_types`: `span` int32 `[2]`, the first and last position of the answer, both
the position of [CLS] where this window does not hold the whole answer; `offsets` int32 `[n, 2]`, where in the context
each token stands, in characters, -1 where it is none of the context; `pooled` int32 `[1]`, the position of [CLS].

Source: Devlin et al. 2019 (BERT), sections 4.2 and 4.3, and the published `run_squad.py`; windows overlap by `stride`
tokens as in Hugging Face (BERT's `doc_stride` is how far they move on).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.data.encoder.frames import Framer, Ids
from t5x_lite.data.streams import TaskExample
from t5x_lite.data.vocabularies import offsets

_NOWHERE = -1


def context_room(framer: Framer, max_query_length: int) -> int:
  """Tokens of a context beside the longest question. Raises `UsageError` where there are none."""
  room = framer.length - framer.frame(pair=True).special - max_query_length
  if room < 1:
    raise errors.UsageError(
      f'got a length of {framer.length} with questions of up to {max_query_length} tokens, expected at least '
      f'{framer.length - room + 1}'
    )
  return room


def spans(framer: Framer, examples: Sequence[task.Record], max_query_length: int) -> list[list[TaskExample]]:
  """Questions with contexts: for each the windows that it makes, in order; one unless examples are split.

  Args:
    framer: puts question and context together.
    examples: with `text`, the question; `pair`, the context; `answers` and `starts`, of which the first is learned.
    max_query_length: tokens of a question at most; longer ones lose their end, and count as truncated.

  Raises:
    UsageError: an answer is not in the context where it should be.
  """
  questions = framer.tokenizer.encode_batch([example['text'] for example in examples])
  return [
    _windows(framer, example, question[:max_query_length], len(question) > max_query_length)
    for example, question in zip(examples, questions, strict=True)
  ]


def answer_tokens(places: Sequence[offsets.Span], start: int, end: int) -> tuple[int, int] | None:
  """The first and last of the tokens that stand at these places and hold characters `start` to `end`; None if none."""
  held = [index for index, (first, last) in enumerate(places) if first < end and last > start and first < last]
  return (held[0], held[-1]) if held else None


def _windows(framer: Framer, example: task.Record, question: Ids, cut: bool) -> list[TaskExample]:
  context, places = framer.tokenizer.encode_with_offsets(example['pair'])
  frame = framer.frame(pair=True)
  room = framer.length - frame.special - len(question)
  if framer.long_examples == task.DROP and (cut or len(context) > room):
    return []
  answer = _answer(example)
  held = answer_tokens(places, *answer) if answer else None
  windows = framer.windows(len(context), room)
  # An answer that no token spells is lost; one that only another window holds is not.
  truncated = cut or windows[-1][1] < len(context) or (answer is not None and held is None)
  made = []
  for start, stop in windows:
    features = framer.arrays((question, context[start:stop]))
    before = frame.second + len(question) - start  # from the place in the context to the one in the frame
    if held is not None and start <= held[0] and held[1] < stop:
      features['span'] = np.array(held, np.int32) + np.int32(before)
    else:
      features['span'] = np.repeat(features['pooled'], 2)
    features['offsets'] = np.full((len(features['inputs']), 2), _NOWHERE, np.int32)
    features['offsets'][start + before : stop + before] = np.reshape(places[start:stop], (-1, 2))
    made.append(TaskExample(features, truncated))
  return made


def _answer(example: task.Record) -> offsets.Span | None:
  """Where in the context the first answer stands, in characters; None if there is none."""
  if not example['answers']:
    return None
  answer, start, context = example['answers'][0], example['starts'][0], example['pair']
  if not (start >= 0 and answer and context[start : start + len(answer)] == answer):
    found = context[max(start, 0) : max(start, 0) + max(len(answer), 1)]
    raise errors.UsageError(
      f'question {example["text"]!r}: got the answer {answer!r} at character {start} of its context, where {found!r} is'
    )
  return start, start + len(answer)
