"""`infer --mode=answer`: what in a context answers a question, however long the context is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import documents
from t5x_lite.data.encoder.examples import MAX_QUERY_LENGTH
from t5x_lite.inference import answers, heads, rows
from t5x_lite.inference.answers import Window
from t5x_lite.inference.heads import HeadReader
from t5x_lite.inference.modes import Item, Options
from t5x_lite.pretrained import Pretrained

_WINDOW = 384  # tokens of a window and
_STRIDE = 128  # those that two of them share, at most, as in BERT's run_squad.py and in transformers


class Answer:
  """See `modes.Mode`. Raises UsageError where the model has no head that marks spans, or windows have no room."""

  field = 'line'
  columns = (
    'line',
    'question',
    'prediction',
    'score',
    'start',
    'end',
    'answers',
    'error',
  )

  def __init__(self, model: Pretrained, options: Options):
    asked = min(options.max_input_length or _WINDOW, _WINDOW)
    self._reader = HeadReader(model, ('span',), 'answer', options.max_input_length or _WINDOW)
    self._tokenizer, self._options = self._reader.tokenizer, options
    longest = self._reader.longest or asked
    self._room = longest - self._reader.num_special(pair=True)  # for question and context
    self._max_question = min(MAX_QUERY_LENGTH, self._room // 2)
    self._stride = min(longest // 2, _STRIDE) if options.doc_stride is None else options.doc_stride
    for name, value, least in (('doc_stride', self._stride, 0), ('max_answer_len', options.max_answer_len, 1)):
      if value < least:
        raise errors.UsageError(f'{name} is {value}: expected at least {least}')
    if options.top < 1:
      raise errors.UsageError(f'top is {options.top}: expected at least 1')
    if self._max_question < 1 or (options.doc_stride or 0) >= self._room - self._max_question:
      raise errors.UsageError(
        f'doc_stride is {self._stride}, and a window has {self._room - self._max_question} tokens of the context '
        'beside the longest question: expected a smaller doc_stride, or longer inputs'
      )
    asked_for = options.handle_impossible_answer
    self._may_lack = model.may_lack_answer if asked_for is None else asked_for
    # Published XLNets are fine-tuned by Hugging Face's scripts, which put the context first where padding is left.
    self._context_first = self._tokenizer.padding_side == 'left' and not model.is_own
    self._cls = _id_of_cls(self._tokenizer)
    if asked_for and self._cls is None:
      raise errors.UsageError(f'{self._tokenizer} has no token that could stand for no answer')

  def read(self, fields: Mapping[str, Any]) -> Item:
    """The ids of "question" and "context"; of a line, which has a tab between them, or of `context` of the options."""
    if self.field in fields:
      question, tab, context = str(fields[self.field]).partition('\t')
      fields = {'question': question, **({'context': context} if tab else {})}
    question = heads.said(rows.text_field(fields, 'question'), 'the question')
    if 'context' not in fields and not self._options.context:
      raise ValueError('no context: expected it under "context", behind a tab, or --context=FILE for all questions')
    own = rows.text_field(fields, 'context') if 'context' in fields else self._options.context
    context = heads.said(own, 'the context')
    asked = self._tokenizer.encode(question)[: self._max_question]
    ids, places = self._tokenizer.encode_with_offsets(context)
    room = self._room - len(asked)
    windows = documents.spans(len(ids), room, min(self._stride, room - 1))
    framed = [self._framed(asked, ids[start:stop]) for start, stop in windows]
    longest = max((each.ids for each in framed), key=len)
    return Item(longest, {'question': question}, (framed, windows, places, context, self._before(asked)))

  def _framed(self, question: list[int], context: list[int]) -> heads.Framed:
    return self._reader.framed(*((context, question) if self._context_first else (question, context)))[0]

  def _before(self, question: list[int]) -> int:
    """How many tokens stand before the context."""
    pair = ([-1], question) if self._context_first else (question, [-1])
    return int(self._tokenizer.with_special_tokens(*pair)[0].index(-1))

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The best answer of each, and others."""
    each = heads.each_once(items)
    logits = iter(self._reader.logits([row for item in each for row in item.more[0]], length, len(items)))
    found = {id(item): self._row(item, [next(logits) for _ in item.more[0]]) for item in each}
    return [found[id(item)] for item in items]

  def _row(self, item: Item, logits: Sequence[np.ndarray]) -> dict[str, Any]:
    framed, windows, places, context, before = item.more
    said = []
    for own, row, (start, stop) in zip(logits, framed, windows, strict=True):
      inside = own[before : before + stop - start]
      at = np.flatnonzero(row.ids == self._cls) if self._cls is not None else np.zeros(0, int)
      null = (float(own[at[0], 0]), float(own[at[0], 1])) if len(at) else None
      said.append(Window(inside[:, 0], inside[:, 1], null, start))
    found = answers.answers(
      context,
      places,
      said,
      top=self._options.top,
      max_length=self._options.max_answer_len,
      may_lack=self._may_lack,
    )
    if not found:
      return {**item.shown, 'error': 'no word of the context can be an answer'}
    best = found[0]
    own_place = {'score': best['score'], 'start': best['start'], 'end': best['end']}
    return {**item.shown, 'prediction': best['answer'], **own_place, 'answers': found}

  def tell(self, row: Mapping[str, Any]) -> list[str]:
    """What a person is told: the answers, best first."""
    return [f'{each["score"]:.4f}  {each["answer"] or "(no answer)"}' for each in row['answers']]


def _id_of_cls(tokenizer: Any) -> int | None:
  try:
    return int(tokenizer.cls_id)
  except errors.UsageError:
    return None
