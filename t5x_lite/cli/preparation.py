"""The commands of `python -m t5x_lite.prepare` and their flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from absl import flags


def _define_workers(values: flags.FlagValues) -> None:
  flags.DEFINE_integer(
    'workers', None, 'Number of processes; by default one for each CPU.', lower_bound=1, flag_values=values
  )


def _define_nothing(values: flags.FlagValues) -> None:
  del values


def _define_convert(values: flags.FlagValues) -> None:
  flags.DEFINE_string('dataset', None, "TFDS's name of it, such as c4/en:3.1.0.", flag_values=values)
  flags.DEFINE_string('target', None, 'The TFDS data dir to write to.', flag_values=values)
  flags.DEFINE_string('data_dir', None, "The TFDS data dir to read; by default TFDS's own.", flag_values=values)
  _define_workers(values)


def _define_tokenise(values: flags.FlagValues) -> None:
  flags.DEFINE_string('directory', None, 'The folder to write to.', flag_values=values)
  flags.DEFINE_list('splits', [], 'Splits of the tasks; by default all.', flag_values=values)
  _define_workers(values)


def _define_vocabulary(values: flags.FlagValues) -> None:
  flags.DEFINE_string('target', None, 'The file to write: spiece.model by custom.', flag_values=values)
  flags.DEFINE_integer('size', 32_000, 'Number of pieces.', lower_bound=300, flag_values=values)
  flags.DEFINE_list('symbols', [], 'Texts that are one piece each, such as <2de>,<2fr>.', flag_values=values)
  flags.DEFINE_bool('byte_fallback', False, 'Characters without a piece become bytes, as in mT5.', flag_values=values)
  flags.DEFINE_integer('max_lines', 2_000_000, 'Lines used, at most.', lower_bound=1, flag_values=values)


def _define_tfds(values: flags.FlagValues) -> None:
  flags.DEFINE_string('dataset', None, "TFDS's name of it, such as wikipedia/20230601.de:1.0.0.", flag_values=values)
  flags.DEFINE_string('data_dir', None, 'The TFDS data dir to write to.', flag_values=values)
  flags.DEFINE_string('runner', 'DirectRunner', 'The Beam runner. Only the direct one is tested.', flag_values=values)
  flags.DEFINE_list('beam_options', [], 'Options of the pipeline, such as project=NAME,streaming.', flag_values=values)
  flags.DEFINE_string('download_dir', None, 'Where downloads are kept.', flag_values=values)
  flags.DEFINE_string('manual_dir', None, 'Where files lie that TFDS cannot download itself.', flag_values=values)
  flags.DEFINE_string('module', None, 'A module to import first, which defines the builder.', flag_values=values)


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of `prepare`.

  Attributes:
    target: the function that it calls.
    usage: what it does.
    define: defines its flags.
    given: the flags that are arguments of the function.
    needed: those that must not be empty.
  """

  target: str
  usage: str
  define: Callable[[flags.FlagValues], None]
  given: tuple[str, ...]
  needed: tuple[str, ...] = ()


COMMANDS = {
  'embedded': Command(
    'runs.prepare.prepare_embedded',
    'Builds the embedded corpus and its vocabulary in the cache folder, and prints where they lie.',
    _define_nothing,
    (),
  ),
  'check': Command(
    'runs.prepare.check_task',
    'Tells for every task of MIXTURE_OR_TASK_NAME whether its data are there, and what is missing.',
    _define_nothing,
    (),
  ),
  'convert': Command(
    'runs.prepare.convert_records',
    'Converts a prepared TFDS data set from TFRecord to ArrayRecord files. Run again, it goes on where it was.',
    _define_convert,
    ('dataset', 'target', 'data_dir', 'workers'),
    ('dataset', 'target'),
  ),
  'tokenise': Command(
    'runs.prepare.tokenise_task',
    'Makes token ids of MIXTURE_OR_TASK_NAME with VOCABULARY. Run again, it goes on where it was.',
    _define_tokenise,
    ('directory', 'splits', 'workers'),
    ('directory',),
  ),
  'vocabulary': Command(
    'runs.prepare.train_vocabulary',
    'Trains a SentencePiece vocabulary on the training examples of a task or a mixture.',
    _define_vocabulary,
    ('target', 'size', 'symbols', 'byte_fallback', 'max_lines'),
    ('target',),
  ),
  'tfds': Command(
    'runs.prepare.prepare_with_tfds',
    'Prepares a data set through TFDS with an Apache Beam runner. Runners other than the direct one were not run.',
    _define_tfds,
    ('dataset', 'data_dir', 'runner', 'beam_options', 'download_dir', 'manual_dir', 'module'),
    ('dataset', 'data_dir'),
  ),
}
