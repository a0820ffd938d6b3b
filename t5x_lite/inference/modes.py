"""What can be done with a line: one function for each mode, which makes a `Mode` of a model and the options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from t5x_lite.core import errors
from t5x_lite.decoding.config import GenerationConfig
from t5x_lite.pretrained import Pretrained


@dataclasses.dataclass(frozen=True)
class Options:
  """What a mode may be told.

  Attributes:
    generation: of 'generate'.
    seed: of what is drawn.
    max_input_length: tokens of an input at most; what is longer is cut, and said to be. None: as the model takes.
    pooling: of 'embed': 'mean', 'cls' or 'last'; 'auto': what the model's folder says, or 'mean'.
    top: of 'fill': so many tokens for each mask; of 'answer': so many answers.
    aggregation_strategy: of 'tag': how the tags of tokens become those of words, see `inference.entities`.
    doc_stride: of 'answer' and 'tag': tokens that two windows of a long text share; None: 128, or half a window.
    max_answer_len: of 'answer': tokens of an answer at most.
    handle_impossible_answer: of 'answer': whether there may be none; None: as the model's task has it.
    context: of 'answer': where all questions that have no context of their own are answered.
    layers: of 'attention', 'hidden_states' and 'probe': numbers of layers, from 0; None: all.
    method: of 'attributions': one of `research.attributions.METHODS`.
    steps: of integrated gradients: points between baseline and input.
    baseline: of integrated gradients: 'padding', 'mean' or 'zero', what stands for no content.
    target: of 'attributions': the label of a classifier that is asked for; None: the one it gives.
  """

  generation: GenerationConfig = dataclasses.field(default_factory=GenerationConfig)
  seed: int = 0
  max_input_length: int | None = None
  pooling: str = 'auto'
  top: int = 5
  aggregation_strategy: str = 'first'
  doc_stride: int | None = None
  max_answer_len: int = 30
  handle_impossible_answer: bool | None = None
  context: str = ''
  layers: int | tuple[int, ...] | None = None
  method: str = 'integrated_gradients'
  steps: int = 64
  baseline: str = 'padding'
  target: str | None = None


@dataclasses.dataclass(frozen=True)
class Item:
  """A line that a model can work on.

  Attributes:
    ids: int32 `[L]`, by whose length lines are grouped.
    shown: what the row says first.
    more: what else a mode needs of it.
  """

  ids: np.ndarray
  shown: Mapping[str, Any]
  more: Any = None


class Mode(Protocol):
  """Something that is done with lines."""

  @property
  def field(self) -> str:
    """What a line of text is."""

  @property
  def columns(self) -> tuple[str, ...]:
    """Of a CSV."""

  def read(self, fields: Mapping[str, Any]) -> Item:
    """An item of the fields of a line. Raises ValueError where it is none."""

  def run(self, items: Sequence[Item], length: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """What becomes of some items of at most `length` tokens, whose lines have these numbers."""


def make(name: str, model: Pretrained, options: Options) -> Mode:
  """The mode of a name.

  Raises:
    UsageError: no such mode, or the model cannot do that.
  """
  from t5x_lite.inference import answer, attributions, classify, embed, fill, generate, inside, probe, score, tag

  known: dict[str, Callable[[Pretrained, Options], Mode]] = {
    'generate': generate.Generate,
    'score': score.Score,
    'embed': embed.Embed,
    'fill': fill.Fill,
    'classify': classify.Classify,
    'tag': tag.Tag,
    'answer': answer.Answer,
    'attention': inside.Attention,
    'hidden_states': inside.HiddenStates,
    'attributions': attributions.Attributions,
    'probe': probe.Probe,
  }
  if name not in known:
    raise errors.unknown('mode', name, known)
  return known[name](model, options)


def cut(ids: Sequence[int] | np.ndarray, longest: int | None) -> tuple[np.ndarray, dict[str, bool]]:
  """Ids, of which the last is kept where they are cut, and what the row says of it."""
  array = np.asarray(ids, np.int32)
  if longest is None or len(array) <= longest:
    return array, {}
  return np.concatenate([array[: longest - 1], array[-1:]]), {'truncated': True}


def tokenizer_of(model: Pretrained) -> Any:
  """Raises UsageError where a model has none."""
  if model.tokenizer is None:
    raise errors.UsageError(f'{model.source} was saved without a vocabulary: expected a gin file that sets VOCABULARY')
  return model.tokenizer
