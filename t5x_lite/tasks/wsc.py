"""Pronouns and what they stand for, as T5 writes them: the pronoun between stars -> the phrase that it stands for.

    wsc: Mitchell asked Tom if *he* could lend some money.  ->  Tom

    super_glue_wsc                 SuperGLUE's Winograd schemas
    dpr                            Definite Pronoun Resolution (Rahman and Ng 2012); it validates on its test split
    wsc_dpr_simple_proportional    both, each at the rate of its size

WSC asks whether the pronoun stands for one given phrase. A model that writes can only learn where it does, so the
training split leaves the other records out; in the other splits the target is always that phrase, and a metric sees
whether what the model wrote means it. A model with a head reads all records, with the phrase and the pronoun marked,
and says whether they belong together.

Source: Raffel et al. 2020 (T5), section 2.4 and appendix B, and `wsc_simple`, `wsc` and
`definite_pronoun_resolution_simple` in the published `t5.data.preprocessors`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from t5x_lite.core import errors
from t5x_lite.data import mixtures, sources, task
from t5x_lite.tasks import labelled, originals, super_glue_files

SPLIT = 'split'
TRAIN = 'train'
DPR_SPLITS = {'train': 'train', 'validation': 'test', 'test': 'test'}

# Numbers of training examples, as T5 writes them down.
PROPORTIONAL_RATES = (('dpr', 1_322.0), ('super_glue_wsc', 259.0))

_BENCHMARK = 'wsc:'


def wsc(record: task.Record) -> task.Example | None:
  """A text with its pronoun marked -> the phrase asked about; None in training where the pronoun means another."""
  if record[SPLIT] == TRAIN and record['label'] != 1:
    return None
  return {'inputs': f'{_BENCHMARK} {_starred(record)}', 'targets': record['span1_text']}


def wsc_reference(record: task.Record) -> dict[str, Any]:
  """The phrase asked about, and whether the pronoun stands for it."""
  return {'referent': record['span1_text'], 'label': int(record['label'])}


def wsc_classified(record: task.Record) -> task.Record:
  """The text, `* ` and ` *` around the phrase and `# ` and ` #` around the pronoun, as in `wsc` of T5."""
  phrase, pronoun = record['span1_index'], record['span2_index']
  text = _mark(record['text'], record['span1_text'], phrase, '*')
  text = _mark(text, record['span2_text'], pronoun + 2 * (phrase < pronoun), '#')
  return {'text': text, 'label': int(record['label'])}


def dpr(record: task.Record) -> task.Example:
  """A sentence with the first occurrence of its pronoun marked -> the one of two candidates that it stands for."""
  pronoun = re.escape(record['pronoun'])
  sentence = re.sub(rf' ({pronoun})( |\.|,)', r' *\1*\2', record['sentence'], count=1)
  return {'inputs': f'{_BENCHMARK} {sentence}', 'targets': record['candidates'][record['label']]}


def dpr_choices(record: task.Record) -> task.Record:
  """The sentence with its pronoun marked, and the two candidates."""
  text = dpr(record)['inputs'].removeprefix(f'{_BENCHMARK} ')
  return {'text': text, 'choices': list(record['candidates']), 'label': int(record['label'])}


def _starred(record: task.Record) -> str:
  """The text with stars around the pronoun. Punctuation that sticks to it is moved away.

  The index counts words between single spaces. In one text of WSC it is off by one: the nearest word that fits counts.
  """
  words, pronoun, place = record['text'].split(' '), record['span2_text'], int(record['span2_index'])
  fitting = re.compile(re.escape(pronoun) + r'(\W*)')
  matches = {index: match for index, word in enumerate(words) if (match := fitting.fullmatch(word))}
  if not matches:
    raise errors.UsageError(f'WSC: the pronoun {pronoun!r} is no word of {record["text"]!r}')
  nearest = min(matches, key=lambda index: abs(index - place))
  rest = matches[nearest].group(1)
  words[nearest] = f'*{pronoun}* {rest}' if rest else f'*{pronoun}*'
  return ' '.join(words)


def _mark(text: str, span: str, index: int, mark: str) -> str:
  """`text` with marks around `span`, if it begins the word number `index`; else as it is."""
  before = re.match(rf'(?:\S+\s){{{index}}}', text)
  if before is None or not text.startswith(span, before.end()):
    return text
  start, end = before.end(), before.end() + len(span)
  return f'{text[:start]}{mark} {span} {mark}{text[end:]}'


class _SplitRecords:
  """Records that know their split."""

  def __init__(self, records: sources.RandomAccess, split: str):
    self._records, self._split = records, split

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {**self._records[index], SPLIT: self._split}

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    return [{**record, SPLIT: self._split} for record in self._records.__getitems__(indices)]


@dataclasses.dataclass(frozen=True)
class SplitNaming:
  """A source whose records have the name of their split in the field `split`.

  Attributes:
    source: where the records come from.
  """

  source: sources.Source

  @property
  def splits(self) -> tuple[str, ...]:
    """Names of the splits."""
    return self.source.splits

  def num_examples(self, split: str) -> int:
    """Number of records in `split`."""
    return self.source.num_examples(split)

  def random_access(self, split: str) -> _SplitRecords:
    """The records of `split`."""
    return _SplitRecords(self.source.random_access(split), split)

  def fingerprint(self, split: str | None = None) -> str:
    """The fingerprint of `source`."""
    return self.source.fingerprint(split)


def _wsc_files(folder: Any, split: str) -> Any:
  """SuperGLUE's files of WSC."""
  for record in super_glue_files.SuperGlueFiles('wsc')(folder, split):
    yield {**record, SPLIT: split}


task.register(
  task.Task(
    'super_glue_wsc',
    SplitNaming(sources.TfdsSource('super_glue/wsc.fixed:1.0.2')),
    wsc,
    supervised=True,
    splits=labelled.SPLITS,
    metrics=('referent_accuracy',),
    reference=wsc_reference,
    encoder=task.EncoderTask('classification', wsc_classified, super_glue_files.LABELS['wsc']),
  )
)
task.register(
  task.Task(
    'dpr',
    sources.TfdsSource('definite_pronoun_resolution:1.1.0'),
    dpr,
    supervised=True,
    splits=DPR_SPLITS,
    metrics=('accuracy',),
    encoder=task.EncoderTask('multiple_choice', dpr_choices),
    in_mean=False,
  )
)
task.register(mixtures.Mixture('wsc_dpr_simple_proportional', PROPORTIONAL_RATES))
originals.register('super_glue_wsc', _wsc_files)
