"""The gin files of GLUE, SuperGLUE, SQuAD and RACE: what they bind, and batches from original files."""

import importlib.util
import pathlib

import pytest

from t5x_lite.cli import calls, command, environment
from t5x_lite.data import mixtures, pipeline, task

_SPEC = importlib.util.spec_from_file_location(
  'original_folders', pathlib.Path(__file__).with_name('original_folders.py')
)
folders = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(folders)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
  """The `DatasetConfig` to train on that gin files and flags make."""
  monkeypatch.chdir(tmp_path)
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


FINETUNE = ('models/t5_tiny.gin', 'runs/finetune.gin')
FLAGS = ('--gin.INITIAL_CHECKPOINT_PATH=/from', '--gin.TRAIN_STEPS=1', '--gin.VOCABULARY_PATH=spiece.model')


@pytest.mark.parametrize(
  ('file', 'name', 'targets'),
  [
    ('glue', 'glue_v002_proportional', 84),
    ('super_glue', 'super_glue_v102_proportional', 62),
    ('squad', 'squad', 97),
    ('race', 'race', 64),
  ],
)
def test_files_bind_their_mixture_and_the_lengths_of_t5(dataset, file, name, targets, tmp_path, monkeypatch):
  (tmp_path / 'spiece.model').touch()
  monkeypatch.setattr(
    't5x_lite.data.vocabularies.sentencepiece_tokenizer.SentencePieceTokenizer.__init__', lambda self, **_: None
  )
  config = dataset(*FINETUNE, f'data/{file}.gin', *FLAGS)
  assert config.mixture_or_task_name == name
  assert config.task_feature_lengths == {'inputs': 512, 'targets': targets}
  assert all(task.get(member.name).supervised for member in mixtures.blend(name).tasks)


def test_batches_are_made_of_original_files(dataset, tmp_path):
  folder = folders.write(tmp_path / 'SST-2', {'train.tsv': 'sentence\tlabel\nfine and good\t1\nbad and worse\t0\n'})
  config = dataset(
    *FINETUNE,
    *('data/glue.gin', 'data/embedded.gin', 'data/original_files.gin'),
    *FLAGS,
    *('--gin.TASK_NAME=glue_sst2', f'--gin.TASK_DIRECTORY={folder}', '--gin.BATCH_SIZE=2'),
  )
  assert isinstance(config.mixture_or_task_name, task.Task) and config.name == 'glue_sst2'
  batches = pipeline.build(config)
  try:
    batch = next(batches)
  finally:
    batches.close()
  text = config.tokenizer.decode(batch['encoder_input_tokens'][0])
  assert 'sst2 sentence: ' in text and ('fine and good' in text or 'bad and worse' in text)


@pytest.mark.parametrize(
  ('benchmark', 'config', 'head', 'key'),
  [
    ('glue', 'qnli', 'classification', 'encoder_label'),
    ('glue', 'stsb', 'regression', 'encoder_label_value'),
    ('super_glue', 'copa', 'multiple_choice', 'encoder_label'),
  ],
)
def test_heads_read_the_tasks_of_the_same_gin_files(dataset, benchmark, config, head, key, tmp_path):
  """Batches from the original files, with a published vocabulary."""
  pytest.importorskip('tokenizers')
  if benchmark == 'glue':
    folder = folders.write(tmp_path / 'set', folders.GLUE[config])
  else:
    folder = folders.write(tmp_path / 'set', {'train.jsonl': folders.json_lines(folders.SUPER_GLUE[config])})
  vocabulary = pathlib.Path(__file__).parents[1] / 'golden/tokenizers/bert'
  made = dataset(
    *('bert_tiny.gin', f'data/{benchmark}.gin', 'data/original_files.gin', 'data/published_vocabulary.gin'),
    *('data/encoder_heads.gin', f'--gin.HEAD={head}', f'--gin.TASK_NAME={benchmark}_{config}'),
    *(f'--gin.TASK_DIRECTORY={folder}', f'--gin.VOCABULARY_PATH={vocabulary}', '--gin.BATCH_SIZE=2'),
  )
  assert made.task_feature_lengths == {'inputs': 384}
  batches = pipeline.build(made)
  batch = next(batches)
  batches.close()
  assert batch['encoder_input_tokens'].shape == (2, 384) and key in batch
