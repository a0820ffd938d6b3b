"""`python -m t5x_lite.prepare`: each command, what it prints, one line for what is bad, and a kill -9 in the middle."""

from __future__ import annotations

import bz2
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from t5x_lite import inspect_data, prepare
from t5x_lite.cli import environment
from t5x_lite.data import sources, task, tokenised
from t5x_lite.data.preparation import vocabulary
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import SentencePieceTokenizer
from t5x_lite.tasks import originals

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKENISE = ('tokenise', '--gin_file=data/embedded.gin', '--gin.tokenise_task.num_shards=12')


@pytest.fixture
def quiet(monkeypatch):
  """The process is set up by the tests."""
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)


def run(*words):
  return prepare.main(['prepare', *map(str, words)])


def test_help_of_all_and_of_each(capsys, quiet):
  assert run('--help') == 0
  text = capsys.readouterr().out
  for name in ('embedded', 'convert', 'tokenise', 'vocabulary', 'tfds'):
    assert f'  {name}: ' in text
    assert run(name, '--help') == 0
    assert '--gin_file' in capsys.readouterr().out
  assert run() == 2


@pytest.mark.parametrize(
  ('words', 'expected'),
  [
    (['tokenize'], "unknown command 'tokenize': did you mean 'tokenise'?"),
    (['tokenise'], 'no directory: choose one with --directory'),
    (['tokenise', '--directory=x'], 'MIXTURE_OR_TASK_NAME is required'),
    (['tokenise', '--directory=x', '--workers=0'], 'workers'),
    (
      [*TOKENISE, '--directory=x', '--splits=tain'],
      "unknown split of task 'embedded_text' 'tain': did you mean 'train'?",
    ),
    (['convert', '--dataset=tiny'], 'no target: choose one with --target'),
    (['convert', '--dataset=tiny', '--target=x', '--data_dir=.'], "data set 'tiny' is not prepared"),
    (['embedded', '--gin.TRAIN_STEPS=3'], 'TRAIN_STEPS'),
    (['vocabulary', '--gin_file=data/embedded.gin'], 'no target: choose one with --target'),
    (['vocabulary', '--gin_file=data/files.gin', '--gin.files.path=none.txt', '--target=x'], 'none.txt'),
  ],
)
def test_mistakes_are_one_line(words, expected, tmp_path, monkeypatch, capsys, quiet):
  monkeypatch.chdir(tmp_path)
  assert run(*words) == 2
  error = capsys.readouterr().err
  assert expected in error and error.count('\n') == 1 and error.startswith('error: ')
  assert not list(tmp_path.rglob('*.array_record'))


def test_the_embedded_set(capsys, quiet):
  assert run('embedded') == 0
  text = capsys.readouterr().out
  assert sources.EmbeddedSource().fingerprint() in text and str(sources.EmbeddedSource().folder()) in text
  assert 'vocabulary: ' in text and '(4100 ids)' in text


def test_what_is_there_of_a_mixture(capsys, quiet, tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  monkeypatch.setenv('HOME', str(tmp_path))
  assert run('check', '--gin_file=data/glue.gin') == 2
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("glue_cola: data set 'glue/cola:2.0.0' is not prepared")
  assert any(line.startswith('glue_ax: ') for line in lines) and lines[-1] == '0 of 10 tasks are there'
  assert run('check', '--gin_file=data/embedded_mixture.gin') == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == '3 of 3 tasks are there' and lines[0].startswith('embedded_text: there (')


def test_a_vocabulary_of_ones_own(tmp_path, monkeypatch, capsys, quiet):
  monkeypatch.chdir(tmp_path)
  words = ['red', 'green', 'blue', 'small', 'large', 'round', 'square', 'house', 'tree', 'river']
  lines = [f'the {a} {b} is {c} é' for a in words for b in words for c in words]
  pathlib.Path('text.txt').write_text('\n'.join(lines))
  command = ('vocabulary', '--gin_file=data/files.gin', '--gin.files.path=text.txt', '--target=out/spiece.model')
  assert run(*command, '--size=5000') == 2  # so many pieces this text does not have
  error = capsys.readouterr().err
  assert error.startswith('error: cannot train a vocabulary of 5000 pieces on files: ') and error.count('\n') == 1
  assert not pathlib.Path('out').exists()
  assert run(*command, '--size=360', '--symbols=<2de>', '--byte_fallback') == 0
  assert '(360 pieces and 100 sentinels)' in capsys.readouterr().out
  made = SentencePieceTokenizer('out/spiece.model')
  ids = made.encode('<2de> the red house 漢')
  assert made.decode(ids) == '<2de> the red house 漢' and 2 not in ids  # bytes, not unknown
  assert len(made.encode('<2de>')) <= 2
  before = pathlib.Path('out/spiece.model').read_bytes()
  assert run(*command, '--size=360') == 2
  assert 'is there already' in capsys.readouterr().err
  assert pathlib.Path('out/spiece.model').read_bytes() == before and os.listdir('out') == ['spiece.model']


def test_a_vocabulary_is_of_all_the_data_however_long_its_records_are():
  records = [{'text': f'record {index}\n' * 50} for index in range(1000)]
  source = originals.OriginalSource(lambda *_: records, '.', ('train',))
  member = task.Task('long', source, lambda record: record)
  lines = list(vocabulary._training_lines([member], 2000))
  seen = {int(line.split()[1]) for line in lines}
  assert len(lines) == 2000 and len(seen) == 40 and min(seen) < 100 and max(seen) > 900


def test_a_mixture_is_tokenised_and_read_by_gin(tmp_path, capsys, quiet):
  mixture = ('--gin_file=t5_tiny.gin', '--gin_file=data/embedded_mixture.gin')
  assert run('tokenise', *mixture, f'--directory={tmp_path}', '--workers=1') == 0
  assert '@tokenised()' in capsys.readouterr().out
  read = ('--gin_file=data/tokenised.gin', f"--gin.TOKENISED_PATH='{tmp_path}'")
  found = []
  for more in ((), read):
    assert inspect_data.main(['inspect', *mixture, *more, '--num=1', '--hash=2', '--json']) == 0
    found.append(json.loads(capsys.readouterr().out))
  for name in ('batch_hashes', 'document_order_hash'):
    assert found[0][name] == found[1][name]
  vocabulary = '--gin.embedded_vocabulary.size=3000'
  assert inspect_data.main(['inspect', *mixture, *read, vocabulary]) == 2
  assert 'its ids are of the vocabulary' in capsys.readouterr().err


def start(directory, *more, **options):
  return subprocess.Popen(
    [sys.executable, '-u', '-m', 't5x_lite.prepare', *TOKENISE, f'--directory={directory}', *more],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    text=True,
    **options,
  )


@pytest.mark.slow
def test_after_kill_9_it_goes_on_with_any_number_of_workers(tmp_path):
  process = start(tmp_path / 'ids', '--workers=2')
  assert 'shard 1 of 24' in process.stdout.readline()
  os.kill(process.pid, signal.SIGKILL)
  process.communicate(timeout=60)  # the workers have its output too: they have ended
  there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'ids').glob('*.array_record')}
  assert 0 < len(there) < 24 and not (tmp_path / 'ids' / tokenised.INFO).exists()
  process = start(tmp_path / 'ids', '--workers=1')
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0 and 'of 24 shards are there already' in output and 'shard 24 of 24' in output
  assert there == {name: (tmp_path / 'ids' / name).stat().st_mtime_ns for name in there}
  process = start(tmp_path / 'whole', '--workers=2')
  process.communicate(timeout=120)
  one, other = (
    {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
    for name in ('ids', 'whole')
  )
  assert one == other and len(one) == 25


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='finds its workers in /proc')
def test_ctrl_c_and_a_worker_that_is_killed(tmp_path):
  for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 2)):
    process = start(tmp_path / str(number), '--workers=2', stderr=subprocess.PIPE)
    assert 'shard 1 of 24' in process.stdout.readline()
    if number is None:
      workers = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
      spawned = [pid for pid in workers if b'spawn_main' in pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()]
      os.kill(int(spawned[0]), signal.SIGKILL)
    else:
      process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == expected and error.count('\n') == 1, error
    assert number is not None or 'out of memory' in error


def test_without_beam_the_extra_is_named(tmp_path, monkeypatch, capsys, quiet):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  monkeypatch.delitem(sys.modules, 'apache_beam.options.pipeline_options', raising=False)
  assert run('tfds', '--dataset=c4/en:3.1.0', f'--data_dir={tmp_path}') == 2
  assert 'install t5x_lite[beam]' in capsys.readouterr().err


NOTES = '''
import tensorflow_datasets as tfds


class BeamNotes(tfds.core.GeneratorBasedBuilder):
  """Lines of a file."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'notes.txt'

  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'text': tfds.features.Text()}))

  def _split_generators(self, dl_manager, pipeline):
    return {'train': self._generate_examples(dl_manager.manual_dir / 'notes.txt')}

  def _generate_examples(self, path):
    import apache_beam as beam

    lines = beam.Create([path]) | beam.FlatMap(lambda name: name.read_text().splitlines())
    return lines | beam.Map(lambda line: (line, {'text': line}))
'''


@pytest.fixture
def beam(tmp_path, monkeypatch):
  """Apache Beam, no network, and no caches of TFDS in the home folder."""
  pytest.importorskip('apache_beam')
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.syspath_prepend(tmp_path)


def test_a_builder_of_the_users_with_the_direct_runner(tmp_path, capsys, quiet, beam):
  (tmp_path / 'beam_notes_builder.py').write_text(NOTES)
  (tmp_path / 'notes.txt').write_text('\n'.join(f'note {i}' for i in range(20)))
  words = ['tfds', '--dataset=beam_notes:1.0.0', f'--data_dir={tmp_path / "data"}', f'--manual_dir={tmp_path}']
  assert run(*words, '--module=beam_notes_builder', '--beam_options=direct_num_workers=1') == 0
  assert capsys.readouterr().out.endswith('beam_notes/1.0.0: complete\n')
  records = sources.TfdsSource('beam_notes:1.0.0', data_dir=str(tmp_path / 'data')).random_access('train')
  assert sorted(record['text'] for record in records) == sorted(f'note {i}' for i in range(20))
  for flag, expected in (
    ('--runner=Dirct', 'unknown Beam runner'),
    ('--dataset=beam_note', "did you mean 'beam_notes'?"),
    ('--module=nowhere', "no module 'nowhere'"),
  ):
    assert run(*words, '--module=beam_notes_builder', flag) == 2
    assert expected in capsys.readouterr().err


PAGE = '<page><title>{0}</title><ns>0</ns><id>{1}</id><revision><id>{1}</id><text>{2}</text></revision></page>'


def test_wikipedia_from_a_small_dump(tmp_path, capsys, quiet, beam, monkeypatch):
  pytest.importorskip('mwxml')
  pytest.importorskip('mwparserfromhell')
  import tensorflow_datasets as tfds
  import tensorflow_datasets.text

  pages = [
    PAGE.format('Łódź', 1, "'''Łódź''' is a [[city]].&lt;ref&gt;x&lt;/ref&gt;"),
    PAGE.format('B', 2, '#REDIRECT [[A]]'),
  ]
  site = '<siteinfo><sitename>W</sitename><namespaces><namespace key="0" case="first-letter"/></namespaces></siteinfo>'
  schema = 'xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10"'
  dump = f'<mediawiki {schema}>{site}{"".join(pages)}</mediawiki>'
  (tmp_path / 'pages.xml.bz2').write_bytes(bz2.compress(dump.encode()))
  job = {'status': 'done', 'files': {'pages.xml.bz2': {'size': 1}}}
  (tmp_path / 'dumpstatus.json').write_text(json.dumps({'jobs': {'articlesmultistreamdump': job}}))
  manager = tfds.download.DownloadManager
  monkeypatch.setattr(manager, 'download_and_extract', lambda self, urls: {'info': tmp_path / 'dumpstatus.json'})
  monkeypatch.setattr(manager, 'download', lambda self, urls: {'xml': [str(tmp_path / 'pages.xml.bz2')]})
  name = 'wikipedia/20230601.de:1.0.0'
  assert run('tfds', f'--dataset={name}', f'--data_dir={tmp_path / "data"}') == 0
  records = sources.TfdsSource(name, data_dir=str(tmp_path / 'data')).random_access('train')
  assert [(record['title'], record['text']) for record in records] == [('Łódź', 'Łódź is a city.')]
