"""Every packaged objective with every family: what cannot go together is refused when the config is read."""

import pytest

from t5x_lite import inspect_data, train
from t5x_lite.cli import ginfiles

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
