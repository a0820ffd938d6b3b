"""What a model is asked from Python: `load_pretrained(source).classify(texts)`, and `tag`, `answer` and `embed`.

And what it computes on the way: `attention`, `hidden_states` and `attributions`.

The work is that of `python -m t5x_lite.infer --mode=classify` and so on, without its files.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5x_lite.core import errors


class AnswersByHead(abc.ABC):
  """These methods of `pretrained.Pretrained`."""

  @property
  @abc.abstractmethod
  def num_devices(self) -> int:
    """Over which the rows of a batch must divide."""

  def classify(
    self,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    choices: Sequence[Sequence[str]] | None = None,
    batch_size: int = 32,
  ) -> list[dict[str, Any]]:
    """The class of each text, or pair of texts, by a fine-tuned head; or which of its choices is right.

    Args:
      texts: one or several.
      pairs: the second text of each.
      choices: of a model with a head for them, those of each text.
      batch_size: texts at a time, a multiple of the devices.

    Returns:
      For each the row of `infer --mode=classify`: `prediction`, the name of its label or its grade; `probability` of it
      and `probabilities` by name, as transformers' text classification pipeline has them.

    Raises:
      UsageError: a model without such a head, an empty text.
    """
    columns = {'text': _several(texts), 'pair': _several(pairs), 'choices': choices}
    return self._rows('classify', columns, {}, batch_size)

  def tag(
    self,
    texts: str | Sequence[str] | None = None,
    *,
    words: Sequence[Sequence[str]] | None = None,
    aggregation_strategy: str = 'first',
    doc_stride: int | None = None,
    batch_size: int = 32,
  ) -> list[dict[str, Any]]:
    """The entities in each text, and a tag for each word, by a fine-tuned head.

    Args:
      texts: one or several, of any length.
      words: instead, texts that are lists of words.
      aggregation_strategy: 'first', 'simple', 'average' or 'max', as in transformers' token classification pipeline,
        whose entities and scores these are.
      doc_stride: tokens that two windows of a long text share; None: 128, or half a window.
      batch_size: texts at a time, a multiple of the devices.

    Returns:
      For each the row of `infer --mode=tag`: `entities`, each with `label`, `text`, `score`, `start` and `end` in
      characters, and the numbers of its `words`; `words` and their `tags`.

    Raises:
      UsageError: a model without such a head, an empty text.
    """
    options = {'aggregation_strategy': aggregation_strategy, 'doc_stride': doc_stride}
    return self._rows('tag', {'text': _several(texts), 'words': words}, options, batch_size)

  def answer(
    self,
    questions: str | Sequence[str],
    contexts: str | Sequence[str],
    *,
    top: int = 5,
    doc_stride: int | None = None,
    max_answer_len: int = 30,
    handle_impossible_answer: bool | None = None,
    batch_size: int = 32,
  ) -> list[dict[str, Any]]:
    """What in each context answers its question, by a fine-tuned head that marks spans.

    Args:
      questions: one or several.
      contexts: one for each, or one for all, of any length.
      top: answers to each.
      doc_stride: tokens that two windows of a long context share; None: 128, or half a window.
      max_answer_len: tokens of an answer at most.
      handle_impossible_answer: whether there may be none, an empty text; None: as the model's task has it.
      batch_size: questions at a time, a multiple of the devices.

    Returns:
      For each the row of `infer --mode=answer`: `prediction`, `score`, `start` and `end` in characters of the context,
      and the same of all `answers`, best first.

    Raises:
      UsageError: a model without such a head, an empty question or context.
    """
    asked = _several(questions)
    given = [contexts] * len(asked) if isinstance(contexts, str) else contexts
    options = {
      'top': top,
      'doc_stride': doc_stride,
      'max_answer_len': max_answer_len,
      'handle_impossible_answer': handle_impossible_answer,
    }
    return self._rows('answer', {'question': asked, 'context': given}, options, batch_size)

  def embed(self, texts: str | Sequence[str], *, pooling: str = 'auto', batch_size: int = 32) -> np.ndarray:
    """The vectors of texts, float32 `[texts, D]`, as `infer --mode=embed` has them.

    Args:
      texts: one or several.
      pooling: 'mean', 'cls', 'last', or 'auto', as the model was trained or its folder says.
      batch_size: texts at a time, a multiple of the devices.

    Raises:
      UsageError: an empty text.
    """
    rows = self._rows('embed', {'text': _several(texts)}, {'pooling': pooling}, batch_size)
    return np.array([row['embedding'] for row in rows], np.float32)

  def attention(
    self,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    batch_size: int = 8,
  ) -> list[dict[str, Any]]:
    """The attention probabilities of each text, by layer and head; `research.attention_page.render` shows them.

    Args:
      texts: one or several.
      pairs: the second text of each (BERT).
      targets: what is written behind each: by the decoder of T5, which writes greedily where there are none; further on
        by GPT; by XLNet, which then has its second stream.
      layers: numbers of layers, from 0; None: all.
      batch_size: texts at a time, a multiple of the devices.

    Returns:
      For each `attention`, float32 `[layers, N, T, S]` by stack: 'encoder', 'decoder', 'cross', 'content', 'query'; and
      `tokens` by side and `layers` by stack.

    Raises:
      UsageError: a layer that there is not, an empty text, one that is too long.
    """
    return self._inside('attention', (texts, pairs, targets), {'layers': _numbers(layers)}, batch_size)

  def hidden_states(
    self,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    batch_size: int = 8,
  ) -> list[dict[str, Any]]:
    """What each layer reads and what the last returns, as transformers' `output_hidden_states`.

    Arguments and errors are those of `attention`, with two differences: layer 0 is what the first layer reads, and
    without `targets` there are no states of T5's decoder.

    Returns:
      For each `hidden_states`, float32 `[layers + 1, T, D]` by stack, and `tokens` and `layers`.
    """
    return self._inside('hidden_states', (texts, pairs, targets), {'layers': _numbers(layers)}, batch_size)

  def attributions(
    self,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    target: str | None = None,
    method: str = 'integrated_gradients',
    steps: int = 64,
    baseline: str = 'padding',
    batch_size: int = 8,
  ) -> list[dict[str, Any]]:
    """How much each token of each text adds to what the model says of it (see `inference.attributions`).

    Args:
      texts: one or several.
      pairs: the second text of each (BERT).
      targets: what is written behind each (T5, GPT, XLNet).
      target: of a classifier, the label that is asked for; None: the one it gives.
      method: 'integrated_gradients' or 'gradients_times_input'.
      steps: of integrated gradients: points between baseline and input.
      baseline: of integrated gradients, what stands in the place of tokens: 'padding'; 'mean', that of the vocabulary;
        or 'zero'. How many steps each needs is told at `research.attributions.integrated_gradients`.
      batch_size: texts at a time, a multiple of the devices.

    Returns:
      For each `tokens` by side and `attributions`, for each target: `target`, `score`, `baseline_score`,
      `completeness_gap`, and `values`, float32 `[L]` by side.

    Raises:
      UsageError: a model without a head that can be asked, an empty text, one that is too long.
    """
    options = {'method': method, 'steps': steps, 'baseline': baseline, 'target': target}
    return self._inside('attributions', (texts, pairs, targets), options, batch_size)

  def _inside(
    self, mode: str, given: Sequence[str | Sequence[str] | None], options: Mapping[str, Any], batch_size: int
  ) -> list[dict[str, Any]]:
    """What a mode makes of texts, their second texts and their targets; see `_rows`."""
    columns = dict(zip(('text', 'pair', 'targets'), map(_several, given), strict=True))
    return self._rows(mode, columns, options, batch_size)

  def _rows(
    self, mode: str, columns: Mapping[str, Sequence[Any] | None], options: Mapping[str, Any], batch_size: int
  ) -> list[dict[str, Any]]:
    """What a mode makes of columns of equal length, those that are given; a row for each."""
    from t5x_lite.inference import job, modes, rows

    given = {name: list(values) for name, values in columns.items() if values is not None}
    counts = {name: len(values) for name, values in given.items()}
    if len(set(counts.values())) != 1:
      told = ', '.join(f'{count} under {name!r}' for name, count in counts.items()) or 'nothing'
      raise errors.UsageError(f'got {told}: expected one for each text')
    if batch_size < 1 or batch_size % self.num_devices:
      raise errors.UsageError(f'batch_size is {batch_size}: expected a multiple of the {self.num_devices} devices')
    model: Any = self
    made = modes.make(mode, model, modes.Options(**options))
    each = zip(*given.values(), strict=True)
    lines = (rows.Line(number, dict(zip(given, values, strict=True))) for number, values in enumerate(each))
    found = []
    for row in job.run(lines, made, batch_size=batch_size, devices=self.num_devices):
      if 'error' in row:
        raise errors.UsageError(f'text {row["line"]}: {row["error"]}')
      found.append({name: value for name, value in row.items() if name != 'line'})
    return found


def _several(texts: Any) -> Any:
  return [texts] if isinstance(texts, str) else texts


def _numbers(layers: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
  return layers if layers is None or isinstance(layers, int) else tuple(layers)
