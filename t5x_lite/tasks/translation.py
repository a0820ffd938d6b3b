"""Translation: WMT as T5 has it, Multi30k, and many languages with tags.

    wmt_t2t_ende, wmt14_ende, wmt14_enfr, wmt15_enfr, wmt16_enro, wmt19_ende     T5's tasks of these names; TFDS
    wmt14_deen, ...                                                             the other direction of each
    multi30k_ende, multi30k_defr, ...                                           Elliott et al. 2016; from its files
    multi30k                                                                    all six directions, with tags
    parallel_text                                                               your own files, with tags

Wording: T5's, `translate English to German: ` (Raffel et al. 2020, appendix D.14 to D.16). With tags: `<2de> ` before
the text, Johnson et al. 2017, section 3, as MADLAD-400 (Kudugunta et al. 2023) has it for T5.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Iterator, Sequence

from t5x_lite.core import errors
from t5x_lite.data import sources, task
from t5x_lite.tasks import files_only, original_files, originals

METRICS = ('bleu', 'chrf')
SPLITS = {name: name for name in ('train', 'validation', 'test')}
LANGUAGES = {
  'ar': 'Arabic',
  'cs': 'Czech',
  'de': 'German',
  'en': 'English',
  'es': 'Spanish',
  'et': 'Estonian',
  'fi': 'Finnish',
  'fr': 'French',
  'gu': 'Gujarati',
  'hi': 'Hindi',
  'it': 'Italian',
  'ja': 'Japanese',
  'kk': 'Kazakh',
  'ko': 'Korean',
  'lt': 'Lithuanian',
  'lv': 'Latvian',
  'nl': 'Dutch',
  'pl': 'Polish',
  'pt': 'Portuguese',
  'ro': 'Romanian',
  'ru': 'Russian',
  'tr': 'Turkish',
  'uk': 'Ukrainian',
  'zh': 'Chinese',
}
MULTI30K_LANGUAGES = ('en', 'de', 'fr')

_WMT = (
  ('wmt_t2t', 'wmt_t2t_translate/de-en:1.0.0', 'de'),
  ('wmt14', 'wmt14_translate/de-en:1.0.0', 'de'),
  ('wmt14', 'wmt14_translate/fr-en:1.0.0', 'fr'),
  ('wmt15', 'wmt15_translate/fr-en:1.0.0', 'fr'),
  ('wmt16', 'wmt16_translate/ro-en:1.0.0', 'ro'),
  ('wmt19', 'wmt19_translate/de-en:1.0.0', 'de'),
)
_STEMS = {
  'train': ('train',),
  'validation': ('val', 'valid'),
  'test': ('test_2016_flickr', 'test2016', 'test'),
}


def translate(record: task.Record, *, source: str, target: str) -> task.Example | None:
  """The text in language `source`, after the names of both -> the text in `target`; None where one is empty."""
  if not (record[source].strip() and record[target].strip()):
    return None
  prompt = f'translate {LANGUAGES[source]} to {LANGUAGES[target]}: '
  return {'inputs': prompt + record[source], 'targets': record[target]}


def translate_with_tags(record: task.Record, *, pairs: Sequence[tuple[str, str]]) -> list[task.Example]:
  """An example for every pair of languages that the record has texts in, the target's tag before the inputs.

  Args:
    record: `{language: text}`, or as TFDS has it for any number of languages `{'translations': {'language': [...],
      'translation': [...]}}`.
    pairs: `((source, target), ...)`.
  """
  texts = record
  if 'translations' in record:
    both = record['translations']
    texts = dict(zip(both['language'], both['translation'], strict=True))
  return [
    {'inputs': f'<2{target}> {texts[source]}', 'targets': texts[target]}
    for source, target in pairs
    if texts.get(source, '').strip() and texts.get(target, '').strip()
  ]


def directions(languages: Sequence[str]) -> tuple[tuple[str, str], ...]:
  """All pairs of two of the languages, in both directions."""
  return tuple(itertools.permutations(languages, 2))


def translation(
  dataset: str, *, pairs: Sequence[Sequence[str]], name: str = 'translation', data_dir: str | None = None
) -> task.Task:
  """A task over a TFDS set of parallel texts, in several directions with tags.

      MIXTURE_OR_TASK_NAME = @translation()
      translation.dataset = 'ted_multi_translate:1.1.0'
      translation.pairs = (('en', 'de'), ('de', 'en'), ('en', 'pt-br'))

  Args:
    dataset: TFDS's name of a set whose records have a text for each language.
    pairs: `((source, target), ...)` in TFDS's codes.
    name: of the task.
    data_dir: see `TfdsSource`.
  """
  preprocess = functools.partial(translate_with_tags, pairs=_checked(pairs, 'translation.pairs'))
  source = sources.TfdsSource(dataset, data_dir)
  return task.Task(name, source, preprocess, supervised=True, splits=SPLITS, metrics=METRICS)


def parallel_text(directory: str, *, pairs: Sequence[Sequence[str]], name: str = 'parallel_text') -> task.Task:
  """A task over the user's own parallel files, `train.en`, `train.de`, `val.en` and so on, with tags.

      MIXTURE_OR_TASK_NAME = @parallel_text()
      parallel_text.directory = '/data/texts'
      parallel_text.pairs = (('en', 'de'), ('de', 'en'))

  Args:
    directory: has a file for each language and split, plain or gzipped; line for line one sentence says the same.
    pairs: `((source, target), ...)`; the languages are the endings of the files' names.
    name: of the task.
  """
  pairs = _checked(pairs, 'parallel_text.pairs')
  codes = tuple(dict.fromkeys(itertools.chain.from_iterable(pairs)))
  reader = functools.partial(parallel_files, codes=codes)
  preprocess = functools.partial(translate_with_tags, pairs=pairs)
  source = originals.OriginalSource(reader, directory, tuple(SPLITS))
  return task.Task(name, source, preprocess, supervised=True, splits=SPLITS, metrics=METRICS)


def _checked(pairs: Sequence[Sequence[str]], whose: str) -> tuple[tuple[str, str], ...]:
  if not pairs or any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
    raise errors.UsageError(f"{whose}: got {pairs!r}, expected pairs such as (('en', 'de'), ('de', 'en'))")
  return tuple((source, target) for source, target in pairs)


def parallel_files(
  folder: pathlib.Path, split: str, codes: Sequence[str] = MULTI30K_LANGUAGES
) -> Iterator[task.Record]:
  """The lines of the parallel files of a split, `train.de` and so on, as `{language: text}`.

  Raises:
    UsageError: a file is missing, or the files differ in their number of lines.
  """
  stems = _STEMS[split]
  paths = [original_files.locate(folder, [f'{stem}.{code}' for stem in stems]) for code in codes]
  columns = [[line for _, line in original_files.lines(path)] for path in paths]
  if len({len(column) for column in columns}) > 1:
    lengths = ', '.join(f'{path.name} {len(column)}' for path, column in zip(paths, columns, strict=True))
    raise errors.UsageError(f'{folder}: got {lengths} lines, expected as many in each')
  for texts in zip(*columns, strict=True):
    yield dict(zip(codes, texts, strict=True))


for _prefix, _dataset, _other in _WMT:
  for _source, _target in (('en', _other), (_other, 'en')):
    task.register(
      task.Task(
        f'{_prefix}_{_source}{_target}',
        sources.TfdsSource(_dataset),
        functools.partial(translate, source=_source, target=_target),
        supervised=True,
        splits=SPLITS,
        metrics=METRICS,
      )
    )

_MULTI30K = {
  f'multi30k_{_source}{_target}': functools.partial(translate, source=_source, target=_target)
  for _source, _target in directions(MULTI30K_LANGUAGES)
} | {'multi30k': functools.partial(translate_with_tags, pairs=directions(MULTI30K_LANGUAGES))}
for _name, _preprocess in _MULTI30K.items():
  files_only.register(
    _name,
    parallel_files,
    'train.en, train.de, train.fr, val.en and so on of Multi30k',
    splits=SPLITS,
    preprocess=_preprocess,
    metrics=METRICS,
  )
