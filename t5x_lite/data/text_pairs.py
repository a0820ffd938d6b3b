"""Local files of texts that are alike, as a task that a gin file can name, for models whose head is 'embedding':

MIXTURE_OR_TASK_NAME = @text_pairs()
text_pairs.path = '/data/pairs.jsonl'
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

from t5x_lite.core import errors
from t5x_lite.data import files, task
from t5x_lite.data.formats import file_formats


def text_pairs(
  path: str | Sequence[str] | Mapping[str, str | Sequence[str]],
  *,
  text_field: str = 'text',
  pair_field: str | None = 'pair',
  negative_field: str | None = None,
  grade_field: str | None = None,
  least_grade: float = 1.0,
  group_field: str | None = None,
  format: str = file_formats.AUTO,
  columns: Sequence[str] | None = None,
  validation_path: str | Sequence[str] | None = None,
  validation_share: float = 0.0,
  skip_bad: bool = False,
  name: str = 'text_pairs',
) -> task.Task:
  """A task over local files with two texts a record, or three. Records that lack one of the two are left out.

  Args:
    path: of the files, see `files.FilesSource`.
    text_field: the field with a text.
    pair_field: the field with a text that is like it. None: the text itself, which dropout makes another (Gao et al.
      2021, section 3).
    negative_field: the field with a text that is unlike it, though it may look alike; it may be empty.
    grade_field: the field with a number that says how alike the two are, which cosines are compared with (Spearman).
    least_grade: from which on they count as alike. The others are texts for the rest of the batch to be told from.
    group_field: the field with what a text is about, such as its class: texts of the same group are not told from each
      other.
    format: see `files.FilesSource`, as are `columns`, `validation_share` and `skip_bad`.
    columns: of CSV and TSV files without a header.
    validation_path: files of the `validation` split.
    validation_share: of the records that are held out for validation instead.
    skip_bad: leave bad records out and count them.
    name: of the task, in logs and results.

  Raises:
    UsageError: an argument is not what it should be, or two do not go together. Files are opened later.
  """
  known = files.files(
    path,
    inputs_field=text_field,
    targets_field=text_field if pair_field is None else pair_field,
    format=format,
    columns=columns,
    validation_path=validation_path,
    validation_share=validation_share,
    skip_bad=skip_bad,
    name=name,
  )
  assert isinstance(known.source, files.FilesSource)
  more = tuple(field for field in (grade_field, group_field) if field is not None)
  grade = None if grade_field is None else functools.partial(grade_of, field=grade_field, name=name)
  compare = functools.partial(
    compared,
    examples=known.preprocess,
    negative_field=negative_field,
    group_field=group_field,
    grade=grade,
    least_grade=least_grade,
  )
  metrics = () if grade is None else ('spearman_corrcoef',)
  return dataclasses.replace(
    known,
    source=dataclasses.replace(known.source, fields=(*known.source.fields, *more)),
    reference=grade,
    encoder=task.EncoderTask('embedding', compare, metrics=metrics),
  )


def compared(
  record: task.Record,
  examples: task.Preprocess,
  negative_field: str | None,
  group_field: str | None,
  grade: functools.partial[float] | None,
  least_grade: float,
) -> task.Record | None:
  """The texts of a record, for a head that compares them; None if there are not two.

  Args:
    record: of a file.
    examples: makes inputs and targets of it, which are the two texts.
    negative_field: see `text_pairs`.
    group_field: see `text_pairs`.
    grade: reads how alike they are.
    least_grade: see `text_pairs`.
  """
  made = examples(record)
  if not isinstance(made, Mapping):
    return None
  example = {'text': made['inputs'], 'pair': made['targets']}
  if negative_field is not None:
    if negative_field not in record:
      raise errors.unknown('field of a record', negative_field, record)
    negative = record[negative_field]
    if negative is not None and str(negative).strip():  # there need not be one
      example['negative'] = str(negative)
  if group_field is not None:
    example['group'] = str(record[group_field])
  return example if grade is None else {**example, 'label': int(grade(record) >= least_grade)}


def grade_of(record: task.Record, field: str, name: str) -> float:
  """The number in a field. Raises UsageError where it is none."""
  try:
    value = float(record[field])
  except (TypeError, ValueError):
    value = math.nan
  if not math.isfinite(value):
    raise errors.UsageError(f'task {name!r}: got {record[field]!r} as {field!r} of a record, expected a number')
  return value
