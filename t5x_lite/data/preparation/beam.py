"""Prepares a TFDS data set as ArrayRecord with an Apache Beam runner: C4, Wikipedia, or a builder of the user's own.

Apache Beam is the extra `beam`. It may want other releases of some packages than the rest of the library: then it has
an environment of its own, for what it writes is read anywhere. The direct runner, in this process, is tested; others
(Dataflow, Flink, Spark) are chosen by the same two arguments: not run here.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import prepared


def prepare_with_beam(
  dataset: str,
  data_dir: str,
  *,
  runner: str = 'DirectRunner',
  beam_options: Sequence[str] = (),
  download_dir: str | None = None,
  manual_dir: str | None = None,
  module: str | None = None,
) -> pathlib.Path:
  """Downloads and prepares a data set; one that is there already is left as it is.

  Args:
    dataset: TFDS's name, such as `c4/en:3.1.0` or `wikipedia/20230601.de:1.0.0`.
    data_dir: the TFDS data dir to write to, which the runner's workers have to reach too.
    runner: Beam's name of it.
    beam_options: options of the pipeline as `name=value` or `name`, without the dashes.
    download_dir: where downloads are kept; None: below the data dir.
    manual_dir: where files lie that TFDS cannot download itself.
    module: to import first: it defines the builder of `dataset`.

  Returns:
    The version folder.

  Raises:
    UsageError: Beam, or a package that the builder needs, is missing; no such data set, module or runner.
  """
  beam_pipeline = _imported('apache_beam.options.pipeline_options')
  runners = _imported('apache_beam.runners')
  import tensorflow_datasets as tfds

  if module is not None:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      if error.name is None or not f'{module}.'.startswith(f'{error.name}.'):
        raise
      raise errors.UsageError(f'no module {module!r} (looked along sys.path)') from error
  try:
    runners.create_runner(runner)
  except (ValueError, ImportError, AttributeError) as error:
    raise errors.UsageError(f'unknown Beam runner {runner!r}: {prepared.first_line(error)}') from error
  options = beam_pipeline.PipelineOptions([f'--runner={runner}', *(f'--{option}' for option in beam_options if option)])
  builder = _builder(tfds, dataset, data_dir)
  config = tfds.download.DownloadConfig(
    manual_dir=manual_dir, beam_runner=runner, beam_options=options, try_download_gcs=False
  )
  try:
    builder.download_and_prepare(download_dir=download_dir, download_config=config)
  except ImportError as error:
    raise errors.UsageError(
      f'preparing {dataset} needs a package that is not installed: {prepared.first_line(error)}; expected '
      f't5x_lite[beam] and tensorflow-datasets[{builder.name}]'
    ) from error
  return pathlib.Path(builder.data_dir)


def _imported(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise errors.UsageError(
      f'preparing a set through TFDS needs Apache Beam ({error}): install t5x_lite[beam], in an environment of its own '
      'if need be'
    ) from error


def _builder(tfds: Any, dataset: str, data_dir: str) -> Any:
  """TFDS's builder, which is to write ArrayRecord."""
  folder = str(pathlib.Path(data_dir).expanduser()) if '://' not in data_dir else data_dir
  try:
    return tfds.builder(dataset, data_dir=folder, file_format=prepared.ARRAY_RECORD)
  except tfds.core.registered.DatasetNotFoundError as error:
    match = errors.nearest(
      dataset.partition('/')[0].partition(':')[0], tfds.list_builders(with_community_datasets=False)
    )
    hint = f': did you mean {match!r}?' if match else ''
    raise errors.UsageError(f'TFDS knows no data set {dataset!r}{hint}') from error
  except (ValueError, AssertionError, ImportError) as error:
    raise errors.UsageError(f'cannot make the data set {dataset!r}: {prepared.first_line(error)}') from error
