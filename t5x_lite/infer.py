"""What a model makes of lines of text: `python -m t5x_lite.infer --checkpoint=MODEL --input=FILE --output=FILE`.

The checkpoint is a MODEL_DIR of a run or one checkpoint in it, a Hugging Face directory or a name on its hub. Modes:

  generate  what T5 writes for a line, or how GPT and XLNet go on; by the options of transformers' generate, which are
            flags here: --num_beams=4 --max_new_tokens=64 --do_sample --top_p=0.9 --no_repeat_ngram_size=2
  score     log-likelihood by token, perplexity, bits by byte, of "text", or of "targets" after "inputs"
  embed     a vector for each line: --pooling=mean, cls, last, or as the model's folder says
  fill      the likeliest tokens for each mask of BERT

Input is text, a line each, or JSONL or CSV with fields of those names; output is JSONL, CSV or text. A job that was
killed goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from t5x_lite.cli import command
from t5x_lite.cli.record import CONFIG_FILE
from t5x_lite.core import errors

_GIVEN = ('checkpoint', 'input', 'output', 'interactive')
_RUNS = ('runs/infer.gin',)
_PUBLISHED = ('runs/infer_published.gin',)


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('checkpoint', None, 'Whatever load_pretrained reads.', flag_values=values)
  flags.DEFINE_string('input', '-', 'A file of lines, or - for standard input.', flag_values=values)
  flags.DEFINE_string('output', '-', 'Where the rows go, or - for standard output.', flag_values=values)
  flags.DEFINE_bool('interactive', False, 'Ask for lines at a prompt, and answer them.', flag_values=values)
  for name, help in (
    ('mode', 'generate, score, embed or fill.'),
    ('batch_size', 'Lines at a time.'),
    ('input_format', 'text, jsonl, csv, or auto: by the ending of the name.'),
    ('output_format', 'text, jsonl, csv, or auto: by the ending of the name.'),
    ('pooling', 'Of embed: mean, cls, last, or auto.'),
    ('top', 'Of fill: tokens for each mask.'),
    ('seed', 'Of what is drawn.'),
  ):
    flags.DEFINE_string(name, None, help, flag_values=values)
  for name, of_bool in _generation_options().items():
    text = f'Of generate: {name}, as in transformers.'
    if of_bool:
      flags.DEFINE_bool(name, None, text, flag_values=values)
    else:
      flags.DEFINE_string(name, None, text, flag_values=values)


def _generation_options() -> dict[str, bool]:
  """The names of all options of generation, and whether each is yes or no."""
  from t5x_lite.decoding.config import GenerationConfig

  return {field.name: field.type == 'bool | None' for field in dataclasses.fields(GenerationConfig)}


def _files(values: flags.FlagValues) -> tuple[str, ...]:
  if values.checkpoint is None:
    raise errors.UsageError(
      'no checkpoint: choose one with --checkpoint, a MODEL_DIR, a directory or a name on the hub'
    )
  folder = pathlib.Path(values.checkpoint).expanduser().absolute()
  for config in (folder / CONFIG_FILE, folder.parent / CONFIG_FILE):
    if config.is_file():
      return str(config), *_RUNS
  return _PUBLISHED


def _infer(session: command.Session) -> int | None:
  values = session.flags
  local = pathlib.Path(values.checkpoint).expanduser()
  checkpoint = str(local) if local.exists() else values.checkpoint
  return session.call(checkpoint=checkpoint, input=values.input, output=values.output, interactive=values.interactive)


def _as_bindings(argv: Sequence[str]) -> list[str]:
  """Flags of `infer`'s own as the gin bindings that they stand for."""
  own = {name: f'infer.{name}' for name in _PARAMETERS}
  own |= {name: f'GenerationConfig.{name}' for name in _generation_options()}
  changed, rest = [], list(argv)
  while rest:
    argument = rest.pop(0)
    name, equals, value = argument.removeprefix('--').partition('=')
    if argument.startswith('--no') and name.removeprefix('no') in own:
      name, value = name.removeprefix('no'), 'False'
    elif name in own and not equals:
      takes_next = not _generation_options().get(name) and rest and not rest[0].startswith('--')
      value = rest.pop(0) if takes_next else 'True'
    changed.append(f'--gin.{own[name]}={_literal(value)}' if argument.startswith('--') and name in own else argument)
  return changed


_PARAMETERS = ('mode', 'batch_size', 'input_format', 'output_format', 'pooling', 'top', 'seed')


def _literal(value: str) -> str:
  """A value as gin reads it: what is no literal is a string."""
  try:
    parsed: Any = ast.literal_eval(value)
  except (SyntaxError, ValueError):
    parsed = value
  return repr(parsed)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command.run(
    _as_bindings(sys.argv if argv is None else argv),
    'runs.infer.infer',
    usage=__doc__,
    define=_define,
    work=_infer,
    files=_files,
    given=_GIVEN,
  )


if __name__ == '__main__':
  sys.exit(main())
