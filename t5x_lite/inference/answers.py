"""From the logits of starts and ends to answers, over all windows of a context.

Within one window, starts, ends and scores are those of the question answering pipeline of transformers 4: a score is
the product of the probabilities of start and end among all tokens of the context and [CLS], candidates are widened to
whole words, and those of the same text are one. Windows are compared by their logits, as SQuAD's scripts do, so one
softmax goes over all of them; the pipeline has one for each, in which a window without the answer looks as sure.

Sources: transformers' `QuestionAnsweringPipeline`; Devlin et al. 2019 (BERT), section 4.3, for no answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Window(NamedTuple):
  """What a model says of a part of a context.

  Attributes:
    start: float32 `[N]`, logits of the start at the tokens of the context.
    end: the same, of the end.
    null: logits of start and end at [CLS]; None where the family has none.
    first: number of the first of these tokens in the whole context.
  """

  start: np.ndarray
  end: np.ndarray
  null: tuple[float, float] | None
  first: int


def answers(
  context: str,
  places: Sequence[tuple[int, int]],
  windows: Sequence[Window],
  *,
  top: int,
  max_length: int,
  may_lack: bool,
) -> list[dict[str, Any]]:
  """The best answers, best first: `answer`, `score`, `start` and `end` in characters of the context.

  Args:
    context: where they are looked for.
    places: of its tokens, from which character to before which.
    windows: of it.
    top: answers at most.
    max_length: tokens of an answer at most.
    may_lack: whether there may be none: an empty `answer` then, with `start` and `end` 0.
  """
  nulls = [window.null for window in windows if window.null is not None]
  starts = log_total([window.start for window in windows], [null[0] for null in nulls])
  ends = log_total([window.end for window in windows], [null[1] for null in nulls])
  found: dict[str, dict[str, Any]] = {}
  taken: set[tuple[int, int]] = set()  # what two windows share counts once
  for score, first, last in sorted(_candidates(windows, 2 * top + 10, max_length), key=lambda each: -each[0]):
    if (first, last) in taken:
      continue
    taken.add((first, last))
    start, end = _whole_words(context, places[first][0], places[last][1])
    chance = float(np.exp(score - starts - ends))
    same = found.setdefault(
      context[start:end].lower(), {'answer': context[start:end], 'score': 0.0, 'start': start, 'end': end}
    )
    same['score'] += chance
  made = [each for each in found.values() if each['answer']]
  if may_lack and nulls:
    chance = float(np.exp(min(null[0] + null[1] for null in nulls) - starts - ends))
    made.append({'answer': '', 'score': chance, 'start': 0, 'end': 0})
  best = sorted(made, key=lambda each: -each['score'])[:top]
  return [{**each, 'score': round(each['score'], 6)} for each in best]


def _candidates(windows: Sequence[Window], count: int, max_length: int) -> list[tuple[float, int, int]]:
  """Of each window the spans with the highest sums of logits: the sum, the first and the last token in the context."""
  found = []
  for window in windows:
    size = len(window.start)
    width = min(max_length, size)
    ends = np.concatenate([window.end, np.full(width, -np.inf, np.float32)])
    scores = window.start[:, None] + np.lib.stride_tricks.sliding_window_view(ends, width)[:size]
    flat = scores.ravel()
    chosen = np.argpartition(-flat, min(count, flat.size) - 1)[:count]
    for index in chosen[np.isfinite(flat[chosen])]:
      first, more = divmod(int(index), width)
      found.append((float(flat[index]), window.first + first, window.first + first + more))
  return found


def log_total(logits: Sequence[np.ndarray], others: Sequence[float] = ()) -> float:
  """log of the sum of exp of all of them."""
  everything = np.concatenate([*logits, np.asarray(others, np.float32)]).astype(np.float64)
  top = everything.max()
  return float(top + np.log(np.exp(everything - top).sum()))


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
  """A span that no longer begins or ends in the midst of a word."""
  while 0 < start < end and _joins(text[start - 1], text[start]):
    start -= 1
  while start < end < len(text) and _joins(text[end - 1], text[end]):
    end += 1
  return start, end


def _joins(one: str, other: str) -> bool:
  """Whether two characters belong to a word; where words have no spaces between them, none do."""
  return all(each.isalnum() and unicodedata.east_asian_width(each) not in 'WF' for each in (one, other))
