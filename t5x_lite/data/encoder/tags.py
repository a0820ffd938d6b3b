"""Words with tags: every word has its tag at its first piece, and nothing is learned at the others.

    words   Ada   Lovelace wrote it
    inputs  [CLS] ada love ##lace wrote it [SEP]
    tags    -1    1   2    -1     0     0  -1
    words   -1    0   1    -1     2     3  -1

An example has, besides `inputs` and `token_types`, both int32 `[n]`: `tags`, -1 where there is none or it is unknown;
`words`, the index in the sentence of the word that begins there and has its tag there, else -1.

Source: Devlin et al. 2019 (BERT), section 5.3; Hugging Face's `run_ner.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from t5x_lite.data import task
from t5x_lite.data.encoder.frames import Framer
from t5x_lite.data.streams import TaskExample
from t5x_lite.data.vocabularies import tokenizers

_NONE = -1


def tagged(framer: Framer, examples: Sequence[task.Record]) -> list[list[TaskExample]]:
  """Sentences with tagged words: for each the parts that it makes, one unless examples are split.

  Every word has its tag in one part only, also where parts overlap: the first half of what they share belongs to the
  part before, the second half to the one after. Truncated, words lose their tags with their first pieces.

  Args:
    framer: frames a sentence.
    examples: with `words` and `tags`. A word that the tokenizer makes nothing of becomes the unknown token.
  """
  tokenizer = framer.tokenizer
  before = space_before_words(tokenizer)
  ids = iter(tokenizer.encode_batch([before + word for example in examples for word in example['words']]))
  made = []
  for example in examples:
    pieces = [next(ids) or [tokenizer.unk_id] for _ in example['words']]
    flat = [piece for of_word in pieces for piece in of_word]
    first = np.cumsum([0, *map(len, pieces)], dtype=np.int64)[:-1]
    tags, words = np.full((2, len(flat)), _NONE, np.int32)
    tags[first], words[first] = example['tags'], np.arange(len(pieces))
    made.append(_parts(framer, flat, tags, words))
  return made


def space_before_words(tokenizer: tokenizers.Tokenizer) -> str:
  """What to put before a word by itself, so that it has the ids that it has within a sentence: a space, or nothing."""
  one, other, both = tokenizer.encode_batch(['a', 'b', 'a b'])
  return '' if one + other == both else ' '


def _parts(framer: Framer, ids: list[int], tags: np.ndarray, words: np.ndarray) -> list[TaskExample]:
  room = framer.room(pair=False)
  if framer.long_examples == task.DROP and len(ids) > room:
    return []
  windows = framer.windows(len(ids), room)
  own = own_parts(windows)
  made = []
  for (start, stop), (own_start, own_stop) in zip(windows, own, strict=True):
    features = framer.arrays((ids[start:stop], None))
    del features['pooled']
    at = framer.frame(pair=False).first - start  # from the place in the sentence to the one in the frame
    for name, values in (('tags', tags), ('words', words)):
      features[name] = np.full(len(features['inputs']), _NONE, np.int32)
      features[name][own_start + at : own_stop + at] = values[own_start:own_stop]
    made.append(TaskExample(features, truncated=windows[-1][1] < len(ids)))
  return made


def own_parts(windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
  """What of each window is its own, where each overlaps with the next: cut in the midst of what two share."""
  cuts = [(stop + start) // 2 for (_, stop), (start, _) in itertools.pairwise(windows)]
  return list(zip([windows[0][0], *cuts], [*cuts, windows[-1][1]], strict=True))
