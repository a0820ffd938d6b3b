"""Scores checkpoints with the metrics of their tasks: `python -m t5x_lite.evaluate --checkpoint=RUN@best`.

The folder's own config.gin says which model, task and vocabulary it has. Further --gin_file and --gin flags come on
top: --gin.MIXTURE_OR_TASK_NAME=glue_rte is another task, --gin.EVAL_SPLIT=test another split. What is no run of ours,
such as a published checkpoint, needs the gin files of a model, a run and a task.

Predictions lie in RUN/eval/predictions; with --report a page beside them shows what is confused with what, whether the
model is right as often as it is sure, and its worst errors.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command, environment
from t5x_lite.cli.record import CONFIG_FILE
from t5x_lite.core import errors
from t5x_lite.core.checkpoint_names import split_checkpoint

_GIVEN = ('checkpoint', 'output', 'rank_classification', 'limit', 'report')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    'checkpoint',
    None,
    'RUN (its newest checkpoint), RUN@STEP, RUN@best, RUN@all, or what load_pretrained reads.',
    flag_values=values,
  )
  flags.DEFINE_string('output', None, 'Folder for metrics and predictions (default: RUN/eval).', flag_values=values)
  flags.DEFINE_bool(
    'rank_classification', False, 'Choose the label that is likeliest, instead of writing one.', flag_values=values
  )
  flags.DEFINE_bool(
    'report',
    False,
    'Write a page beside the predictions of each task: confusion matrix, calibration, worst errors.',
    flag_values=values,
  )
  flags.DEFINE_integer('limit', None, 'Of the records of each task.', lower_bound=1, flag_values=values)


def _files(values: flags.FlagValues) -> tuple[str, ...]:
  if values.checkpoint is None:
    raise errors.UsageError('no checkpoint: choose one with --checkpoint, such as --checkpoint=runs/sst2@best')
  source, _ = split_checkpoint(values.checkpoint)
  folder = pathlib.Path(source).expanduser().absolute()
  for config in (folder / CONFIG_FILE, folder.parent / CONFIG_FILE):
    if config.is_file():
      return str(config), 'runs/evaluate.gin'
  if not values.gin_file:
    raise errors.UsageError(
      f'--checkpoint={values.checkpoint}: no {CONFIG_FILE} there; expected the MODEL_DIR of a run, or --gin_file for a '
      'model, a run and a task'
    )
  return ('runs/evaluate.gin',)


def _evaluate(session: command.Session) -> int | None:
  return session.call(**{name: getattr(session.flags, name) for name in _GIVEN})


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(
    argv, 'runs.evaluate.evaluate', usage=__doc__, define=_define, work=_evaluate, files=_files, given=_GIVEN
  )


if __name__ == '__main__':
  environment.leave(main)
