"""Which tokens a masked language model predicts where it hides whole words, or n-grams of whole words.

Each function takes the candidates, which are the places of all tokens but the special ones, ascending int
`[candidates]`, and returns some of them, at most `count`.

Sources: `create_masked_lm_predictions` in the published `create_pretraining_data.py` of BERT (Devlin et al. 2019, and
its whole-word models) and of ALBERT (Lan et al. 2020, section 4.1). Unlike there, no word and no n-gram goes on behind
a special token.
"""

from __future__ import annotations

import numpy as np


def choose_words(candidates: np.ndarray, continues: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
  """All pieces of words taken in random order, where a word that is more than what is missing is passed over.

  Args:
    candidates: see above.
    continues: bool `[candidates]`, whether a piece goes on with the word before it.
    count: the largest number of pieces.
    rng: decides the order.
  """
  if not len(candidates):
    return candidates
  sizes = np.diff(_word_bounds(candidates, continues))
  order = rng.permutation(len(sizes))
  chosen = np.zeros(len(sizes), bool)
  chosen[order[_first_fit(sizes[order], count)]] = True
  return candidates[np.repeat(chosen, sizes)]


def choose_ngrams(
  candidates: np.ndarray, continues: np.ndarray, count: int, max_ngram: int, rng: np.random.Generator
) -> np.ndarray:
  """All pieces of n-grams of words, which begin at words taken in random order.

  An n-gram that is more than what is missing loses words at its end, and one that meets another is passed over.

  Args:
    candidates: see above.
    continues: bool `[candidates]`, whether a piece goes on with the word before it.
    count: the largest number of pieces.
    max_ngram: the largest n; an n is drawn with a probability that goes with 1 / n.
    rng: decides the order and the lengths.
  """
  if not len(candidates):
    return candidates
  bounds = _word_bounds(candidates, continues)
  words = len(bounds) - 1
  parts = np.flatnonzero(np.diff(candidates) > 1) + 1  # candidates that stand behind a special token
  ends = np.append(np.searchsorted(bounds, parts), words)
  order = rng.permutation(words)
  cumulative = np.cumsum(1.0 / np.arange(1, max_ngram + 1))
  ngrams = 1 + np.searchsorted(cumulative[:-1], rng.random(words) * cumulative[-1], side='right')
  lasts = np.minimum(order + ngrams, ends[np.searchsorted(ends, order, side='right')])
  at, covered, missing = bounds.tolist(), bytearray(words), count
  for first, last in zip(order.tolist(), lasts.tolist(), strict=True):  # over n-grams until there are enough
    while at[last] - at[first] > missing:
      last -= 1
    if last == first or covered.find(1, first, last) >= 0:
      continue
    covered[first:last] = b'\1' * (last - first)
    missing -= at[last] - at[first]
    if not missing:
      break
  return candidates[np.repeat(np.frombuffer(covered, bool), np.diff(bounds))]


def _word_bounds(candidates: np.ndarray, continues: np.ndarray) -> np.ndarray:
  """Where in the candidates words begin, and their number; int `[words + 1]`."""
  begins = ~continues
  begins[0] = True
  begins[1:] |= np.diff(candidates) > 1
  return np.append(np.flatnonzero(begins), len(candidates))


def _first_fit(sizes: np.ndarray, room: int) -> np.ndarray:
  """Indices of the sizes (all at least 1) that are taken where each is taken, in order, if there still is room."""
  taken = []
  at = 0
  while at < len(sizes):
    ends = np.cumsum(sizes[at:])
    fitting = int(np.searchsorted(ends, room, side='right'))
    if fitting:
      taken.append(np.arange(at, at + fitting))
      room -= int(ends[fitting - 1])
    at += fitting
    later = np.flatnonzero(sizes[at:] <= room)
    at = at + int(later[0]) if len(later) else len(sizes)
  return np.concatenate(taken) if taken else np.zeros(0, np.int64)
