"""Metrics of generated text: ROUGE for summaries, BLEU and chrF for translations.

The arithmetic is that of the packages rouge-score and sacrebleu (extra `metrics`), with T5's settings. A reference is a
text or, where there are several right ones, a list of texts.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors

Reference = str | Sequence[str]

ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeLsum')
# SacreBLEU's defaults differ from T5 in the tokenizer only: 13a instead of intl.
BLEU_SETTINGS = {'smooth_method': 'exp', 'tokenize': 'intl', 'lowercase': False, 'use_effective_order': False}


def rouge(references: Sequence[Reference], predictions: Sequence[str]) -> dict[str, float]:
  """`rouge1`, `rouge2`, `rougeLsum`: the mean F-measures of all summaries, without stemming; of several references the
  one that a type of ROUGE likes best counts.

  T5 reports the middle of a bootstrap over the same scores; the mean is what that estimates, and does not vary.

  Source: Lin 2004; `rouge_mean` of T5's metrics.

  Raises:
    UsageError: rouge-score is not installed.
  """
  scorer = _package('rouge_score.rouge_scorer', 'rouge-score').RougeScorer(ROUGE_TYPES)
  totals = dict.fromkeys(ROUGE_TYPES, 0.0)
  for reference, prediction in zip(references, predictions, strict=True):
    lines = [_sentences(text) for text in _texts(reference)]
    for name, score in scorer.score_multi(lines, _sentences(prediction)).items():
      totals[name] += score.fmeasure
  return {name: 100 * total / len(predictions) if predictions else float('nan') for name, total in totals.items()}


def bleu(references: Sequence[Reference], predictions: Sequence[str]) -> dict[str, float]:
  """`bleu` of the corpus, with exponential smoothing and the tokenizer `intl`.

  Source: Post 2018 (SacreBLEU); Raffel et al. 2020 (T5), section 2.3.

  Raises:
    UsageError: sacrebleu is not installed.
  """
  package = _package('sacrebleu', 'sacrebleu')
  if not predictions:
    return {'bleu': float('nan')}
  return {'bleu': package.corpus_bleu(list(predictions), _streams(references), **BLEU_SETTINGS).score}


def chrf(references: Sequence[Reference], predictions: Sequence[str]) -> dict[str, float]:
  """`chrf` of the corpus: chrF2 of n-grams of up to 6 characters, which is SacreBLEU's default.

  Source: Popović 2015.

  Raises:
    UsageError: sacrebleu is not installed.
  """
  package = _package('sacrebleu', 'sacrebleu')
  if not predictions:
    return {'chrf': float('nan')}
  return {'chrf': package.corpus_chrf(list(predictions), _streams(references)).score}


def _package(module: str, distribution: str) -> Any:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise errors.UsageError(
      f"this metric needs {distribution}: pip install 't5x_lite[metrics]' ({str(error).splitlines()[0]})"
    ) from error


def _texts(reference: Reference) -> list[str]:
  return [reference] if isinstance(reference, str) else list(reference)


def _sentences(text: str) -> str:
  """One sentence a line, which ROUGE-Lsum goes by. T5 breaks lines where a full stop stands alone."""
  return text.replace(' . ', ' .\n')


def _streams(references: Sequence[Reference]) -> list[list[str | None]]:
  """The first references of all texts, the second ones, ...; None where a text has fewer."""
  several = [_texts(reference) for reference in references]
  return [
    [texts[i] if i < len(texts) else None for texts in several] for i in range(max(len(texts) for texts in several))
  ]
