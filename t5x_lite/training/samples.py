"""What the model writes: sample predictions on the terminal, in `samples.jsonl` and in TensorBoard."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from t5x_lite.training.console import Console
from t5x_lite.training.writers import MetricWriter

_FIELDS = ('input', 'target', 'prediction')
_SHOWN_CHARACTERS = 400


class Sample(NamedTuple):
  """One example as text.

  Attributes:
    input: what the model read, sentinels or blanks included.
    target: what it should have written: the output, the continuation, or what belongs in each blank.
    prediction: what it wrote.
  """

  input: str
  target: str
  prediction: str


def render(sample: Sample, width: int) -> str:
  """A sample as wrapped lines of at most `width` columns, the texts beside their names; long ones are cut."""
  margin = max(len(name) for name in _FIELDS) + 2
  lines = []
  for name in _FIELDS:
    text = ' '.join(getattr(sample, name).split()) or '(nothing)'
    if len(text) > _SHOWN_CHARACTERS:
      text = text[:_SHOWN_CHARACTERS].rsplit(' ', 1)[0] + ' ...'  # Not in the middle of a sentinel.
    wrapped = textwrap.wrap(text, max(20, width - margin - 2), break_on_hyphens=False)
    lines.append(f'  {name:>{margin - 2}}  {wrapped[0]}')
    lines.extend(' ' * (margin + 2) + line for line in wrapped[1:])
  return '\n'.join(lines)


def report(task: str, step: int, samples: Sequence[Sample], writer: MetricWriter, console: Console) -> None:
  """Prints samples and writes them to the run's files.

  Args:
    task: whose examples they are.
    step: of the parameters that made the predictions.
    samples: to report.
    writer: of the run.
    console: of the run.
  """
  if samples:
    console.note(f'samples of {task} at step {step}:')
    console.note('\n\n'.join(render(sample, console.width) for sample in samples) + '\n')
  for sample in samples:
    writer.write_sample({'step': step, 'task': task, **sample._asdict()})
  writer.write_text(task, 'samples', _markdown(samples), step)


def _markdown(samples: Sequence[Sample]) -> str:
  """A table; texts are escaped, or TensorBoard would take `<extra_id_0>` for HTML and drop it."""
  rows = ['| ' + ' | '.join(_FIELDS) + ' |', '|---|---|---|']
  rows += [
    '| ' + ' | '.join(html.escape(' '.join(text.split())).replace('|', '&#124;') for text in s) + ' |' for s in samples
  ]
  return '\n'.join(rows)
