"""Tasks: what text there is to learn from, by name. They know neither model nor tokenizer (seqio's idea).

A `Task` is a source and a function that makes text of its records. Tasks and mixtures of them (see `mixtures`) are
plain values, kept in one registry, so that a gin file can name them:

    task.register(task.Task('c4_en', source, preprocess=lambda record: {'text': record['text']}))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from t5x_lite.core import errors

if TYPE_CHECKING:
  from t5x_lite.data import sources
  from t5x_lite.data.mixtures import Mixture

Record = Mapping[str, Any]
Example = Mapping[str, str]
Preprocess = Callable[[Record], 'Example | Iterable[Example] | None']

UNSUPERVISED_FEATURES = ('text',)
SUPERVISED_FEATURES = ('inputs', 'targets')
_UNSUPERVISED_KEYS, _SUPERVISED_KEYS = frozenset(UNSUPERVISED_FEATURES), frozenset(SUPERVISED_FEATURES)
HEADS = ('classification', 'regression', 'multiple_choice', 'span', 'tagging', 'embedding')
TRUNCATE, SPLIT, DROP = LONG_EXAMPLES = ('truncate', 'split', 'drop')
JOINED, SPLIT_DOCUMENTS, TRUNCATED = DOCUMENTS = ('joined', 'split', 'truncated')
TEXT_IDS, SENTENCE_IDS, PAIR_IDS = ID_KINDS = ('text', 'sentences', 'pairs')


@dataclasses.dataclass(frozen=True)
class EncoderTask:
  """The same records for models that have a head: what BERT learns where T5 writes its answer.

  Attributes:
    head: what answers, one of `HEADS`; it says which keys an example of `preprocess` has:
        classification   `text`, `pair` if there are two texts, `label`: index into `labels`, -1 where it is unknown
        regression       `text`, `pair` if there are two texts, `label`: a float
        multiple_choice  `text`, `choices`: list of texts, `label`: index of the right one, -1 where it is unknown
        span             `text`: the question, `pair`: the context, `answers`: list of texts, `starts`: where in the
                         context each begins, in characters; both empty where there is no answer
        tagging          `words`: list of words, `tags`: index into `labels` of each
        embedding        `text`, `pair`: a text that is like it, `negative` if there is one that is unlike it, `label`:
                         0 if the two are not alike after all, -1 if that is unknown; 1 where there is no such key.
                         `group`, any text, where texts and pairs of the same group are not to be told from each other
    preprocess: a record -> one example or several.
    labels: names of classes or tags, in the order of their indices.
    long_examples: as of the task; None: the task's.
    stride: as of the task; None: the task's.
    metrics: names of the metrics that predictions of the head are scored with; None: the task's.
    answer: from a record and what the head predicts (the index of a class or choice) to what the metrics compare; None:
      the prediction as it is.
    may_lack_answer: whether a question may have none (head 'span'): an empty text is a prediction then.
  """

  head: str
  preprocess: Callable[[Record], Record | Iterable[Record] | None]
  labels: tuple[str, ...] = ()
  long_examples: str | None = None
  stride: int | None = None
  metrics: tuple[str, ...] | None = None
  answer: Callable[[Record, Any], Any] | None = None
  may_lack_answer: bool = False

  def __post_init__(self):
    if self.head not in HEADS:
      raise errors.unknown('head', self.head, HEADS)
    if self.long_examples not in (None, *LONG_EXAMPLES):
      raise errors.unknown('long_examples of a head', str(self.long_examples), LONG_EXAMPLES)


@dataclasses.dataclass(frozen=True)
class TokenIds:
  """What the records of a task hold that are token ids already (see `tokenised`): `{kind: ids}`.

  Attributes:
    kind: one of `ID_KINDS`: `text` is one array, `sentences` a list of arrays, `pairs` a list of (inputs, targets).
    tokenizer: fingerprint of the tokenizer that made them.
    directory: where they lie, for errors.
  """

  kind: str
  tokenizer: str
  directory: str


@dataclasses.dataclass(frozen=True)
class Task:
  """A source and how its records become text.

  Attributes:
    name: what gin files call it.
    source: where the records come from. It is not touched before the task is used, so registering costs nothing.
    preprocess: a record -> one example or several; None, or none of them: the record is left out, and counted. An
      example has exactly the keys `text` if the task is unsupervised, `inputs` and `targets` if it is supervised; all
      values are `str`.
    supervised: False: the run's objective makes inputs and targets of the text. True: they are taken as they are.
    splits: the task's splits as `{name: name in the source}`; None: the source's own.
    metrics: names of the metrics that its predictions are scored with, see `metrics/registry.py`.
    postprocess: from a predicted text to what the metrics compare; None: the text itself.
    reference: from a record to what the metrics compare it with; None: the targets.
    encoder: the same records for models that have a head.
    long_examples: what becomes of an example that is longer than the features have room for: 'truncate' cuts its end
      off, 'split' makes several examples of it, 'drop' leaves it out. All are counted. Of a supervised example only the
      inputs are split, and every part has the targets.
    stride: with 'split' (of examples or documents), how many tokens of a part are repeated in the next.
    documents: what becomes of the documents of an unsupervised task: 'joined' puts them end to end and cuts that into
      chunks as long as the objective takes, 'split' makes chunks of each by itself, 'truncated' takes its first chunk.
    in_mean: whether its score counts in the mean of a mixture: not that of a set that a benchmark only trains on.
    ids: set where the records hold token ids: the pipeline reads those, and `preprocess` only serves who looks at them.
  """

  name: str
  source: sources.Source
  preprocess: Preprocess
  supervised: bool = False
  splits: Mapping[str, str] | None = None
  metrics: tuple[str, ...] = ()
  postprocess: Callable[[str], Any] | None = None
  reference: Callable[[Record], Any] | None = None
  encoder: EncoderTask | None = None
  long_examples: str = TRUNCATE
  stride: int = 0
  documents: str = JOINED
  in_mean: bool = True
  ids: TokenIds | None = None

  def __post_init__(self):
    if self.long_examples not in LONG_EXAMPLES:
      raise errors.unknown(f'long_examples of task {self.name!r}', self.long_examples, LONG_EXAMPLES)
    if self.documents not in DOCUMENTS:
      raise errors.unknown(f'documents of task {self.name!r}', self.documents, DOCUMENTS)
    if self.stride < 0:
      raise errors.UsageError(f'task {self.name!r}: got stride {self.stride}, expected at least 0')

  @property
  def features(self) -> tuple[str, ...]:
    """The keys that every example must have."""
    return SUPERVISED_FEATURES if self.supervised else UNSUPERVISED_FEATURES

  def source_split(self, split: str) -> str:
    """What the source calls `split`. Raises `UsageError` where the task has no such split."""
    names = self.splits if self.splits is not None else {name: name for name in self.source.splits}
    if split not in names:
      raise errors.unknown(f'split of task {self.name!r}', split, names)
    return names[split]

  def has_split(self, split: str) -> bool:
    """Whether there is such a split."""
    return split in (self.splits if self.splits is not None else self.source.splits)

  def num_examples(self, split: str) -> int:
    """Number of records in `split`, before preprocessing."""
    return self.source.num_examples(self.source_split(split))

  def spread_records(self, split: str, most: int) -> Sequence[Record]:
    """The records of `split` at evenly spaced places; all if there are no more than `most`."""
    records = self.source.random_access(self.source_split(split))
    count = min(len(records), most)
    return records.__getitems__([number * len(records) // count for number in range(count)])

  def examples(self, record: Record) -> Sequence[Example]:
    """The examples of one record. Raises `UsageError` where `preprocess` returns other keys than it should."""
    try:
      made = self.preprocess(record)
      several = (made,) if isinstance(made, dict | Mapping) else tuple(made or ())
    except KeyError as error:
      raise self._missing(error, record) from error
    expected = _SUPERVISED_KEYS if self.supervised else _UNSUPERVISED_KEYS
    for example in several:
      if example.keys() != expected:
        raise errors.UsageError(
          f'task {self.name!r} (supervised={self.supervised}): preprocess returned the keys {sorted(example)}, '
          f'expected {sorted(self.features)}'
        )
    return several

  def encoder_examples(self, record: Record) -> Iterator[Record]:
    """The examples of one record for models with heads."""
    assert self.encoder is not None, self.name
    try:
      made = self.encoder.preprocess(record)
      yield from (made,) if isinstance(made, Mapping) else made or ()
    except KeyError as error:
      raise self._missing(error, record) from error

  def _missing(self, error: KeyError, record: Record) -> errors.UsageError:
    field = str(error.args[0]) if error.args else '?'
    match = errors.nearest(field, map(str, record))
    hint = f'; did you mean {match!r}?' if match and match != field else ''
    return errors.UsageError(
      f'task {self.name!r}: a record has no field {field!r}, its fields are {", ".join(map(str, record))}{hint}'
    )


_registry: dict[str, Task | Mixture] = {}
_catalogue: list[Callable[[], None]] = []  # what registers more, if a name is asked for that nobody has registered


def set_catalogue(load: Callable[[], None]) -> None:
  """`load` registers more tasks; it is called once, when a name is asked for that is not known."""
  _catalogue[:] = [load]


def register(entry: Task | Mixture) -> Task | Mixture:
  """Makes `entry` known by its name, and returns it. Raises `UsageError` if the name is taken."""
  if entry.name in _registry:
    raise errors.UsageError(f'a {type(_registry[entry.name]).__name__.lower()} {entry.name!r} is already registered')
  _registry[entry.name] = entry
  return entry


def get(entry: str | Task | Mixture) -> Task | Mixture:
  """The task or mixture of that name, or `entry` itself if it is one already.

  A name that is not known yet is looked for in the whole catalogue: gin files need not import what they only name.

  Raises:
    UsageError: there is none of that name; the nearest match is told.
  """
  if not isinstance(entry, str):
    return entry
  while entry not in _registry and _catalogue:
    _catalogue.pop()()
  if entry not in _registry:
    raise errors.unknown('mixture or task', entry, _registry)
  return _registry[entry]


def names() -> tuple[str, ...]:
  """The names of all tasks and mixtures, sorted."""
  return tuple(sorted(_registry))


def name_of(entry: str | Task | Mixture) -> str:
  """The name of a task or mixture that may be given by its name."""
  return entry if isinstance(entry, str) else entry.name


def tasks(entry: str | Task | Mixture) -> tuple[Task, ...]:
  """The tasks of a mixture, nested ones too, each once; of a task, itself. Opens no data.

  Raises:
    UsageError: a member is not known, or mixtures hold each other.
  """
  return _members(entry)[0]


def only_evaluated(entry: str | Task | Mixture) -> tuple[Task, ...]:
  """The tasks that a run on a mixture is evaluated on besides those of the mixture, nested ones' too, each once.

  Raises:
    UsageError: as `tasks`.
  """
  trained, named = _members(entry)
  found = {task.name: task for name in named for task in tasks(name)}
  return tuple(task for name, task in found.items() if name not in {own.name for own in trained})


def _members(entry: str | Task | Mixture) -> tuple[tuple[Task, ...], tuple[str, ...]]:
  """All tasks of a mixture, and the names that it and the mixtures in it are evaluated on besides."""
  found: dict[str, Task] = {}
  evaluated: dict[str, None] = {}

  def visit(entry: Task | Mixture, path: tuple[str, ...]) -> None:
    if isinstance(entry, Task):
      found.setdefault(entry.name, entry)
      return
    if entry.name in path:
      raise errors.UsageError(f'mixture {entry.name!r} holds itself: {" > ".join((*path, entry.name))}')
    evaluated.update(dict.fromkeys(entry.evaluated))
    for member in entry.members():
      visit(get(member), (*path, entry.name))

  visit(get(entry), ())
  return tuple(found.values()), tuple(evaluated)
