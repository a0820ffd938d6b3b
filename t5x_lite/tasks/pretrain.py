"""Text to pretrain on, and the supervised tasks that come with the embedded corpus.

    embedded_text        documents of the embedded corpus; the run's objective makes examples of them
    embedded_summarize   supervised: the body of a docstring -> its summary line
    embedded_module      supervised: a docstring -> the name of its module
    embedded_mixture     the three together
    c4_en, wikipedia_en  T5's and BERT's corpora, as prepared by TFDS
    c4_en_noclean, c4_realnewslike, c4_webtextlike  the other corpora of the T5 paper, section 3.4.1
    bookcorpus, openwebtext, common_crawl           from local files only: gin_configs/data has a file for each

Other languages: `multilingual_corpora`.

Validation holds documents, and for the supervised tasks modules, that training never shows. Importing this registers
them and opens nothing.
"""

from __future__ import annotations

from t5x_lite.data import mixtures, sources, task
from t5x_lite.tasks import files_only

HELD_OUT_SPLITS = {'train': 'train', 'validation': 'validation'}
WIKIPEDIA_SPLITS = {'train': 'train[:99%]', 'validation': 'train[99%:]'}  # TFDS has a train split only


def text_only(record: task.Record) -> task.Record:
  """Keeps the text of a record, not its title, module, or address."""
  return {'text': record['text']}


def summarize(record: task.Record) -> task.Record:
  """A docstring without its summary line -> the summary line, worded as T5 words summarisation."""
  return {'inputs': f'summarize: {record["body"]}', 'targets': record['summary']}


def name_module(record: task.Record) -> task.Record:
  """A docstring -> the dotted name of the module that it is from. Where the docstring names its module, so be it."""
  return {'inputs': f'module: {record["summary"]}\n\n{record["body"]}', 'targets': record['module']}


task.register(task.Task('embedded_text', sources.EmbeddedSource('text'), text_only, splits=HELD_OUT_SPLITS))
task.register(
  task.Task(
    'embedded_summarize',
    sources.EmbeddedSource('docstrings'),
    summarize,
    supervised=True,
    splits=HELD_OUT_SPLITS,
    metrics=('rouge',),
  )
)
task.register(
  task.Task(
    'embedded_module',
    sources.EmbeddedSource('docstrings'),
    name_module,
    supervised=True,
    splits=HELD_OUT_SPLITS,
    metrics=('accuracy',),
  )
)
task.register(
  mixtures.Mixture('embedded_mixture', (('embedded_text', 2.0), ('embedded_summarize', 1.0), ('embedded_module', 1.0)))
)
task.register(task.Task('c4_en', sources.TfdsSource('c4/en:3.1.0'), text_only, splits=HELD_OUT_SPLITS))
task.register(
  task.Task('wikipedia_en', sources.TfdsSource('wikipedia/20230601.en:1.0.0'), text_only, splits=WIKIPEDIA_SPLITS)
)
for _name, _config in (
  ('c4_en_noclean', 'en.noclean'),
  ('c4_realnewslike', 'realnewslike'),
  ('c4_webtextlike', 'webtextlike'),
):
  task.register(task.Task(_name, sources.TfdsSource(f'c4/{_config}:3.1.0'), text_only, splits=HELD_OUT_SPLITS))
for _name in ('bookcorpus', 'openwebtext', 'common_crawl'):
  _remedy = f'read local files with --gin_file=data/{_name}.gin --gin.FILES=PATH, which is @files()'
  task.register(task.Task(_name, files_only.FilesOnly(_remedy), text_only, splits=HELD_OUT_SPLITS))
