"""Bits per byte of one and the same text by models of any family: how well each continues a text from its beginning.

Documents are cut in two as texts, before any tokenizer sees them, so that all models are asked for the same bytes after
the same bytes. What a model gives them is of one of two kinds, which are never to be compared with each other:

    bits_per_byte_of_continuation         T5, GPT, XLNet: the log2-likelihood of the continuation given the beginning
    pseudo_bits_per_byte_of_continuation  BERT: the sum of log2-likelihoods of its tokens, each masked by itself and
                                          told from all others, those behind it too

Of the first kind are numbers of models that were trained to continue and of others; a model that never saw the task, as
T5 after span corruption, is at a disadvantage. What a tokenizer drops (blanks, or a character that becomes an unknown
id) costs its model little or nothing, and its bytes count.

How each family is asked is told in `conditional`. Source: Gao et al. 2020, section 3.1 (bits by bytes of UTF-8).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.core import batch as batch_lib
from t5x_lite.core import errors
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.scoring import conditional
from t5x_lite.training.steps import Trainer

BITS = 'bits_per_byte_of_continuation'
PSEUDO_BITS = f'pseudo_{BITS}'

_GAP = re.compile(r'(?<=\S)\s')


@dataclasses.dataclass(frozen=True)
class Continuations:
  """Which texts are cut where.

  Attributes:
    context: characters of the beginning, at most.
    length: characters of what follows and is scored, at most. A document that is shorter than both is cut in the same
      proportion.
    documents: of the split, at evenly spaced places; all if there are no more.
    per_document: passages of a document, one behind the other from its start; the rest of it is not read.
    masked: by models that read both sides, how many tokens of each continuation are masked, one at a time, at evenly
      spaced places; each then stands for as many as it was chosen from. None: all of them, each a row to be read.
  """

  context: int = 256
  length: int = 256
  documents: int = 200
  per_document: int = 8
  masked: int | None = None

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if value is not None and value < 1:
        raise errors.UsageError(f'Continuations.{name}={value}: expected at least 1')


class Passage(NamedTuple):
  """A text in two parts; the second begins with the blank that stands between them."""

  beginning: str
  continuation: str


def measure(trainer: Trainer, params: Any, config: DatasetConfig, chosen: Continuations) -> dict[str, float]:
  """Bits per byte of the continuations of a task's documents.

  Args:
    trainer: whose model and mesh are used.
    params: of its model.
    config: of one task that is text: split, tokenizer, features, objective and batch size.
    chosen: which texts are cut where.

  Returns:
    `BITS`, or `PSEUDO_BITS` of a model that reads both sides; and of what: `passages`, `continuation_bytes`, and how
    many tokens were predicted, `continuation_tokens`. Every process gets the same.

  Raises:
    UsageError: the split has no text that can be cut, or the model predicts none of these features or has no positions
      for so long a passage.
  """
  (member,) = tasks.tasks(config.mixture_or_task_name)
  texts = passages(member, config.split, chosen)
  if not texts:
    raise errors.UsageError(f'task {member.name!r}, split {config.split!r}: no document of two words to continue')
  assert config.tokenizer is not None
  make, converter = conditional.maker(config, chosen.masked)
  rows = [row for text in texts for row in make(*conditional.encoded(config.tokenizer, *text))]
  what = 'Continuations.context and length, a passage'
  bits = float(conditional.nll(trainer, params, rows, converter, config.batch_size, what).sum()) / math.log(2.0)
  size = sum(len(text.continuation.encode('utf-8')) for text in texts)
  name = PSEUDO_BITS if conditional.is_pseudo(converter) else BITS
  predicted = sum(int(np.count_nonzero(batch_lib.targets(row.example)[1])) for row in rows)
  return {name: bits / size, 'passages': len(texts), 'continuation_bytes': size, 'continuation_tokens': predicted}


def passages(member: tasks.Task, split: str, chosen: Continuations) -> list[Passage]:
  """The passages of a split, in the order of its records; they depend on no tokenizer and no model."""
  found = []
  for record in member.spread_records(split, chosen.documents):
    for example in member.examples(record):
      found += list(cut(example['text'], chosen))
  return found


def cut(text: str, chosen: Continuations) -> Iterator[Passage]:
  """The passages of a document. They begin and end between words; only the first may be shorter than was asked for."""
  text, whole, start = text.strip(), chosen.context + chosen.length, 0
  for number in range(chosen.per_document):
    window = text[start : start + whole]
    if number and len(window) < whole:
      return
    ends = [gap.start() - start for gap in _GAP.finditer(text, start + 1, start + whole + 1)]
    ends += [len(window)] if start + whole >= len(text) else []
    middle = max((end for end in ends if end <= chosen.context * len(window) // whole), default=0)
    end = max(ends, default=0)
    if not 0 < middle < end:
      return
    yield Passage(window[:middle], window[middle:end])
    start += end
