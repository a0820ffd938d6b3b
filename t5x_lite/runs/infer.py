"""Inference: what a model makes of the lines of a file."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from t5x_lite import pretrained
from t5x_lite.core import errors
from t5x_lite.data.vocabularies.tokenizers import Tokenizer
from t5x_lite.decoding.config import GenerationConfig
from t5x_lite.inference import job, modes, rows, shown
from t5x_lite.inference.modes import Mode, Options
from t5x_lite.partitioning import sharding
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.partitioning.rules import STANDARD_RULES
from t5x_lite.runs import located
from t5x_lite.training import processes


def infer(
  *,
  checkpoint: str,
  input: str,
  output: str,
  module: Any = None,
  tokenizer: Tokenizer | None = None,
  task_feature_lengths: Mapping[str, int] | None = None,
  mode: str = 'generate',
  generation: GenerationConfig = GenerationConfig(),  # noqa: B008, a frozen value
  batch_size: int = 32,
  input_format: str = 'auto',
  output_format: str = 'auto',
  pooling: str = 'auto',
  top: int = 5,
  aggregation_strategy: str = 'first',
  doc_stride: int | None = None,
  max_answer_len: int = 30,
  handle_impossible_answer: bool | None = None,
  context: str | None = None,
  layers: int | tuple[int, ...] | None = None,
  method: str = 'integrated_gradients',
  steps: int = 64,
  baseline: str = 'padding',
  target: str | int | None = None,
  task: str | None = None,
  split: str = 'validation',
  limit: int = 2000,
  seed: int = 0,
  interactive: bool = False,
  assistant_model: str | None = None,
  mesh: MeshShape = MeshShape(),  # noqa: B008, a frozen value
) -> int:
  """Writes a row for each line of a file.

  Args:
    checkpoint: whatever `load_pretrained` reads, or `RUN@STEP` or `RUN@best`.
    input: path of the lines, or `-` for standard input.
    output: path of the rows, or `-` for standard output. Begun with the same settings, it is gone on with.
    module: the model, where gin tells: its dtype is taken.
    tokenizer: its vocabulary; None: the checkpoint's own.
    task_feature_lengths: inputs of an encoder are cut to `inputs` tokens, and `targets` are written at most, where
      `generation` does not tell; None: as the model takes.
    mode: 'generate', 'score', 'embed', 'fill', 'classify', 'tag', 'answer', 'attention', 'hidden_states',
      'attributions' or 'probe' (see `inference`).
    generation: how text is written; what it leaves open is up to the model's generation_config.json.
    batch_size: lines at a time.
    input_format: 'text'; 'jsonl'; 'csv'; or 'auto', by the ending of the file's name, and else text.
    output_format: the same, and else JSON lines; of 'attention', 'attributions' and 'probe' also 'html', a page, and of
      'attention' 'svg', a picture.
    pooling: of 'embed': 'mean', 'cls', 'last', or 'auto', as the model's folder says.
    top: of 'fill': tokens for each mask; of 'answer': answers to each question.
    aggregation_strategy: of 'tag': 'first', 'simple', 'average' or 'max', as in transformers.
    doc_stride: of 'answer' and 'tag': tokens that two windows of a long text share; None: 128, or half a window.
    max_answer_len: of 'answer': tokens of an answer at most.
    handle_impossible_answer: of 'answer': whether there may be none; None: as the model's task has it.
    context: of 'answer': path of a text in which questions without a context of their own are answered.
    layers: of 'attention', 'hidden_states' and 'probe': numbers of layers, from 0; None: all.
    method: of 'attributions': 'integrated_gradients' or 'gradients_times_input'.
    steps: of integrated gradients: points between baseline and input.
    baseline: of integrated gradients: 'padding', 'mean' or 'zero', what stands in the place of tokens.
    target: of 'attributions': the label of a classifier that is asked for; None: the one it gives.
    task: of 'probe': a task of the catalogue, whose examples are read instead of a file.
    split: of that task.
    limit: of its examples, at evenly spaced places.
    seed: of what is drawn.
    interactive: whether lines are asked for at a prompt, and answered one by one.
    assistant_model: of 'generate': a smaller model, which drafts what the model writes; whatever `load_pretrained`
      reads. None: none does.
    mesh: how devices are arranged.

  Returns:
    The exit code: 0, also if some lines were bad; those are told on stderr and have a row with `error`. 1 if all were.

  Raises:
    UsageError: a model that cannot do it, or options that do not go together.
  """
  for name, value, known in (
    ('input_format', input_format, rows.FORMATS),
    ('output_format', output_format, (*rows.FORMATS, *shown.KINDS)),
  ):
    if value not in known:
      raise errors.unknown(name, value, known)
  if batch_size < 1:
    raise errors.UsageError(f'batch_size={batch_size}: expected at least 1')
  _check_not_same(input, output)
  model = _loaded(checkpoint, module, tokenizer, mesh, batch_size)
  modes.tokenizer_of(model)
  if assistant_model is not None:
    if mode != 'generate':
      raise errors.UsageError(f'assistant_model={assistant_model!r} with mode {mode!r}: expected mode generate')
    model.assistant_model = _loaded(assistant_model, module, None, mesh, batch_size)
  lengths = task_feature_lengths or {}
  options = Options(
    generation=_options(model, generation, lengths.get('targets')),
    seed=seed,
    max_input_length=lengths.get('inputs'),
    pooling=pooling,
    top=top,
    aggregation_strategy=aggregation_strategy,
    doc_stride=doc_stride,
    max_answer_len=max_answer_len,
    handle_impossible_answer=handle_impossible_answer,
    context='' if context is None else _text(context),
    layers=layers,
    method=method,
    steps=steps,
    baseline=baseline,
    target=None if target is None else str(target),
  )
  if model.assistant_model is not None:
    pretrained.check_assists(model, model.assistant_model, options.generation)
  try:
    made: Any = modes.make(mode, model, options)
  except errors.UsageError as error:
    raise errors.UsageError(f'{checkpoint}: {error}') from error
  devices = jax.device_count()
  if task is not None and not hasattr(made, 'lines_of'):
    raise errors.UsageError(f'--task={task} with mode {mode!r}: expected mode probe')
  kind = shown.kind_of(made, output_format, output)
  if kind is not None or hasattr(made, 'finish'):
    if interactive:
      raise errors.UsageError(f'--interactive with mode {mode!r}: expected lines from a file or standard input')
    kind = kind or rows.format_of(output_format, output, default='jsonl')
    sizes, title = (batch_size, devices), f'{mode.capitalize()} of {checkpoint}'
    if task is not None:
      if input != '-':
        raise errors.UsageError(f'--task={task} and --input={input}: expected one of them')
      lines = made.lines_of(task, split, limit)
      _show_task(made, lines, (output, kind), sizes, f'{title}: {task}')
      return 0
    _show(made, (input, rows.format_of(input_format, input)), (output, kind), sizes, title)
    return 0
  if interactive:
    return _talk(made, devices)
  kind_in = rows.format_of(input_format, input)
  kind_out = rows.format_of(output_format, output, default='jsonl')
  settings = {
    'checkpoint': str(next(located.locate(checkpoint)).path),
    'input': input,
    'mode': mode,
    'options': dataclasses.asdict(options),
    'format': kind_out,
    'tokenizer': getattr(model.tokenizer, 'fingerprint', None),
  }
  settings |= {} if assistant_model is None else {'assistant_model': assistant_model}
  return 0 if _work(made, (input, kind_in), (output, kind_out), (batch_size, devices), settings) else 1


def _show(made: Any, source: tuple[str, str], target: tuple[str, str], sizes: tuple[int, int], title: str) -> None:
  """Writes what is only whole with all lines: a page, a picture, what was learned from them."""
  batch_size, devices = sizes
  with _opened(source[0]) as file:
    lines = rows.read(file, source[1], made.field)
    found = shown.whole(job.run(lines, made, batch_size=batch_size, devices=devices), made)
    shown.write(found, made, target[1], target[0], title)


def _show_task(
  made: Any, lines: Iterable[rows.Line], target: tuple[str, str], sizes: tuple[int, int], title: str
) -> None:
  """The same of the examples of a task. Those that the model has no room for are left out, and counted."""
  kept: list[Mapping[str, Any]] = []
  left_out: list[Mapping[str, Any]] = []
  for row in job.run(lines, made, batch_size=sizes[0], devices=sizes[1]):
    (left_out if 'error' in row else kept).append(row)
  if left_out:
    total = len(kept) + len(left_out)
    print(f'{len(left_out)} of {total} examples are left out, such as: {left_out[0]["error"]}', file=sys.stderr)
  shown.write(shown.whole(kept, made), made, target[1], target[0], title)


def _loaded(checkpoint: str, module: Any, tokenizer: Tokenizer | None, shape: MeshShape, batch_size: int) -> Any:
  """The model, on all devices where there are several."""
  mesh = make_mesh(shape) if jax.device_count() > 1 else None
  if mesh is not None:
    sharding.check_batch(batch_size, mesh, STANDARD_RULES)
  changes = {} if module is None else {'dtype': module.config.dtype}
  model = pretrained.load_pretrained(located.path_of(checkpoint), mesh=mesh, **changes)
  if tokenizer is not None:
    model.tokenizer = tokenizer
  return model


def _options(model: Any, generation: GenerationConfig, targets: int | None) -> GenerationConfig:
  """The options of a model, with what was asked for on top."""
  given = {name: getattr(generation, name) for name in GenerationConfig.names()}
  given = {name: value for name, value in given.items() if value is not None}
  if targets is not None and 'max_length' not in given:
    given = {'max_new_tokens': targets, **given}
  return model.generation_config.with_options(given)


def _work(
  mode: Mode, source: tuple[str, str], target: tuple[str, str], sizes: tuple[int, int], settings: Mapping[str, Any]
) -> bool:
  """From lines to rows; returns whether any line was good, if there was one."""
  with _opened(source[0]) as file:
    primary = processes.is_primary()
    output = _begun(target, settings, mode.columns)
    progress, complete, good, bad = job.Progress(), False, 0, 0
    skipped = processes.from_primary(output.done)  # all processes read the same lines
    try:
      lines = (line for line in rows.read(file, source[1], mode.field) if line.number > skipped)
      for row in job.run(lines, mode, batch_size=sizes[0], devices=sizes[1]):
        if 'error' in row:
          print(f'line {row["line"]}: {row["error"]}', file=sys.stderr)
          bad += 1
        else:
          good += 1
        if primary:
          output.write(row)
        progress.advance()
      complete = True
    finally:
      progress.close()
      output.close(complete)
    return good > 0 or bad == 0 or skipped > 0


def _begun(target: tuple[str, str], settings: Mapping[str, Any], columns: Sequence[str]) -> job.Output:
  """Where process 0 writes, and the others nothing. What is wrong with it, all processes raise."""
  output, wrong = None, None
  try:
    output = job.Output(target[0] if processes.is_primary() else '-', target[1], settings, columns)
  except errors.UsageError as error:
    wrong = str(error)
  wrong = processes.from_primary(wrong)
  if output is None or wrong is not None:
    raise errors.UsageError(wrong or '')
  return output


def _talk(mode: Mode, devices: int) -> int:
  """Asks for lines and answers them, until there are no more."""
  number = 0
  while True:
    number += 1
    try:
      text = input_line()
    except EOFError:
      print()
      return 0
    for row in job.run([rows.Line(number, {mode.field: text})], mode, batch_size=devices, devices=devices):
      if 'error' in row:
        print(f'error: {row["error"]}')
        continue
      shown = mode.tell(row) if hasattr(mode, 'tell') else row.get('predictions') or [row.get('prediction')]
      if shown == [None]:
        shown = [rows.write({name: row[name] for name in row if name != 'line'}, 'jsonl', first=False)]
      for each in shown:
        print(each, flush=True)


def input_line() -> str:
  """A line of a person."""
  return input('> ')


def _text(path: str) -> str:
  """What is in a file of UTF-8. Raises UsageError where it cannot be read."""
  try:
    return pathlib.Path(path).expanduser().read_text(encoding='utf-8')
  except OSError as error:
    raise errors.UsageError(f'{path}: {error.strerror}') from error
  except UnicodeDecodeError as error:
    raise errors.UsageError(f'{path} is not UTF-8: {error.reason} at byte {error.start + 1}') from error


def _check_not_same(source: str, target: str) -> None:
  """Raises UsageError if writing the output would empty the input before it is read."""
  paths = [pathlib.Path(path).expanduser() for path in (source, target)]
  if '-' not in (source, target) and all(path.exists() for path in paths) and paths[0].samefile(paths[1]):
    raise errors.UsageError(f'--output={target} is the file of --input: expected another one')


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
  """An open file; `-` is standard input."""
  if path == '-':
    yield sys.stdin.buffer
    return
  try:
    file = pathlib.Path(path).expanduser().open('rb')
  except OSError as error:
    raise errors.UsageError(f'{path}: {error.strerror}') from error
  with file:
    yield file
