"""Runs lm-evaluation-harness over a model: `python -m t5x_lite.harness --model_args=pretrained=MODEL --tasks=TASKS`.

The model is whatever `load_pretrained` reads: a MODEL_DIR of T5, GPT or XLNet, a Hugging Face directory or a name on
its hub. Everything else is a flag of the harness, such as --include_path=FOLDER for tasks of your own (a yaml file and
JSON lines, which need no network), --num_fewshot, --batch_size, --limit, --output_path. It wants the package lm_eval:
`pip install '.[lm_eval]'`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from t5x_lite.core import errors

MODEL = 't5x_lite'


def register() -> None:
  """Makes `--model=t5x_lite` known to the harness of this process.

  Raises:
    UsageError: it is not installed.
  """
  try:
    from lm_eval.api import registry
  except ImportError as error:
    raise errors.UsageError("lm-evaluation-harness is not installed: expected pip install '.[lm_eval]'") from error
  from t5x_lite.inference.harness_model import HarnessModel

  if registry.MODEL_REGISTRY.get(MODEL, None) is not HarnessModel:
    registry.register_model(MODEL)(HarnessModel)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  words = list(sys.argv if argv is None else argv)
  if '--help' in words[1:] or len(words) == 1:
    print(__doc__)
    return 0
  try:
    register()
    _evaluate(words)
  except errors.UsageError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


def _evaluate(words: list[str]) -> None:
  """The harness's own command, which reads `sys.argv`."""
  from lm_eval.__main__ import cli_evaluate

  if not any(word == '--model' or word.startswith('--model=') for word in words):
    words = [*words, '--model', MODEL]
  before, sys.argv = sys.argv, words
  try:
    cli_evaluate()
  finally:
    sys.argv = before


if __name__ == '__main__':
  sys.exit(main())
