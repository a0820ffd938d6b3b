"""Local files as a source and a task: which files, which splits, and what a gin file can say of them."""

import dataclasses
import json
import os

import pytest

from t5x_lite.cli import calls, command, environment
from t5x_lite.core import errors
from t5x_lite.data import files


def message(function, *args, **options):
  with pytest.raises(errors.UsageError) as caught:
    function(*args, **options)
  assert '\n' not in str(caught.value)
  return str(caught.value)


@pytest.fixture
def folder(tmp_path):
  """`b.txt`, `a.txt`, `deep/c.txt`, and what is none of the data."""
  for name in ('b.txt', 'a.txt', 'deep/c.txt', '.hidden.txt', '_SUCCESS', 'LICENSE'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{name} 1\n{name} 2\n')
  return tmp_path


def rewrite(path, text):
  """Writes at a time that is not that of the file, however soon this comes."""
  path.write_text(text)
  os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def texts(source, split='train'):
  return [record['text'] for record in source.random_access(split)]


def lines(*names):
  return [f'{name} {i}' for name in names for i in (1, 2)]


def test_names_patterns_and_folders(folder, monkeypatch, caplog):
  assert texts(files.FilesSource(str(folder))) == lines('a.txt', 'b.txt', 'deep/c.txt')
  assert '1 files are not read, for their format is unknown: LICENSE' in caplog.text
  assert texts(files.FilesSource(f'{folder}/*.txt')) == lines('a.txt', 'b.txt')
  assert texts(files.FilesSource(f'{folder}/**/*.txt')) == lines('a.txt', 'b.txt', 'deep/c.txt')
  assert texts(files.FilesSource([f'{folder}/b.txt', f'{folder}/?.txt'])) == lines('b.txt', 'a.txt')
  monkeypatch.setenv('HOME', str(folder))
  assert texts(files.FilesSource('~/deep')) == lines('deep/c.txt')
  (folder / 'odd[1].txt').write_text('odd\n')
  assert texts(files.FilesSource(f'{folder}/odd[1].txt')) == ['odd']


def test_no_file(folder):
  assert f"no file matches '{folder}/*.json'" in message(files.FilesSource(f'{folder}/*.json').num_examples, 'train')
  assert "did you mean 'a.txt'" in message(files.FilesSource(f'{folder}/a.txtt').num_examples, 'train')
  assert f'{folder} holds LICENSE' in message(files.FilesSource(f'{folder}/none/x').num_examples, 'train')
  assert 'expected a local file' in message(files.FilesSource('gs://bucket/*.txt').num_examples, 'train')
  (folder / 'empty').mkdir()
  assert f'no file in {folder}/empty has a format' in message(files.FilesSource(f'{folder}/empty').fingerprint)
  (folder / 'blank.txt').write_text('\n \n')
  assert "split 'train' of" in message(files.FilesSource(f'{folder}/blank.txt').num_examples, 'train')


def test_splits_of_their_own(folder):
  source = files.FilesSource({'train': f'{folder}/a.txt', 'test': [f'{folder}/b.txt']})
  assert source.splits == ('train', 'test')
  assert texts(source, 'test') == lines('b.txt')
  assert "did you mean 'test'" in message(source.random_access, 'tests')


def test_a_share_is_held_out(tmp_path):
  path = tmp_path / 'x.txt'
  path.write_text(''.join(f'{i}\n' for i in range(5000)))
  source = files.FilesSource(str(path), validation_share=0.1)
  assert source.splits == ('train', 'validation')
  train, validation = texts(source), texts(source, 'validation')
  assert sorted(train + validation, key=int) == [str(i) for i in range(5000)]
  assert train == sorted(train, key=int) and validation == sorted(validation, key=int)
  assert 400 < len(validation) < 600 and source.num_examples('validation') == len(validation)
  held = source.random_access('validation')
  assert [record['text'] for record in held.__getitems__([7, 0])] == [validation[7], validation[0]]
  with pytest.raises(IndexError):
    held[len(held)]
  path.write_text(''.join(f'{i}\n' for i in range(7000)))  # what was held out stays held out
  assert [text for text in texts(source, 'validation') if int(text) < 5000] == validation
  assert 'expected at least 0 and less than 1' in message(dataclasses.replace, source, validation_share=1.0)
  assert 'makes validation' in message(files.FilesSource, {'train': 'x', 'validation': 'y'}, validation_share=0.5)


def test_the_fingerprint_follows_contents_names_and_options_alone(folder, tmp_path_factory):
  source = files.FilesSource(f'{folder}/*.txt')
  first = source.fingerprint('train')
  copy = tmp_path_factory.mktemp('copy')
  for path in folder.glob('[a-z].txt'):
    (copy / path.name).write_bytes(path.read_bytes())
  copied = files.FilesSource(f'{copy}/*.txt')
  assert copied.fingerprint('train') == first
  assert dataclasses.replace(source, documents='file').fingerprint('train') != first
  rewrite(copy / 'a.txt', 'A.txt 1\na.txt 2\n')
  assert copied.fingerprint('train') != first
  rewrite(copy / 'a.txt', (folder / 'a.txt').read_text())
  assert copied.fingerprint('train') == first
  (copy / 'a.txt').rename(copy / 'c.txt')
  assert copied.fingerprint('train') != first


def test_large_files_are_sampled(folder, monkeypatch):
  source = files.FilesSource(f'{folder}/*.txt')
  whole = source.fingerprint()
  monkeypatch.setattr(files, '_HASHED_WHOLE', 1)
  files._contents.cache_clear()
  sampled = source.fingerprint()
  rewrite(folder / 'a.txt', 'A.txt 1\na.txt 2\n')
  assert len({whole, sampled, source.fingerprint()}) == 3
  files._contents.cache_clear()


def test_an_unsupervised_task(tmp_path):
  documents = ['one', ' \n', 'two']
  path = tmp_path / 'x.jsonl'
  path.write_text(''.join(json.dumps({'body': text, 'id': i}) + '\n' for i, text in enumerate(documents)))
  task = files.files(str(path), text_field='body', validation_path=str(path), name='mine')
  assert task.name == 'mine' and not task.supervised and task.source.splits == ('train', 'validation')
  records = task.source.random_access(task.source_split('validation'))
  examples = [list(task.examples(record)) for record in records]
  assert examples == [[{'text': 'one'}], [], [{'text': 'two'}]]
  other = files.files(str(path), text_field='boody').source.random_access('train')
  assert f"{path}: record 0: unknown field 'boody': did you mean 'body'?" in message(other.__getitem__, 0)


def test_a_supervised_task(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('question,answer\n"one, or two?",2\n')
  task = files.files(str(path), inputs_field='question', targets_field='answer', metrics=('accuracy',))
  assert task.supervised and task.metrics == ('accuracy',)
  (record,) = task.source.random_access('train')
  assert list(task.examples(record)) == [{'inputs': 'one, or two?', 'targets': '2'}]
  assert 'expected both or neither' in message(files.files, str(path), inputs_field='question')
  assert 'got a validation_path' in message(files.files, {'validation': 'x'}, validation_path='y')


@pytest.fixture
def configured(tmp_path, monkeypatch):
  """The task that a run with these gin bindings would read."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)

  def build(*bindings):
    sessions = []
    words = ['prog', '--gin_file=t5_tiny.gin', '--gin_file=data/files.gin', *(f'--gin.{text}' for text in bindings)]
    given = ('config', 'dry_run')
    assert command.run(words, 'runs.train.train', usage='', work=sessions.append, given=given) == 0
    call = next(call for call in calls.walk(sessions[0]._call) if call.target.endswith('.files'))
    return calls.build(call, sessions[0]._configuration.names.load)

  return build


def test_files_are_named_in_gin(configured):
  task = configured("files.path='/data/*.jsonl.gz'", "files.text_field='body'", 'files.validation_share=0.01')
  assert task.source == files.FilesSource({'train': '/data/*.jsonl.gz'}, fields=('body',), validation_share=0.01)
  task = configured(
    "files.path={'train': ['/a/*.tsv', '/b'], 'validation': '/c.tsv'}",
    "files.columns=['x', 'y']",
    "files.inputs_field='x'",
    "files.targets_field='y'",
    "files.metrics=('accuracy',)",
  )
  assert task.supervised and task.source.columns == ['x', 'y']
  assert task.source.path == {'train': ['/a/*.tsv', '/b'], 'validation': '/c.tsv'}
