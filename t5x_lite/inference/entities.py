"""From the probabilities of tags at tokens to tags of words and entities, as transformers' pipeline aggregates them.

Source: the token classification pipeline of transformers, whose `aggregation_strategy` has these names.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from t5x_lite.metrics.tagging import BEGIN, INSIDE, OUTSIDE

STRATEGIES = ('first', 'simple', 'average', 'max')


class Unit(NamedTuple):
  """A token or a word with its tag.

  Attributes:
    tag: index of the label.
    score: its probability.
    start: where it begins in the text, in characters.
    end: where it ends.
    first: number of its first word.
    last: of its last word.
  """

  tag: int
  score: float
  start: int
  end: int
  first: int
  last: int


def units(chances: np.ndarray, places: Sequence[tuple[int, int]], words: Sequence[int], strategy: str) -> list[Unit]:
  """Tokens (`simple`) or words, whose tag is that of the first token, of the mean of all, or of the surest one.

  Args:
    chances: float32 `[N, C]`, of each tag at each token.
    places: of the tokens in the text, from which character to before which.
    words: number of the word that each token belongs to, ascending.
    strategy: one of `STRATEGIES`.
  """
  found = []
  keys = range(len(words)) if strategy == 'simple' else words
  for _, group in itertools.groupby(range(len(words)), key=keys.__getitem__):
    own = list(group)
    if strategy == 'average':
      scores = chances[own].mean(axis=0)
    elif strategy == 'max':
      scores = chances[max(own, key=lambda index: chances[index].max())]
    else:
      scores = chances[own[0]]
    tag = int(np.argmax(scores))
    start, end = places[own[0]][0], places[own[-1]][1]
    found.append(Unit(tag, float(scores[tag]), start, end, words[own[0]], words[own[-1]]))
  return found


def entities(text: str, found: Sequence[Unit], labels: Sequence[str]) -> list[dict[str, Any]]:
  """Neighbours of one type as entities, in order: what begins with B- begins one, and `O` is none.

  Returns:
    Of each `label`, `text`, `score` (the mean of its units), `start` and `end` in characters, and `words`, the number
    of its first word and that behind its last.
  """
  groups: list[list[Unit]] = []
  for unit in found:
    begins, kind = _kind(labels[unit.tag])
    if groups and not begins and kind == _kind(labels[groups[-1][-1].tag])[1]:
      groups[-1].append(unit)
    else:
      groups.append([unit])
  made = []
  for group in groups:
    label = labels[group[0].tag].split('-', 1)[-1]
    if label == OUTSIDE:
      continue
    start, end = group[0].start, group[-1].end
    score = round(float(np.mean([unit.score for unit in group])), 6)
    words = [group[0].first, group[-1].last + 1]
    made.append({'label': label, 'text': text[start:end], 'score': score, 'start': start, 'end': end, 'words': words})
  return made


def annotated(text: str, found: Sequence[dict[str, Any]]) -> str:
  """The text with its entities in brackets: `[Ada Lovelace](PER) wrote it`."""
  parts, at = [], 0
  for entity in found:
    parts += [text[at : entity['start']], f'[{entity["text"]}]({entity["label"]})']
    at = entity['end']
  return ''.join([*parts, text[at:]])


def _kind(tag: str) -> tuple[bool, str]:
  """Whether a tag begins an entity, and of which type."""
  return tag.startswith(BEGIN), tag.removeprefix(BEGIN) if tag.startswith(BEGIN) else tag.removeprefix(INSIDE)
