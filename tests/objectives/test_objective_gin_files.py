"""The packaged files of objectives, given after the file of a run, make the objective that their name says."""

import pytest

from t5x_lite.cli import calls, command, environment, ginfiles
from t5x_lite.objectives.causal_lm import CausalLM
from t5x_lite.objectives.denoising import Denoising
from t5x_lite.objectives.masked_lm import MaskedLM
from t5x_lite.objectives.permutation_lm import PermutationLM
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.objectives.sentence_pairs import NextSentence, SentenceOrder
from t5x_lite.objectives.span_corruption import SpanCorruption
from t5x_lite.objectives.text_infilling import TextInfilling
from t5x_lite.objectives.ul2 import UL2

WHOLE = {'noise_density': 0.15, 'targets': 'whole'}
DROP = {'inputs': 'drop_noise_tokens', 'targets': 'drop_nonnoise_tokens'}
SAME = {'inputs': 'noise_span_to_sentinel', 'targets': 'nonnoise_span_to_sentinel'}
# The run before it, the objective, and how many tokens of text an example has.
FILES = {
  'span_corruption': ('t5_tiny', SpanCorruption(), 568),
  'prefix_lm': ('t5_tiny', PrefixLM(), 256),
  'causal_lm': ('gpt2_tiny', CausalLM(), None),
  'permutation_lm': ('xlnet_tiny', PermutationLM(), None),
  'masked_lm': ('bert_tiny', MaskedLM(), None),
  'whole_word_masking': ('bert_tiny', MaskedLM(unit='word'), None),
  'ngram_masking': ('bert_tiny', MaskedLM(unit='ngram'), None),
  'mlm_nsp': ('bert_tiny', NextSentence(), None),
  'mlm_sop': ('bert_tiny', SentenceOrder(MaskedLM(unit='ngram')), None),
  'iid_denoising': ('t5_tiny', Denoising(), 262),
  'drop_tokens': ('t5_tiny', Denoising(**DROP), 300),
  'drop_spans': ('t5_tiny', Denoising('spans', **DROP), 601),
  'replace_spans': ('t5_tiny', Denoising('spans', **SAME), 568),
  'bert_style': ('t5_tiny', Denoising(inputs='noise_token_to_random_token_or_sentinel', **WHOLE), 511),
  'mass_style': ('t5_tiny', Denoising(inputs='noise_token_to_sentinel', **WHOLE), 511),
  'deshuffling': ('t5_tiny', Denoising(noise_density=1.0, inputs='permute_noise_tokens', targets='whole'), 511),
  'text_infilling': ('t5_tiny', TextInfilling(), 511),
  'ul2': ('t5_tiny', UL2(), 320),
}


def test_every_file_is_looked_at():
  found = {path.stem for path in (ginfiles.packaged_folder() / 'objectives').glob('*.gin')}
  assert found == {*FILES, 'decoder'}  # which has no objective


@pytest.mark.parametrize('name', FILES)
def test_a_file_makes_its_objective(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)
  run, expected, raw_length = FILES[name]
  sessions = []
  words = ['prog', f'--gin_file={run}.gin', f'--gin_file=objectives/{name}.gin']
  given = ('config', 'dry_run')
  assert command.run(words, 'runs.train.train', usage='', work=sessions.append, given=given) == 0
  (session,) = sessions
  arguments = session._call.arguments['dataset'].arguments
  made = calls.build(arguments['objective'], session._configuration.names.load)
  assert made == expected and repr(made) == repr(expected)
  if raw_length is not None:
    text_length = arguments.get('text_length')
    assert (text_length or made.raw_length(arguments['task_feature_lengths'])) == raw_length
    assert (text_length is None) == (arguments.get('pack') != 'fill')
