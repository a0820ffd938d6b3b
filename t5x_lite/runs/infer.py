"""Inference: a checkpoint's outputs for the lines of a file."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from t5x_lite import families, inference
from t5x_lite.core import errors
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.inference import Generator
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.training import processes
from t5x_lite.training.writers import to_json

_INPUT_FORMATS = ('auto', 'text', 'jsonl')


def infer(
  *,
  module: Any,
  tokenizer: Tokenizer | None,
  task_feature_lengths: Mapping[str, int],
  checkpoint: str,
  input: str,
  output: str,
  batch_size: int = 32,
  max_decode_length: int | None = None,
  input_format: str = 'auto',
  mesh: MeshShape = MeshShape(),  # noqa: B008, a frozen value
) -> int:
  """Writes the greedy output of a model for each line of a file, as JSON lines.

  Args:
    module: the model.
    tokenizer: its vocabulary; None is refused, by the name of the checkpoint.
    task_feature_lengths: `inputs` are cut to that many tokens.
    checkpoint: a run's folder, or the folder of one step.
    input: path of a text file, one input a line, or `-` for standard input.
    output: path of the JSON lines, or `-` for standard output.
    batch_size: rows decoded together.
    max_decode_length: tokens written at most; None: the length of `targets`.
    input_format: 'text'; 'jsonl', with the input under "inputs"; or 'auto', by the ending of the file's name.
    mesh: how devices are arranged.

  Returns:
    The exit code: 0, also if some lines were bad; those are told on stderr and have a row with `error`.
  """
  if input_format not in _INPUT_FORMATS:
    raise errors.unknown('input_format', input_format, _INPUT_FORMATS)
  try:
    families.check_writes(module)
  except errors.UsageError as error:
    raise errors.UsageError(f'{checkpoint}: {error}') from error
  if tokenizer is None:
    raise errors.UsageError(f'{checkpoint} was saved without a vocabulary: expected a gin file that sets VOCABULARY')
  length = task_feature_lengths['targets'] if max_decode_length is None else max_decode_length
  if length < 1:
    raise errors.UsageError(f'max_decode_length={length}: expected at least 1')
  with _opened(input, 'rb') as source, contextlib.ExitStack() as stack:
    generator = Generator(module, checkpoint, make_mesh(mesh), batch_size, max_length=length, tokenizer=tokenizer)
    _check_not_same(input, output)
    sink = stack.enter_context(_opened(output, 'w'))  # last, for it empties a file that is there
    jsonl = input_format == 'jsonl' or (input_format == 'auto' and input.endswith('.jsonl'))
    lines = inference.read_lines(source, jsonl=jsonl)
    rows = inference.predict(
      lines, generator, tokenizer, longest=task_feature_lengths['inputs'], batch_size=generator.batch_size
    )
    for row in rows:
      if 'error' in row:
        print(f'line {row["line"]}: {row["error"]}', file=sys.stderr)
      if processes.is_primary():
        print(to_json(row), file=sink, flush=True)
  return 0


def _check_not_same(input: str, output: str) -> None:
  """Raises UsageError if writing the output would empty the input before it is read."""
  paths = [pathlib.Path(path).expanduser() for path in (input, output)]
  if '-' not in (input, output) and all(path.exists() for path in paths) and paths[0].samefile(paths[1]):
    raise errors.UsageError(f'--output={output} is the file of --input: expected another one')


@contextlib.contextmanager
def _opened(path: str, mode: str) -> Iterator[Any]:
  """An open file; `-` is standard input or output."""
  if path == '-':
    yield sys.stdin.buffer if mode == 'rb' else sys.stdout
    return
  try:
    file = pathlib.Path(path).expanduser().open(mode, encoding=None if 'b' in mode else 'utf-8')
  except OSError as error:
    raise errors.UsageError(f'{path}: {error.strerror}') from error
  with file:
    yield file
