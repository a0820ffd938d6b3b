"""The embedded corpus: what is extracted, how it is split, and that it is built once, whoever is killed."""

import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from t5x_lite.core import errors, paths
from t5x_lite.data import build_lock, embedded, sources, stdlib_docs

LIBRARY = {
  'plain.py': '"""Module summary line.\n\nWhat the module is for, in rather more words than the summary has.\n"""\n',
  'pkg/__init__.py': '''
      def outer(x):
        """Add one to a number.

          Indented text, which must be dedented, of the body that explains in some detail.
        """
        class Inner:
          """Only a summary."""

      if True:
        async def conditional():
          """conditional(x) -> int

          A signature is no summary of anything, however long the body after it may be.
          """
      ''',
  'pkg/broken.py': 'def :',
  'pkg/latin.py': """
      # -*- coding: latin-1 -*-
      '''Caf\xe9 is the summary.

      The body says caf\xe9 eight times at least: one two.
      '''
      """,
  'pkg/wrong_encoding.py': '# -*- coding: no-such-codec -*-\n"""Never seen."""\n',
  'pkg/test/test_pkg.py': '"""A test package.\n\nIt must not be read, whatever its docstring may say."""\n',
  'site-packages/other.py': '"""Not the standard library.\n\nIt must not be read, whatever its docstring may say."""\n',
  'pydoc_data/topics.py': """
      topics = {'loops': 'The "for" statement\\n*******************\\n\\nA "for" loop takes one item after another, \
and its text is long enough to be kept as a document by itself.\\n\\n\\n\\nSee :ref:`loops` for more.'}
      """,
}


@pytest.fixture
def library(tmp_path, monkeypatch):
  """A tiny standard library; every document is long enough to be kept."""
  monkeypatch.setattr(stdlib_docs, 'MIN_DOCUMENT_CHARS', 1)
  for name, source in LIBRARY.items():
    path = tmp_path / 'lib' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding='latin-1')
  return tmp_path / 'lib'


def test_extracts_docstrings_by_parsing(library):
  docs = stdlib_docs.extract(library)
  assert [(d['module'], d['qualname'], d['summary'], d['body']) for d in docs.docstrings] == [
    ('pkg', 'outer', 'Add one to a number.', docs.docstrings[0]['body']),
    ('pkg.latin', '', 'Café is the summary.', 'The body says café eight times at least: one two.'),
    ('plain', '', 'Module summary line.', 'What the module is for, in rather more words than the summary has.'),
  ]
  assert docs.docstrings[0]['body'].startswith('Indented text, which must be dedented')
  text = {d['module']: d['text'] for d in docs.text}
  assert set(text) == {'pkg', 'pkg.latin', 'plain', 'topics.loops'}
  assert 'Only a summary.' in text['pkg'] and 'conditional(x) -> int' in text['pkg']
  assert (
    '***' not in text['topics.loops'] and '\n\n\n' not in text['topics.loops'] and ':ref:' not in text['topics.loops']
  )


def test_repeated_paragraphs_are_kept_once(library):
  (library / 'plain_again.py').write_text((library / 'plain.py').read_text())
  docs = stdlib_docs.extract(library)
  assert sum('in rather more words' in d['text'] for d in docs.text) == 1
  assert sum('in rather more words' in d['body'] for d in docs.docstrings) == 1


def test_no_sources_is_a_usage_error(tmp_path):
  with pytest.raises(errors.UsageError, match='no documentation found'):
    stdlib_docs.extract(tmp_path)


def test_unprintable_characters_are_dropped():
  assert stdlib_docs.clean('a\x00b\ud800c\x0cd').encode() == b'a b c\nd'


def test_no_module_is_in_two_splits_and_no_long_paragraph_either():
  held_out, trained = {}, {}
  for config in embedded.CONFIGS:
    source = sources.EmbeddedSource(config)
    for split, modules in (('train', trained), ('validation', held_out)):
      records = source.random_access(split)
      for record in records.__getitems__(range(len(records))):
        body = record['text'] if config == 'text' else record['body']
        modules.setdefault(record['module'], set()).update(p for p in body.split('\n\n') if len(p) > 100)
        assert stdlib_docs.split_of(record['module']) == split
    share = source.num_examples('validation') / (source.num_examples('train') + source.num_examples('validation'))
    assert 0.05 < share < 0.15
  assert held_out and not held_out.keys() & trained.keys()
  shared = set().union(*held_out.values()) & set().union(*trained.values())
  assert len(shared) <= 0.01 * len(set().union(*held_out.values()))


def test_the_corpus_is_english_text_of_some_size():
  source = sources.EmbeddedSource('text')
  records = source.random_access('train')
  text = ' '.join(record['text'] for record in records.__getitems__(range(len(records))))
  assert len(text) > 1_000_000
  assert text.count(' the ') > 10_000
  assert not any(line.strip('*=- ') == '' and len(line) > 2 for line in text.splitlines())


def test_optimised_python_without_docstrings_builds_the_same_corpus(tmp_path):
  here = embedded.fingerprint()
  program = 'from t5x_lite.data import embedded; print(embedded.fingerprint())'
  other = _python('-OO', '-c', program, cache=tmp_path).communicate()[0]
  assert other.strip() == here


def test_fingerprint_follows_the_content():
  record = {'module': 'm', 'text': 'a'}
  assert embedded._hash({'text': [record]}) != embedded._hash({'text': [{**record, 'text': 'b'}]})


def test_a_second_start_does_not_parse(monkeypatch):
  before = embedded.fingerprint()

  def extract(library):
    raise AssertionError('parsed again')

  monkeypatch.setattr(stdlib_docs, 'extract', extract)
  assert embedded.fingerprint() == before


def test_tfds_reads_it_with_nothing_but_the_folder():
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(embedded.folder('docstrings'))
  record = builder.as_data_source(split='validation')[0]
  assert set(record) == set(embedded.CONFIGS['docstrings'])
  assert builder.info.metadata['fingerprint'] == embedded.fingerprint()
  assert 'tensorflow' not in sys.modules


def test_unknown_config_names_the_nearest():
  with pytest.raises(errors.UsageError, match="did you mean 'docstrings'"):
    sources.EmbeddedSource('docstring').num_examples('train')


def test_unwritable_cache_is_one_line(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / 'file'))
  with pytest.raises(errors.UsageError, match=f'cannot write to the cache folder .*{paths.CACHE_VARIABLE}') as caught:
    embedded.folder()
  assert '\n' not in str(caught.value)


def test_two_processes_at_once_build_once(tmp_path):
  context = multiprocessing.get_context('spawn')
  barrier = context.Barrier(2)
  workers = [context.Process(target=_build_slowly, args=(tmp_path, barrier)) for _ in range(2)]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join(60)
  assert [worker.exitcode for worker in workers] == [0, 0]
  assert (tmp_path / 'builds').read_text() == 'x'
  assert sorted(p.name for p in (tmp_path / 'cache').iterdir()) == ['.set.lock', 'set']


def test_a_killed_builder_leaves_nothing_that_is_taken_for_complete(tmp_path):
  program = f"""
      import pathlib, time
      from t5x_lite.data import build_lock
      def build(folder):
        (folder / 'half').write_text('half')
        print('building', flush=True)
        time.sleep(60)
      build_lock.build_once(pathlib.Path({str(tmp_path)!r}) / 'set', build)
      """
  process = _python('-c', textwrap.dedent(program))
  assert process.stdout.readline().strip() == 'building'
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not (tmp_path / 'set').exists()
  assert list(tmp_path.glob('.set.building-*'))
  build_lock.build_once(tmp_path / 'set', lambda folder: (folder / 'whole').write_text('whole') and None)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['.set.lock', 'set']
  assert [p.name for p in (tmp_path / 'set').iterdir()] == ['whole']


def test_a_failed_build_leaves_nothing_and_may_be_tried_again(tmp_path):
  def fail(folder: pathlib.Path):
    (folder / 'half').write_text('half')
    raise RuntimeError('on purpose')

  with pytest.raises(RuntimeError, match='on purpose'):
    build_lock.build_once(tmp_path / 'set', fail)
  assert [p.name for p in tmp_path.iterdir()] == ['.set.lock']
  build_lock.build_once(tmp_path / 'set', lambda folder: None)
  assert (tmp_path / 'set').is_dir()


def test_another_set_of_sources_is_another_folder(library, monkeypatch):
  monkeypatch.setattr(stdlib_docs, 'stdlib_folder', lambda: library)
  keys = []
  for text in ('"""a"""', '"""ab"""'):
    (library / 'plain.py').write_text(text)
    keys.append(embedded._sources_key.__wrapped__())
  assert keys[0] != keys[1] == embedded._sources_key.__wrapped__()


def _build_slowly(folder, barrier):
  def build(target):
    with (folder / 'builds').open('a') as file:
      file.write('x')
    time.sleep(0.5)
    (target / 'data').write_text(json.dumps({}))

  barrier.wait(60)
  build_lock.build_once(folder / 'cache' / 'set', build)
  assert (folder / 'cache' / 'set' / 'data').is_file()


def _python(*arguments, cache=None):
  environment = dict(os.environ, PYTHONPATH=str(pathlib.Path(embedded.__file__).parents[2]))
  if cache is not None:
    environment[paths.CACHE_VARIABLE] = str(cache)
  return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
