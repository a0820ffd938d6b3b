"""Training: a run from its configuration to its last checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from t5x_lite import evaluation, families, run_folder
from t5x_lite.core import errors, tree
from t5x_lite.data import dataset_checks, dataset_config, features, hashes, pipeline, row_predictions, task
from t5x_lite.data.dataset_config import DatasetConfig
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.runs import branching
from t5x_lite.scoring import items
from t5x_lite.training import coordination, integrity, processes, profiling, warmstart
from t5x_lite.training import loop as loop_lib
from t5x_lite.training.checkpoints import CheckpointConfig, Checkpointer
from t5x_lite.training.console import Console
from t5x_lite.training.job import Job, LoopConfig
from t5x_lite.training.learner import Learner
from t5x_lite.training.state import TrainState
from t5x_lite.training.steps import Trainer
from t5x_lite.training.warmstart import TolerantCheckpointer, TolerantIterator
from t5x_lite.training.watch import Watch
from t5x_lite.training.window import count_positions
from t5x_lite.training.writers import MetricWriter

_FIRST_BATCHES = 4  # whose hash is recorded


class ConfigRecord(Protocol):
  """The configuration that a run was made of, as whoever made it keeps it."""

  text: str
  values: dict[str, str]
  allow_change: bool

  def write(self, folder: str) -> Any:
    """Writes `config.gin` in the folder."""

  def changes(self, saved: Mapping[str, str]) -> list[str]:
    """What differs from `saved` values, in words."""

  def check(self, saved: Mapping[str, str]) -> None:
    """Raises UsageError where `saved` values differ, unless that is allowed."""


def train(
  *,
  learner: Learner,
  dataset: DatasetConfig,
  loop: LoopConfig,
  checkpoint: CheckpointConfig,
  model_dir: str,
  config: ConfigRecord,
  eval_dataset: DatasetConfig | None = None,
  eval_steps: int | None = 20,
  num_samples: int = 3,
  score: bool = False,
  mesh: MeshShape = MeshShape(),  # noqa: B008, a frozen value
  random_seed: int = 0,
  initial_checkpoint_path: str | None = None,
  restart_steps: bool = False,
  resize_vocabulary: bool = False,
  branch_from: str | None = None,
  branch_data: str | None = None,
  branch_schedule: str = branching.CONTINUE,
  offload_optimizer: bool = False,
  dry_run: bool = False,
  profile_steps: str | None = None,
  heartbeat_timeout: int = 100,
) -> int:
  """Trains, or goes on with the run in `model_dir`.

  Args:
    learner: model, loss and optimiser.
    dataset: what to train on.
    loop: how long, and what happens how often.
    checkpoint: which checkpoints are kept.
    model_dir: the folder of the run.
    config: the configuration, kept in the folder and with every checkpoint.
    eval_dataset: held-out data, each task of it evaluated by itself; None: no evaluation.
    eval_steps: batches of a task's evaluation; None: all of them.
    num_samples: predictions shown at each evaluation, per task.
    score: whether evaluations compute the tasks' own metrics, of predictions for the whole split.
    mesh: how devices are arranged.
    random_seed: of initial parameters and dropout.
    initial_checkpoint_path: where the state comes from if `model_dir` has no checkpoint: a run's folder, or parameters
      in anything that `load_pretrained` reads, such as a name on the Hugging Face hub. Heads may be missing there.
    restart_steps: whether steps and optimiser begin afresh there, instead of going on from the checkpoint's as T5's do.
    resize_vocabulary: whether the embedding tables there may be of another length; rows are added or dropped at the
      end.
    branch_from: `RUN`, `RUN@STEP` or `RUN@best`: the checkpoint of another run that this one goes on from, optimiser
      included where it is the same, if `model_dir` has none; the lineage is kept.
    branch_data: `continue`: with the documents behind those that the parent has read; `restart`: from the beginning;
      None: continue where that can be.
    branch_schedule: `continue`: step and learning rate schedule go on at the checkpoint's step; `restart`: at 0.
    offload_optimizer: whether the optimiser state waits in the host's memory, to leave room on the device.
    dry_run: print what the run amounts to and stop before data is read.
    profile_steps: `FIRST:LAST`, the steps to trace, both included; None: none.
    heartbeat_timeout: seconds of silence after which one of several processes counts as lost.

  Returns:
    The exit code: 0, or 128 + n after signal n.

  Raises:
    UsageError: anything that does not fit together.
    TrainingDiverged: the loss did.
  """
  _check_data(learner.module, dataset, eval_dataset)
  evaluation.check_values(eval_steps, num_samples)
  if eval_dataset is not None:
    _check_best(loop.best_by, score, eval_dataset)
  model_dir = run_folder.locate(model_dir)
  origin = None
  if branch_from is not None:
    origin = branching.find(branch_from, model_dir)
    branching.check_values(branch_schedule, origin, loop.total_steps, initial_checkpoint_path)
    if origin is not None:
      _check_same_model(origin.folder, learner.module)
  profile = profiling.parse(profile_steps, loop.total_steps, model_dir)
  spec = features.batch_spec(dataset.features, dataset.task_feature_lengths, dataset.batch_size)
  families.check_length(learner.module, spec)
  if learner.max_predictions is None:
    learner = dataclasses.replace(learner, max_predictions=row_predictions.most_predictions(dataset))
  trainer = Trainer(learner, make_mesh(mesh), spec, offload_optimizer=offload_optimizer)
  flops = learner.module.flops_per_step(spec)
  console = Console()
  console.note(_summary(trainer, flops))
  if origin is not None:
    console.note(f'branch of {origin.folder}')
  if dry_run:
    return 0
  console.note(f'MODEL_DIR {model_dir}')
  with contextlib.ExitStack() as stack:
    watch = stack.enter_context(_watch(heartbeat_timeout, loop.pause_seconds))
    stack.enter_context(run_folder.hold(model_dir))
    checkpointer = stack.enter_context(_checkpoints(model_dir, checkpoint, config, trainer, random_seed, console))
    iterator = stack.enter_context(contextlib.closing(pipeline.build(dataset, rows=trainer.process_rows())))
    writer = stack.enter_context(contextlib.closing(MetricWriter(model_dir)))
    _check_vocabulary(dataset.tokenizer, learner.module)
    lineage, beginning = branching.lineage_of(model_dir), None
    if origin is not None:
      changes = config.changes(origin.config)
      beginning = branching.begin(origin, trainer, iterator, config.values, changes, branch_data, branch_schedule)
      lineage = beginning.lineage
      console.note('\n'.join(beginning.told))
    read = {**iterator.data.fingerprint, run_folder.DOCUMENT_ORDER: hashes.order_hash(iterator.data)}
    job = Job(
      init=functools.partial(
        _initial_state, trainer, random_seed, initial_checkpoint_path, resize_vocabulary, restart_steps, console
      )
      if beginning is None
      else functools.partial(beginning.state, trainer, random_seed),
      merge_data_states=pipeline.merge_states,
      record=config.values,
      flops_per_step=flops,
      on_start=functools.partial(_describe, config, model_dir, trainer, read, random_seed, lineage),
      profile=profile,
      watch=watch,
      lineage=lineage,
    )
    if eval_dataset is not None:
      held_out = evaluation.HeldOut(
        trainer, eval_dataset, eval_steps=eval_steps, num_samples=num_samples, score=score, progress=watch.progress
      )
      job = _evaluated(job, held_out)
    console.note(run_folder.fingerprints(read))
    first = hashes.FirstBatches(iterator, _FIRST_BATCHES, lambda: _describe_first_batches(model_dir, first))
    if beginning is not None and beginning.data_state is not None:
      first.set_state(beginning.data_state)
    data = TolerantIterator(first, console.note) if config.allow_change else first
    outcome = loop_lib.run(loop, trainer, data, checkpointer, writer, console, job)
    first.finish()
    return outcome.exit_code


@contextlib.contextmanager
def _watch(heartbeat_timeout: int, pause_seconds: int) -> Iterator[Watch]:
  """Watches over the processes: the others are told where this one fails, and it is told which of them is lost.

  Before the first step is done nothing may take longer than `pause_seconds` either.
  """
  watch = Watch(heartbeat_timeout, coordination.store())
  watch.start()
  watch.arm(pause_seconds, pause_seconds)
  try:
    yield watch
  except BaseException as error:
    if coordination.comes_of_another(error):
      watch.wait_for_verdict()
    watch.fail(f'{type(error).__name__}: {error}')
    raise
  finally:
    watch.close()


@contextlib.contextmanager
def _checkpoints(
  model_dir: str, keep: CheckpointConfig, config: ConfigRecord, trainer: Trainer, seed: int, console: Console
) -> Iterator[Checkpointer]:
  """The checkpoints of the run, which must be of this configuration unless it may differ."""
  checkpointer: Checkpointer
  if config.allow_change:
    checkpointer = TolerantCheckpointer(model_dir, keep, trainer, seed, console.note)
  else:
    checkpointer = Checkpointer(model_dir, keep=keep.keep, keep_best=keep.keep_best)
  with contextlib.closing(checkpointer):
    saved = checkpointer.read_config()
    if saved is not None:
      config.check(saved)
    yield checkpointer


def _evaluated(job: Job, held_out: evaluation.HeldOut) -> Job:
  """The job with evaluation and predictions on held-out data."""
  return dataclasses.replace(job, evaluate=held_out.evaluate, predict=held_out.predict, eval_split=held_out.split)


def _initial_state(
  trainer: Trainer, seed: int, path: str | None, resize: bool, restart: bool, console: Console
) -> TrainState:
  """Where a run without checkpoints begins."""
  if path is None:
    return trainer.init(seed)

  def restore(path: str, abstract: Any, fresh: Mapping[str, Any]) -> tuple[Any, list[str]]:
    from t5x_lite import pretrained  # Only a run that starts from what others wrote has to wait for it.

    return pretrained.restore_params(path, trainer.learner.module, abstract, fresh, resize=resize)

  _check_same_model(pathlib.Path(path).expanduser(), trainer.learner.module)
  state, told = warmstart.warm_start(trainer, path, seed, restore, restart=restart)
  console.note(told)
  return state


def _check_same_model(folder: pathlib.Path, module: Any) -> None:
  """Raises UsageError where the configuration beside checkpoints of ours tells that they are of another model.

  Arrays of the same shapes may be of a model that computes otherwise.
  """
  if not integrity.holds_checkpoints(folder):
    return
  from t5x_lite import model_dir, stored_models

  try:
    model_dir.config_of(folder)
  except errors.UsageError:  # A checkpoint that was moved out of its folder: its arrays are all there is.
    return
  stored_models.open_model(folder, model=module)


def _describe(
  config: ConfigRecord,
  model_dir: str,
  trainer: Trainer,
  data: Mapping[str, Any],
  seed: int,
  lineage: branching.Lineage,
) -> None:
  """Says in the folder what the run is made of; not before it is sure that the checkpoints there are of that."""
  if processes.is_primary():
    config.write(model_dir)
    run_folder.write_info(model_dir, trainer, data, seed, lineage)


def _describe_first_batches(model_dir: str, first: hashes.FirstBatches) -> None:
  """Adds to what the folder says the hash of the first global batches. All processes call it."""
  batches, digest = hashes.stream_hash(processes.gather(first.own()))
  if processes.is_primary():
    run_folder.add_first_batches(model_dir, batches, digest)


def _check_data(module: Any, dataset: DatasetConfig, eval_dataset: DatasetConfig | None) -> None:
  """Raises UsageError where data or the model is impossible, or one is not for the other."""
  for wanted in (dataset, eval_dataset):
    if wanted is not None:
      dataset_checks.check_values(wanted)
      families.check(module, wanted.features)
      families.check_labels(module, wanted.features, task.tasks(wanted.mixture_or_task_name))
  _check_packing(module, dataset, eval_dataset)


def _check_best(best_by: str, score: bool, dataset: DatasetConfig) -> None:
  """Raises UsageError where the best checkpoint is chosen by what is not computed."""
  if not best_by.startswith('score'):
    return
  told = f'the best checkpoint is chosen by {best_by!r}, which is not computed'
  if not score:
    raise errors.UsageError(f"{told}: expected EVAL_METRICS = True, or BEST_BY = 'loss'")
  members = dataset_config.members_of(dataset)
  if not any(items.metrics_of(member, dataset) for member in members if items.can_predict(member, dataset)):
    names = ', '.join(member.name for member in members)
    raise errors.UsageError(f"{told}, for {names} has no metrics of its own: expected BEST_BY = 'loss'")


def _check_packing(module: Any, *datasets: DatasetConfig | None) -> None:
  """Raises UsageError where a soft prompt would stand before the first of several examples of a row."""
  length = getattr(module.config, 'prompt_length', 0)
  if length and any(each is not None and each.pack for each in datasets):
    raise errors.UsageError(
      f'prompt_length is {length}, and rows hold several examples, of which the first alone would see the prompt: '
      'expected DatasetConfig.pack = False'
    )


def _check_vocabulary(tokenizer: Tokenizer | None, module: Any) -> None:
  """Raises UsageError if the tokenizer has ids that the model has no row for."""
  if tokenizer is not None and tokenizer.vocab_size > module.config.vocab_size:
    raise errors.UsageError(
      f'the vocabulary has {tokenizer.vocab_size} ids, but the model only {module.config.vocab_size} rows: '
      f'expected VOCAB_SIZE of at least {tokenizer.vocab_size}'
    )


def _summary(trainer: Trainer, flops: float) -> str:
  """Parameters, and tokens and FLOPs of a step."""
  shapes = ', '.join(
    f'{name.removesuffix("_input_tokens")} {leaf.shape[0]} x {leaf.shape[1]}'
    for name, leaf in trainer.batch_spec.items()
    if name.endswith('_input_tokens')
  )
  mesh = ', '.join(f'{name} {size}' for name, size in trainer.mesh.shape.items() if size > 1)
  kind = trainer.mesh.devices.flat[0].device_kind
  return '\n'.join(
    [
      f'parameters      {tree.count_parameters(trainer.abstract_state.params):,}',
      f'tokens a step   {count_positions(trainer.batch_spec):,} ({shapes})',
      f'FLOPs a step    {flops:.4g} (forward and backward)',
      f'devices         {trainer.mesh.size} x {kind}' + (f' ({mesh})' if mesh else ''),
    ]
  )
