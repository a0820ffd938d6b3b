"""What a model makes of lines of text: `python -m t5x_lite.infer --checkpoint=MODEL --input=FILE --output=FILE`.

The checkpoint is a MODEL_DIR of a run or one checkpoint in it, a Hugging Face directory or a name on its hub. Modes:

  generate  what T5 writes for a line, or how GPT and XLNet go on; the options of transformers' generate are flags:
            --num_beams=4 --max_new_tokens=64 --do_sample --top_p=0.9 --assistant_model=SMALLER_MODEL
  score     log-likelihood by token, perplexity, bits by byte, of "text", or of "targets" after "inputs"
  embed     a vector for each line: --pooling=mean, cls, last, or as the model's folder says
  fill      the likeliest tokens for each mask of BERT
  classify  the class or the grade of "text", or of "text" and "pair", or the right one of "choices", with probabilities
  tag       entities in "text", and a tag for each word; or for each of "words"
  answer    what in "context" answers "question", and with which probability
  attention      attention probabilities: --output=page.html, maps.svg or maps.jsonl; --layers=0,5
  attributions   what each token adds to what the model says: --output=page.html; --method=gradients_times_input
  hidden_states  what each layer reads, and what the last returns
  probe          what a linear classifier reads off each layer, for "text" and "label", or "words" and "tags"

Classify, tag and answer are for fine-tuned models: a MODEL_DIR of runs/finetune_encoder.gin, or a checkpoint with such
a head. Input is text, JSONL or CSV with fields of those names, output too; in text, a tab stands between two of them. A
killed job goes on when the command is repeated.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from t5x_lite.cli import command, environment, shorthand
from t5x_lite.cli.record import CONFIG_FILE
from t5x_lite.core import checkpoint_names, errors
from t5x_lite.inference import flags as infer_flags

_GIVEN = ('checkpoint', 'input', 'output', 'interactive')


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    'checkpoint', None, 'Whatever load_pretrained reads, or RUN@STEP or RUN@best.', flag_values=values
  )
  flags.DEFINE_string('input', '-', 'A file of lines, or - for standard input.', flag_values=values)
  flags.DEFINE_string('output', '-', 'Where the rows go, or - for standard output.', flag_values=values)
  flags.DEFINE_bool('interactive', False, 'Ask for lines at a prompt, and answer them.', flag_values=values)
  shorthand.define(values, infer_flags.shorthands())


def _files(values: flags.FlagValues) -> tuple[str, ...]:
  if values.checkpoint is None:
    raise errors.UsageError(
      'no checkpoint: choose one with --checkpoint, a MODEL_DIR, a directory or a name on the hub'
    )
  folder = pathlib.Path(checkpoint_names.split_checkpoint(values.checkpoint)[0]).expanduser().absolute()
  found = [config for config in (folder / CONFIG_FILE, folder.parent / CONFIG_FILE) if config.is_file()]
  return ('runs/infer_lengths.gin', str(found[0]), 'runs/infer.gin') if found else ('runs/infer_published.gin',)


def _infer(session: command.Session) -> int | None:
  given, local = session.flags, pathlib.Path(session.flags.checkpoint).expanduser()
  checkpoint = str(local) if local.exists() else given.checkpoint
  return session.call(checkpoint=checkpoint, input=given.input, output=given.output, interactive=given.interactive)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  words = shorthand.as_bindings(sys.argv if argv is None else argv, infer_flags.shorthands())
  return command.run(words, 'runs.infer.infer', usage=__doc__, define=_define, work=_infer, files=_files, given=_GIVEN)


if __name__ == '__main__':
  environment.leave(main)
