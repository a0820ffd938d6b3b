"""What a config.gin says of the model that its checkpoints hold."""

from __future__ import annotations

from typing import Any


def description(*, module: Any = None, tokenizer: Any = None, task: Any = None) -> None:
  """Never called: whoever reads a config.gin asks what its parameters would be.

  Args:
    module: the model.
    tokenizer: its vocabulary.
    task: the name of what it has learned, or that itself.
  """
