"""Tasks by models that were never trained on them: of a few answers, which is likeliest behind the input?

What is compared is text that no tokenizer has a say in: the task's input, of so many characters at most, and behind it
each of the answers. So models of any family and objective choose among the same answers to the same questions: those
that write by the likelihood of an answer, encoders by its pseudo-likelihood (see `conditional`).

The answers are the labels of a task of classes, the choices of a task of multiple choice, and for tasks whose answers
are free text the right one and some of those of other examples, drawn once and for all.

Sources: Brown et al. 2020 (GPT-3), section 2.4, which chooses by the likelihood, and for some tasks by the likelihood
per unit of length; that unit is a byte here, as in `acc_bytes` of lm-evaluation-harness, so that tokenizers compare.
Salazar et al. 2020 (pseudo-likelihoods).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.scoring import conditional, texts
from t5x_lite.tasks import labelled
from t5x_lite.training.steps import Trainer

ACCURACY = 'choice_accuracy'
_MULTIPLE_CHOICE = 'multiple_choice'
_GAP = ' ... '


@dataclasses.dataclass(frozen=True)
class Choices:
  """Which tasks are asked, and how much of them.

  Attributes:
    tasks: supervised tasks by name, whatever the model was trained on.
    examples: of the split, at evenly spaced places; all if there are no more.
    others: where answers are free text, how many wrong ones stand beside the right one.
    length: characters of an input, at most; of longer ones the middle is not read.
    masked: by encoders, how many tokens of each answer are masked, one at a time; None: all of them, each a row to be
      read.
    seed: of the wrong answers.
  """

  tasks: tuple[str, ...]
  examples: int = 200
  others: int = 3
  length: int = 512
  masked: int | None = None
  seed: int = 0

  def __post_init__(self) -> None:
    for name in ('examples', 'others', 'length', 'masked'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise errors.UsageError(f'Choices.{name}={value}: expected at least 1')
    if isinstance(self.tasks, str) or not self.tasks:
      raise errors.UsageError(f"Choices.tasks={self.tasks!r}: expected names of tasks, such as ('embedded_module',)")


@dataclasses.dataclass(frozen=True)
class Question:
  """An input, the texts that may answer it, and which of them do."""

  text: str
  answers: tuple[str, ...]
  right: frozenset[int]


def members(chosen: Choices) -> list[tasks.Task]:
  """The tasks. Opens nothing. Raises UsageError where one is not known, is a mixture, or has no answers."""
  found = []
  for name in chosen.tasks:
    member = tasks.get(name)
    if not isinstance(member, tasks.Task) or not member.supervised:
      raise errors.UsageError(f'Choices.tasks: {name!r} has no answers to choose from, expected a supervised task')
    found.append(member)
  return found


def measure(
  trainer: Trainer, params: Any, config: DatasetConfig, name: str, asked: Sequence[Question], masked: int | None = None
) -> dict[str, float]:
  """How often the right answer of a task is the likeliest.

  Args:
    trainer: whose model and mesh are used.
    params: of its model.
    config: of any task: tokenizer, features, objective and batch size are taken.
    name: of the task.
    asked: what `questions` found of it.
    masked: see `Choices`.

  Returns:
    In percent: `choice_accuracy` by the likelihood of answers, `choice_accuracy_by_byte` by that over their bytes, and
    what a guess would have, `choice_chance`; and of how many, `choice_examples`. Every process gets the same.

  Raises:
    UsageError: the model predicts no text or has no positions for so long an input, or an answer has no tokens.
  """
  assert config.tokenizer is not None
  make, converter = conditional.maker(config, masked)
  rows, places = [], []
  for place, (text, answer) in enumerate((each.text, answer) for each in asked for answer in each.answers):
    own = make(*conditional.encoded(config.tokenizer, text, f' {answer}'))
    if not own:
      raise errors.UsageError(f'task {name!r}: the answer {answer!r} has no tokens in this vocabulary')
    rows += own
    places += [place] * len(own)
  what = f'Choices.length, an input of task {name!r} and its answer'
  losses = conditional.nll(trainer, params, rows, converter, config.batch_size, what)
  return accuracies(asked, np.bincount(places, weights=losses))


def accuracies(asked: Sequence[Question], losses: np.ndarray) -> dict[str, float]:
  """What `measure` returns, of the losses of all answers, one question behind the other."""
  hits, hits_by_byte, chance, start = 0, 0, 0.0, 0
  for each in asked:
    own = losses[start : start + len(each.answers)]
    sizes = np.asarray([len(answer.encode('utf-8')) for answer in each.answers])
    hits += int(np.argmin(own)) in each.right
    hits_by_byte += int(np.argmin(own / sizes)) in each.right
    chance += len(each.right) / len(each.answers)
    start += len(each.answers)
  count = len(asked)
  return {
    ACCURACY: 100.0 * hits / count,
    f'{ACCURACY}_by_byte': 100.0 * hits_by_byte / count,
    'choice_chance': 100.0 * chance / count,
    'choice_examples': count,
  }


def questions(member: tasks.Task, split: str, chosen: Choices) -> list[Question]:
  """The questions of a split, in the order of its records; they depend on no tokenizer and no model.

  Raises:
    UsageError: no right answer is known, or the answers are free text, and there are too few different ones.
  """
  found = _questions(member, split, chosen)
  if not found:
    raise errors.UsageError(f'task {member.name!r}, split {split!r}: no example whose right answer is known')
  return found


def _questions(member: tasks.Task, split: str, chosen: Choices) -> list[Question]:
  records = member.spread_records(split, chosen.examples)
  if member.encoder is not None and member.encoder.head == _MULTIPLE_CHOICE:
    return list(_of_choices(member, records, chosen.length))
  records = [record for record in records if _has_right_target(member, record)]
  pairs = [(example['inputs'], example['targets']) for record in records for example in member.examples(record)]
  known = [(text, target) for text, target in pairs if target != labelled.UNKNOWN and target.strip()]
  fixed = texts.fixed_labels(member)
  if fixed:
    return [
      Question(shortened(text, chosen.length), fixed, frozenset([fixed.index(target)]))
      for text, target in known
      if target in fixed
    ]
  return _of_free_text(member, known, chosen)


def _of_choices(member: tasks.Task, records: Sequence[tasks.Record], length: int) -> Iterator[Question]:
  for record in records:
    right: dict[tuple[str, tuple[str, ...]], set[int]] = {}  # ReCoRD has an example for each right answer
    for example in member.encoder_examples(record):
      label, answers = int(example['label']), tuple(map(str, example['choices']))
      if 0 <= label < len(answers) and all(map(str.strip, answers)):
        right.setdefault((shortened(str(example['text']), length), answers), set()).add(label)
    for (text, answers), labels in right.items():
      yield Question(text, answers, frozenset(labels))


def _has_right_target(member: tasks.Task, record: tasks.Record) -> bool:
  """Whether the target of a record is right: that of WSC and WNLI is a phrase to be judged, and may be wrong."""
  reference = None if member.reference is None else member.reference(record)
  return not (isinstance(reference, Mapping) and 'referent' in reference and reference.get('label') != 1)


def shortened(text: str, length: int) -> str:
  """A text of at most `length` characters, of a longer one its two ends: tasks ask before or behind what is read."""
  if len(text) <= length:
    return text
  kept = max(length - len(_GAP), 2)
  return (text[: kept // 2] + _GAP + text[-(kept - kept // 2) :])[:length]


def _of_free_text(member: tasks.Task, known: Sequence[tuple[str, str]], chosen: Choices) -> list[Question]:
  """The right answer, and others of the same examples, in an order that is drawn; equal ones count once."""
  different = sorted({target for _, target in known})
  if known and len(different) <= chosen.others:
    raise errors.UsageError(
      f'task {member.name!r}: {len(different)} different answers, expected more than Choices.others={chosen.others}'
    )
  draw, found = random.Random(chosen.seed), []
  for text, target in known:
    answers = draw.sample([other for other in different if other != target], chosen.others)
    place = draw.randrange(chosen.others + 1)
    answers.insert(place, target)
    found.append(Question(shortened(text, chosen.length), tuple(answers), frozenset([place])))
  return found
