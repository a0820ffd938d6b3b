"""Evaluation of checkpoints on splits of tasks: a table, metrics and predictions as JSON lines, files for servers."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optax

from t5x_lite import families
from t5x_lite.core import errors, tree
from t5x_lite.data import dataset_checks, dataset_config, features
from t5x_lite.data import task as tasks
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.task import Task
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.runs.located import Found, locate
from t5x_lite.runs.written import Written
from t5x_lite.scoring import choices as choices_lib
from t5x_lite.scoring import continuations as continuations_lib
from t5x_lite.scoring import items, language
from t5x_lite.scoring.choices import Choices, Question
from t5x_lite.scoring.continuations import Continuations
from t5x_lite.scoring.scorer import Scorer
from t5x_lite.training import checkpoints, orbax_store, processes
from t5x_lite.training.learner import Learner
from t5x_lite.training.steps import Trainer
from t5x_lite.training.writers import to_json

METRICS = 'metrics.jsonl'
_MEAN = 'mean'


def evaluate(
  *,
  module: Any,
  dataset: DatasetConfig,
  checkpoint: str,
  output: str | None = None,
  rank_classification: bool = False,
  limit: int | None = None,
  eval_steps: int | None = None,
  report: bool = False,
  continuations: Continuations | None = None,
  choices: Choices | None = None,
  mesh: MeshShape = MeshShape(),  # noqa: B008, a frozen value
) -> int:
  """Scores checkpoints on every task of a mixture.

  Args:
    module: the model.
    dataset: the task or mixture, its split, features and lengths.
    checkpoint: `RUN`, `RUN@STEP`, `RUN@best`, `RUN@all`, or anything else that `load_pretrained` reads.
    output: folder for metrics, predictions and files for servers; None: `eval` in the run's folder.
    rank_classification: whether a model that writes chooses among the labels of a task by their likelihood.
    limit: of the records of each task; None: all.
    eval_steps: batches of a language model's evaluation; None: all, which bits per byte need.
    report: whether a page is written beside the predictions of each task: confusion matrix, calibration, worst errors.
    continuations: of tasks that are text, what is measured instead of the loss: how well texts are continued that are
      cut alike for models of any family, see `scoring.continuations`; None: the loss of the objective.
    choices: further tasks, whose answers a model of any family chooses by their likelihood, without having been trained
      to, see `scoring.choices`; None: none.
    mesh: how devices are arranged.

  Returns:
    The exit code.

  Raises:
    UsageError: no such checkpoint, or one that does not answer these tasks.
  """
  if limit is not None and limit < 1:
    raise errors.UsageError(f'limit={limit}: expected at least 1, or None for all')
  dataset = dataclasses.replace(dataset, repeat=False, shuffle=False)
  dataset_checks.check_values(dataset)
  own = dataset_config.of_each_task(dataset)
  members = [tasks.tasks(each.mixture_or_task_name)[0] for each in own.values()]
  families.check(module, dataset.features)
  further = [] if choices is None else choices_lib.members(choices)
  families.check_labels(module, dataset.features, members)
  chosen = list(locate(checkpoint))
  spec = features.batch_spec(dataset.features, dataset.task_feature_lengths, dataset.batch_size)
  families.check_length(module, spec)
  trainer = Trainer(Learner(module, optax.identity(), 0.0), make_mesh(mesh), spec)
  scorers = {
    member.name: Scorer(trainer, own[member.name], rank=rank_classification, limit=limit)
    for member in members
    if items.can_predict(member, dataset)
  }
  folder = pathlib.Path(output).expanduser() if output else chosen[0].run / 'eval'
  asked, masked = {}, None
  if choices is not None:  # what cannot be asked is told before anything is measured
    asked = {member.name: choices_lib.questions(member, dataset.split, choices)[:limit] for member in further}
    masked = choices.masked
  suite = _Suite(trainer, dataset, own, members, scorers, eval_steps, continuations, asked, masked)
  table: list[dict[str, Any]] = []
  with _told(table, folder):
    for found in chosen:
      params = _params(trainer, found, isinstance(dataset.features, EncoderTaskFeatures))
      for row in suite.measure(params, Written(folder, found.name, dataset.split, report, whole=limit is None)):
        table.append(row)
        if processes.is_primary():
          _append(folder / METRICS, row)
  return 0


@contextlib.contextmanager
def _told(table: Sequence[Mapping[str, Any]], folder: pathlib.Path) -> Iterator[None]:
  """Prints in the end what has been measured, also where something went wrong on the way."""
  try:
    yield
  finally:
    if table and processes.is_primary():
      print(render(table))
      print(f'\nwritten to {folder}')


@dataclasses.dataclass(frozen=True)
class _Suite:
  """What is asked of every checkpoint; fields are named as arguments of `evaluate` are.

  `own` has the data of each of `members`, the tasks of the mixture; `scorers` are of those with answers; `asked` are
  the questions of further tasks, by name, and `masked` how encoders are asked (see `Choices`).
  """

  trainer: Trainer
  dataset: DatasetConfig
  own: Mapping[str, DatasetConfig]
  members: Sequence[Task]
  scorers: Mapping[str, Scorer]
  eval_steps: int | None
  continuations: Continuations | None
  asked: Mapping[str, Sequence[Question]]
  masked: int | None

  def measure(self, params: Any, written: Written) -> Iterator[dict[str, Any]]:
    """A row for each task, and one for their mean, each as soon as it is known; predictions are written before."""
    values: dict[str, dict[str, Any]] = {}
    for member in self.members:
      if member.name in self.scorers:
        scorer = self.scorers[member.name]
        predictions = scorer.predict(params)
        values[member.name] = scorer.score(predictions) | {'examples': len(predictions)}
        if processes.is_primary():
          written.add(scorer, predictions, values[member.name])
      else:
        values[member.name] = self._of_text(params, self.own[member.name])
      if member.name not in self.asked:
        yield written.row(member.name, values[member.name])
    for name, asked in self.asked.items():
      scores = choices_lib.measure(self.trainer, params, self.dataset, name, asked, self.masked)
      values[name] = values.get(name, {}) | scores
      yield written.row(name, values[name])
    # Without what is only evaluated, as AX and mismatched MNLI, or only trained on, as DPR.
    counted = {member.name for member in tasks.tasks(self.dataset.mixture_or_task_name) if member.in_mean}
    averaged = [own for name, own in values.items() if name in counted]
    if len(averaged) > 1 and (mean := _mean(averaged)) is not None:
      yield written.row(_MEAN, {'score': mean})

  def _of_text(self, params: Any, dataset: DatasetConfig) -> dict[str, float]:
    if self.continuations is not None:
      return continuations_lib.measure(self.trainer, params, dataset, self.continuations)
    return language.measure(self.trainer, params, dataset, self.eval_steps)


def render(rows: Sequence[Mapping[str, Any]]) -> str:
  """Rows as a table: a column for each name, numbers with two decimals, those below 10 with four digits."""
  names = list(dict.fromkeys(name for row in rows for name in row))

  def cell(value: Any) -> str:
    if isinstance(value, float):
      return f'{value:.2f}' if abs(value) >= 10 else f'{value:.4f}'
    return '' if value is None else str(value)

  cells = [[name.removeprefix('score/') for name in names], *([cell(row.get(name)) for name in names] for row in rows)]
  widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
  lines = ['  '.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
  return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])


def _params(trainer: Trainer, found: Found, labelled: bool) -> Any:
  """The parameters of a checkpoint. Raises UsageError where it has no head, for a task that needs one."""
  abstract = trainer.abstract_state.params
  if found.ours and _is_of(found.path, abstract):
    return checkpoints.restore_params(found.path, abstract)
  from t5x_lite import pretrained

  fresh = tree.named_leaves(trainer.init(0).params)
  params, told = pretrained.restore_params(found.path, trainer.learner.module, abstract, fresh, resize=False)
  missing = [line for line in told if line.startswith('newly initialised') and 'heads/' in line]
  if labelled and missing:
    heads = ', '.join(trainer.learner.module.config.heads)
    raise errors.UsageError(f'{found.path} has no head for {heads}: fine-tune it first ({missing[0]})')
  return params


def _is_of(folder: str, abstract: Any) -> bool:
  """Whether a checkpoint of ours has the parameters of a model, no more and no less: no updates, all heads."""
  stored = {name for name in orbax_store.read_shapes(pathlib.Path(folder)) if name.startswith('params/')}
  return stored == {f'params/{name}' for name in tree.named_leaves(abstract)}


def _mean(rows: Sequence[Mapping[str, Any]]) -> float | None:
  """The mean of the tasks' scores, as GLUE and SuperGLUE have it; None where a task has none."""
  scores = [row.get('score') for row in rows]
  known = [score for score in scores if score is not None]
  return sum(known) / len(known) if len(known) == len(scores) else None


def _append(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a', encoding='utf-8') as file:
    print(to_json(row), file=file)
