"""The gin files of summaries, translation, tagging, dialogues and corpora: each names a task that is there."""

import pytest

from t5x_lite.cli import calls, command, environment
from t5x_lite.core import errors
from t5x_lite.data import mixtures, task

FINETUNE = ('models/t5_tiny.gin', 'runs/finetune.gin')
FLAGS = ('--gin.INITIAL_CHECKPOINT_PATH=/from', '--gin.TRAIN_STEPS=1', '--gin.VOCABULARY_PATH=spiece.model')


@pytest.fixture
def dataset(tmp_path, monkeypatch):
  """The `DatasetConfig` to train on that gin files and flags make."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'spiece.model').touch()
  monkeypatch.setattr(
    't5x_lite.data.vocabularies.sentencepiece_tokenizer.SentencePieceTokenizer.__init__', lambda self, **_: None
  )
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)

  def dataset(*arguments):
    sessions = []
    words = [word if word.startswith('--') else f'--gin_file={word}' for word in arguments]
    given = ('config', 'dry_run')
    assert command.run(['prog', *words], 'runs.train.train', usage='', work=sessions.append, given=given) == 0
    (session,) = sessions
    found = [call for call in calls.walk(session._call) if call.target.endswith('.DatasetConfig')]
    made = [calls.build(call, session._configuration.names.load) for call in found]
    return next(config for config in made if config.split == 'train')

  return dataset


@pytest.mark.parametrize(
  ('file', 'name'),
  [
    ('summarization', 'cnn_dailymail'),
    ('translation', 'wmt_t2t_ende'),
    ('entities', 'conll2003'),
    ('multilingual_translation', 'ted_multi'),
  ],
)
def test_files_of_tfds_sets_bind_their_task(dataset, file, name):
  config = dataset(*FINETUNE, f'data/{file}.gin', *FLAGS)
  entry = task.get(config.mixture_or_task_name)
  assert entry.name == name and entry.supervised
  assert set(config.task_feature_lengths) == {'inputs', 'targets'}


@pytest.mark.parametrize(
  ('file', 'name'),
  [
    ('multi30k', 'multi30k'),
    ('relations', 'semeval2010_task8'),
    ('events', 'litbank_events'),
    ('intents', 'snips'),
    ('dialogue', 'sgd'),
    ('knowledge', 'fb15k237'),
  ],
)
def test_files_of_other_sets_bind_original_files(dataset, file, name):
  config = dataset(*FINETUNE, f'data/{file}.gin', *FLAGS, '--gin.TASK_DIRECTORY=/data/set')
  assert config.mixture_or_task_name.name == name
  assert config.mixture_or_task_name.source.directory == '/data/set'


@pytest.mark.parametrize('file', ['common_crawl', 'bookcorpus', 'openwebtext'])
def test_files_of_local_corpora_read_what_they_are_given(dataset, file, tmp_path):
  for i in range(300):
    (tmp_path / f'{i}.txt').write_text(f'page {i}\n')
  config = dataset('t5_tiny.gin', f'data/{file}.gin', f'--gin.FILES={str(tmp_path / "*.txt")!r}')
  entry = task.get(config.mixture_or_task_name)
  assert entry.name == file and not entry.supervised
  counts = [entry.num_examples(split) for split in ('train', 'validation')]
  assert sum(counts) == 300 and counts[0] > 250


@pytest.mark.parametrize('name', ['common_crawl', 'bookcorpus', 'openwebtext'])
def test_corpora_that_tfds_has_not_name_their_gin_file(name):
  import t5x_lite.tasks.pretrain  # noqa: F401 (registers them)

  entry = task.get(name)
  with pytest.raises(errors.UsageError, match=f'data/{name}.gin'):
    entry.source.random_access(entry.source_split('train'))


def test_languages(dataset):
  assert dataset('t5_tiny.gin', 'data/mc4.gin').mixture_or_task_name == 'mc4'
  config = dataset('t5_tiny.gin', 'data/wikipedia_language.gin', '--gin.LANGUAGE=sw')
  assert config.mixture_or_task_name.name == 'wikipedia_sw'


@pytest.mark.parametrize(('file', 'equal'), [('t5_multitask', False), ('t5_multitask_equal', True)])
def test_multitask_files_bind_the_rates_of_t5(dataset, file, equal):
  config = dataset('t5_tiny.gin', f'data/{file}.gin', '--gin.UNSUPERVISED_RATE=710_000')
  entry = task.get(config.mixture_or_task_name)
  assert isinstance(entry, mixtures.Mixture) and entry.name == file
  rates = dict(entry.resolved()[0][1])
  assert rates['c4_en'] == (1 if equal else 710_000)
  assert rates['wmt15_enfr'] == (1 if equal else 2**19)
  assert len(mixtures.blend(entry).tasks) == len(rates) == 1 + 8 + 9 + 5


def test_a_temperature_evens_the_rates_of_t5(dataset):
  config = dataset('t5_tiny.gin', 'data/t5_multitask_temperature.gin', '--gin.TEMPERATURE=4.0')
  entry = task.get(config.mixture_or_task_name)
  assert entry.name == 't5_multitask_temperature'
  assert dict(entry.resolved()[0][1])['c4_en'] == 2 ** (21 / 4)
