"""Every packaged objective with every family: it makes full rows, or is refused when the config is read."""

import dataclasses
import json

import numpy as np
import pytest

from t5x_lite import inspect_data, train
from t5x_lite.cli import calls, command, environment, ginfiles
from t5x_lite.core import errors
from t5x_lite.data import pipeline

OBJECTIVES = sorted(path.stem for path in (ginfiles.packaged_folder() / 'objectives').glob('*.gin'))
MASKED = {'masked_lm', 'whole_word_masking', 'ngram_masking', 'mlm_nsp', 'mlm_sop'}
TEXT_TO_TEXT = set(OBJECTIVES) - MASKED - {'causal_lm', 'permutation_lm', 'decoder'}
LEGAL = {
  't5_tiny': TEXT_TO_TEXT,
  'gpt2_tiny': TEXT_TO_TEXT | {'causal_lm'},
  'bert_tiny': MASKED,
  'roberta_tiny': MASKED,
  'xlnet_tiny': {'permutation_lm'},
}
TOLD = {
  't5_tiny': ['SpanCorruption', 'PrefixLM', 'Denoising', 'TextInfilling', 'UL2'],
  'gpt2_tiny': ['CausalLM', 'PrefixLM', 'SpanCorruption', 'Denoising', 'TextInfilling', 'UL2'],
  'bert_tiny': ['MaskedLM', 'NextSentence', 'SentenceOrder'],
  'roberta_tiny': ['MaskedLM', 'NextSentence', 'SentenceOrder'],
  'xlnet_tiny': ['PermutationLM'],
}
ILLEGAL = [
  (run, name) for run, legal in LEGAL.items() for name in OBJECTIVES if name not in legal and name != 'decoder'
]


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
  """A cache in which nothing is built yet."""
  cache = tmp_path / 'cache'
  monkeypatch.setenv('T5X_LITE_CACHE', str(cache))
  return cache


@pytest.mark.parametrize(('run', 'name'), ILLEGAL)
def test_an_illegal_pair_is_refused_by_the_names_of_the_legal_ones(run, name, empty_cache, tmp_path, capsys):
  files = ['prog', f'--gin_file={run}.gin', f'--gin_file=objectives/{name}.gin', f'--gin.MODEL_DIR={tmp_path}/run']
  for main, flags in ((inspect_data.main, ('--num=1',)), (train.main, ('--dry_run',)), (train.main, ())):
    assert main([*files, *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: objective ') and 'makes examples that' in error
    expected = error.partition('expected ')[2]
    assert all(objective in expected for objective in TOLD[run])
  assert not list(empty_cache.glob('python_docs*')) and not list(empty_cache.glob('vocabularies*'))
  assert not (tmp_path / 'run').exists()


def test_inspection_holds_the_model_against_the_features(empty_cache, capsys):
  changed = ('--gin.FEATURES=@DecoderOnlyFeatures()', '--gin.OBJECTIVE=@CausalLM()')
  lengths = "--gin.TASK_FEATURE_LENGTHS={'targets': 64}"
  assert inspect_data.main(['prog', '--gin_file=bert_tiny.gin', *changed, lengths]) == 2
  assert 'model Bert cannot read DecoderOnlyFeatures: expected EncoderOnlyFeatures' in capsys.readouterr().err


# RoBERTa's features are BERT's.
LEGAL_PAIRS = [(run, name) for run, legal in LEGAL.items() if run != 'roberta_tiny' for name in sorted(legal)]


def dataset(monkeypatch, tmp_path, *files):
  """The training data of a run of these gin files, which is not started."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)
  sessions = []
  words = ['prog', *(f'--gin_file={file}.gin' for file in files)]
  assert command.run(words, 'runs.train.train', usage='', work=sessions.append, given=('config', 'dry_run')) == 0
  (session,) = sessions
  config = calls.build(session._call.arguments['dataset'], session._configuration.names.load)
  return dataclasses.replace(config, prefetch=0)


def files_of(run, name):
  """The gin files that a user gives."""
  needs = run == 'gpt2_tiny' and name != 'causal_lm'
  return (run, f'objectives/{name}', *(['objectives/decoder'] if needs else []))


@pytest.mark.parametrize(('run', 'name'), LEGAL_PAIRS)
def test_a_legal_pair_makes_full_rows(run, name, monkeypatch, tmp_path):
  """Of the embedded corpus at least 97% of all positions hold tokens: what README says of every objective."""
  iterator = pipeline.build(dataset(monkeypatch, tmp_path, *files_of(run, name)))
  rows = 0
  while rows < 120:
    batch = next(iterator)
    rows += len(next(iter(batch.values())))
    assert {key: (array.shape, array.dtype) for key, array in batch.items()} == {
      key: (leaf.shape, leaf.dtype) for key, leaf in iterator.spec.items()
    }
  statistics = iterator.statistics()
  assert statistics['useful_fraction'] >= 0.97, statistics['useful_fraction_per_side']
  (examples,), (truncated,) = statistics['examples_per_task'].values(), statistics['truncated_per_task'].values()
  if name in ('mlm_nsp', 'mlm_sop'):  # whole sentences are taken until there are enough tokens, then the rest is cut
    assert 0.5 * examples < truncated < examples
  else:
    assert truncated == 0


@pytest.mark.parametrize('name', ['ul2', 'text_infilling'])
def test_a_decoder_without_sentinels_is_told_how_to_get_them(name, monkeypatch, tmp_path):
  config = dataset(monkeypatch, tmp_path, 'gpt2_tiny', f'objectives/{name}')
  with pytest.raises(errors.UsageError, match=r'sentinels.*extra_ids = 100$'):
    pipeline.build(config)


def test_the_file_of_decoders_is_refused_by_an_encoder_decoder(capsys, tmp_path):
  words = ['prog', '--gin_file=t5_tiny.gin', '--gin_file=objectives/ul2.gin', '--gin_file=objectives/decoder.gin']
  assert train.main([*words, f'--gin.MODEL_DIR={tmp_path}/run', '--dry_run']) == 2
  assert "expected exactly ['inputs', 'targets'] (EncoderDecoderFeatures)" in capsys.readouterr().err


SMALL = {
  'gpt2_tiny': {'GptConfig.emb_dim': 16, 'GptConfig.mlp_dim': 32, 'GptConfig.num_heads': 2, 'GptConfig.head_dim': 8},
  't5_tiny': {'T5Config.emb_dim': 16, 'T5Config.mlp_dim': 32, 'T5Config.num_heads': 2, 'T5Config.head_dim': 8},
}


@pytest.mark.parametrize('name', ['iid_denoising', 'drop_tokens', 'text_infilling', 'ul2', 'prefix_lm'])
def test_examples_are_shown_alone_of_files_that_fill(name, monkeypatch, tmp_path):
  """As evaluation samples them: one a row, made of as much text as fits."""
  config = dataset(monkeypatch, tmp_path, *files_of('t5_tiny', name))
  config = dataclasses.replace(config, pack=False, batch_size=4)
  batches = pipeline.build(config)
  batch = next(batches)
  batches.close()
  segments = batch['encoder_segment_ids']
  assert segments.max() == 1 and segments.sum() > 0.2 * segments.size


@pytest.mark.slow
@pytest.mark.parametrize(
  ('run', 'name'),
  [*(('gpt2_tiny', name) for name in sorted(TEXT_TO_TEXT)), ('t5_tiny', 'ul2'), ('t5_tiny', 'text_infilling')],
)
def test_a_pair_trains(run, name, tmp_path):
  bindings = {
    **SMALL[run],
    'BATCH_SIZE': 8,
    'TRAIN_STEPS': 2,
    'WARMUP_STEPS': 1,
    'EVAL_PERIOD': 2,
    'EVAL_STEPS': 1,
    'EVAL_AT_START': False,
    'CHECKPOINT_PERIOD': 2,
    'MODEL_DIR': tmp_path,
  }
  files = (f'--gin_file={file}.gin' for file in files_of(run, name))
  assert train.main(['prog', *files, *(f'--gin.{key}={value}' for key, value in bindings.items())]) == 0
  steps = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert all(np.isfinite(row['loss']) for row in steps if 'loss' in row)
  assert {row['step'] for row in steps if row['split'] == 'validation'} == {2}
