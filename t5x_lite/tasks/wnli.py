"""WNLI as T5 answers it: as the Winograd schema that its sentence pair was made of, see `wsc`.

    wsc: The fish ate the worm. *It* was tasty.  ->  The worm

    glue_wnli_simple    T5's `glue_wnli_v002_simple_eval`; validation and test, for it is only evaluated on

The second sentence of a pair of WNLI repeats a part of the first, with a phrase in place of a pronoun. That phrase is
the target, and whether a model's phrase means it says whether the one sentence follows from the other. `glue_wnli` has
the pairs themselves in GLUE's wording, as T5's `glue_wnli_v002`. T5 trains on neither: its mixtures leave WNLI out, and
a model learns the schemas from WSC and DPR.

Source: Raffel et al. 2020 (T5), section 2.4, and what `wnli_simple` of the published `t5.data.preprocessors` makes of
the validation and test splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import sources, task
from t5x_lite.tasks import glue_files, originals

PRONOUNS = frozenset(('he', 'she', 'they', 'it', 'her', 'his', 'their', 'them', 'him'))
NAME = 'glue_wnli_simple'

_EVALUATED = {'validation': 'validation', 'test': 'test'}
_ARTICLES = ('a', 'an', 'the')
_MARKS = '.,?!'
_ANY_MARK = f'[{_MARKS}]?'


def wnli_simple(record: task.Record) -> task.Example:
  """The first sentence with a pronoun marked -> the phrase that the second has in its place."""
  place, phrase = _resolved(record)
  words = record['sentence1'].split()
  pronoun, mark = _without_mark(words[place])
  words[place] = f'*{pronoun}* {mark}' if mark else f'*{pronoun}*'
  return {'inputs': f'wsc: {" ".join(words)}', 'targets': phrase}


def wnli_reference(record: task.Record) -> dict[str, Any]:
  """The phrase, and whether the pronoun stands for it; -1 where that is not known."""
  return {'referent': _resolved(record)[1], 'label': int(record['label'])}


def _resolved(record: task.Record) -> tuple[int, str]:
  """The place of the pronoun among the words of the first sentence, and the phrase that the second has for it.

  It is the pronoun whose neighbours, before and after it, the second sentence repeats most of. The phrase is empty
  where it repeats none of them, as in nine records of the training split, which T5 does not use.

  Raises:
    UsageError: there is no pronoun.
  """
  places, premise = _plain_words(record['sentence1'])
  hypothesis = ' '.join(_plain_words(record['sentence2'])[1])
  found = [
    (before + after, at, premise[at - before : at], premise[at + 1 :][:after])
    for at, word in enumerate(premise)
    if word in PRONOUNS
    for before in [_overlap(premise[:at][::-1], ' '.join(hypothesis.split(' ')[::-1]))]
    for after in [_overlap(premise[at + 1 :], hypothesis)]
  ]
  if not found:
    raise errors.UsageError(f'WNLI: no pronoun of {", ".join(sorted(PRONOUNS))} is in {record["sentence1"]!r}')
  _, at, before_it, after_it = max(found, key=lambda each: each[0])  # the first of the best
  return places[at], _written(_between(before_it, after_it, hypothesis), ' '.join(record['sentence2'].split()))


def _plain_words(text: str) -> tuple[list[int], list[str]]:
  """The words of a text in lower case, without the mark at their ends, and the place of each among all words."""
  words = [(place, _without_mark(word)[0]) for place, word in enumerate(text.lower().split())]
  kept = [(place, word) for place, word in words if word]
  return [place for place, _ in kept], [word for _, word in kept]


def _without_mark(word: str) -> tuple[str, str]:
  """A word without the mark at its end, and the mark."""
  return (word[:-1], word[-1]) if word[-1] in _MARKS else (word, '')


def _overlap(words: Sequence[str], text: str) -> int:
  """How many of the words, from the first on, are in the text as they stand."""
  count = 0
  while count < len(words) and ' '.join(words[: count + 1]) in text:
    count += 1
  return count


def _between(before: Sequence[str], after: Sequence[str], text: str) -> str:
  """What the text has between these words, else at its beginning before the last, or at its end behind the first."""
  if not before and not after:
    return ''
  escaped_before, escaped_after = ([re.escape(word) for word in words] for words in (before, after))
  for parts in ([*escaped_before, '(.+)', *escaped_after], ['^(.+)', *escaped_after], [*escaped_before, '(.+)$']):
    match = re.search(' '.join(parts), text)
    if match is not None:
      return match[1]
  return ''


def _written(phrase: str, text: str) -> str:
  """The phrase as the text writes it, from its last article on, no possessive; empty if that is not there."""
  words = phrase.split(' ')
  words = words[max([words.index(article) for article in _ARTICLES if article in words], default=0) :]
  match = re.search(' '.join(re.escape(word) + _ANY_MARK for word in words), text, re.IGNORECASE)
  if match is None or not match[0]:
    return ''
  return re.sub("('s|')$", '', _without_mark(match[0])[0])


task.register(
  task.Task(
    NAME,
    sources.TfdsSource('glue/wnli:2.0.0'),
    wnli_simple,
    supervised=True,
    splits=_EVALUATED,
    metrics=('referent_accuracy',),
    reference=wnli_reference,
  )
)
originals.register(NAME, glue_files.GlueFiles('wnli'))
