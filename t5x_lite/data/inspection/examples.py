"""Single examples as plain values: the text that they are made of, and what they have become."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from t5x_lite.data import example_streams, streams
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.opened import OpenedDataset
from t5x_lite.data.task import Record, Task
from t5x_lite.data.vocabularies import readable
from t5x_lite.data.vocabularies.tokenizers import Tokenizer

TEXTS = ('inputs', 'targets')  # of an example; its other features are numbers
_LABELS = ('label', 'tags')  # of an example for a head

_MAX_DOCUMENTS = 8  # shown of one example
_MAX_CHARACTERS = 4000  # shown of one text


@dataclasses.dataclass(frozen=True)
class Document:
  """A record as the task's preprocessing makes text of it.

  Attributes:
    record: its index in the split.
    texts: its texts by name, of one example after another, each with its first 4000 characters; what an example for a
      head has besides texts, as text too.
    characters: of the whole texts.
  """

  record: int
  texts: list[dict[str, str]]
  characters: int


@dataclasses.dataclass(frozen=True)
class Example:
  """An example of a task.

  Attributes:
    task: its name.
    documents: that its tokens come from, at most the first 8.
    num_documents: how many there are.
    offset: of an unsupervised task: tokens (or sentences) of the first document that earlier examples have had.
    raw: what the objective was given, as text; None where there is no objective.
    raw_tokens: how many tokens that is.
    texts: what it has become, those of its features that are text.
    features: all of its features, ids and other numbers, by name.
    truncated: whether it lost tokens to the feature lengths.
    dropped: how many records or examples were left out before it.
  """

  task: str
  documents: list[Document]
  num_documents: int
  offset: int
  raw: str | None
  raw_tokens: int
  texts: dict[str, str]
  features: dict[str, list[Any]]
  truncated: bool
  dropped: int


def first(data: OpenedDataset, num: int) -> list[Example]:
  """The first `num` examples of the first virtual shard, tasks in turn; fewer if a task of a finite pass ends."""
  recorder = _Recorder(data.config.objective)
  recorded = dataclasses.replace(data, config=dataclasses.replace(data.config, objective=recorder))
  parts = [example_streams.example_stream(recorded, 0, part) for part in range(len(data.parts))]
  examples: list[Example] = []
  for part in itertools.islice(itertools.cycle(range(len(parts))), num):
    recorder.raw = None
    before = parts[part].cursor
    made = parts[part].next()
    if isinstance(made, streams.TheEnd):
      break
    examples.append(_example(data, part, made, before, parts[part].cursor, recorder.raw))
  return examples


def texts_of(data: OpenedDataset, task: Task, record: Record) -> list[dict[str, str]]:
  """What the task makes of a record: each example's texts by name, and labels and tags as the task calls them."""
  if not _has_labels(data):
    return [dict(example) for example in task.examples(record)]
  assert task.encoder is not None, task.name
  names = task.encoder.labels
  return [
    {key: _as_text(_named(value, names) if key in _LABELS else value) for key, value in example.items()}
    for example in task.encoder_examples(record)
  ]


class _Recorder:
  """An objective that keeps what it was given last.

  Args:
    objective: does the work.
  """

  def __init__(self, objective: Any):
    self._objective = objective
    self.raw: np.ndarray | None = None

  def __call__(self, tokens: np.ndarray, rng: np.random.Generator, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    self.raw = tokens
    return self._objective(tokens, rng, tokenizer)

  def __getattr__(self, name: str) -> Any:
    if name == 'makes_many':  # every example by itself, so that it is seen what it is made of
      return False
    value = getattr(self._objective, name)
    return functools.partial(self._record_pair, value) if name == 'pair' else value

  def _record_pair(
    self, pair: Any, sentences: Sequence[np.ndarray], *rest: Any
  ) -> tuple[dict[str, np.ndarray], int, bool]:
    example, used, truncated = pair(sentences, *rest)
    self.raw = np.concatenate(list(sentences[:used]))
    return example, used, truncated


def _example(
  data: OpenedDataset,
  part: int,
  made: streams.TaskExample,
  before: streams.Cursor,
  after: streams.Cursor,
  raw: np.ndarray | None,
) -> Example:
  task = data.parts[part].task
  last = after.document + (after.offset > 0)
  by_record = task.supervised or _has_labels(data)  # then an example is of one document: those before it gave nothing
  documents = _documents(data, part, range(last - 1 if by_record else before.document, last), empty=by_record)
  goes_on = bool(documents) and documents[0].record == _record(data, part, before.document)
  return Example(
    task=task.name,
    documents=documents[:_MAX_DOCUMENTS],
    num_documents=len(documents),
    offset=before.offset if goes_on and not by_record else 0,
    raw=None if raw is None else readable.text(data.tokenizer, raw),
    raw_tokens=0 if raw is None else len(raw),
    texts={name: readable.text(data.tokenizer, ids) for name, ids in made.features.items() if name in TEXTS},
    features={name: np.asarray(ids).tolist() for name, ids in made.features.items()},
    truncated=made.truncated,
    dropped=made.dropped,
  )


def _has_labels(data: OpenedDataset) -> bool:
  return isinstance(data.config.features, EncoderTaskFeatures)


def _named(value: Any, names: Sequence[str]) -> Any:
  """A label, or tags, by name; a number of which no name is known as it is."""
  if isinstance(value, list | tuple):
    return [_named(each, names) for each in value]
  return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _as_text(value: Any) -> str:
  if isinstance(value, str):
    return value
  return ' | '.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _record(data: OpenedDataset, part: int, number: int) -> int | None:
  """The index in the split of a document of the first virtual shard."""
  return data.parts[part].order.dealt(0, data.num_virtual_shards)(number)


def _documents(data: OpenedDataset, part: int, numbers: range, *, empty: bool) -> list[Document]:
  """These documents of the first virtual shard, on demand those too that hold no text."""
  task, records = data.parts[part].task, data.parts[part].records
  found = []
  for number in numbers:
    index = _record(data, part, number)
    assert index is not None, number
    examples = texts_of(data, task, records[index])
    if empty or any(text.strip() for example in examples for text in example.values()):
      texts = [{name: text[:_MAX_CHARACTERS] for name, text in example.items()} for example in examples]
      found.append(Document(index, texts, sum(len(text) for example in examples for text in example.values())))
  return found
