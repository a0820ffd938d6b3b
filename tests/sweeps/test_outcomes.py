import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import outcomes
from t5x_lite.sweeps.outcomes import Outcome


def test_outcomes_come_back_as_they_were_written(tmp_path):
  assert outcomes.read(tmp_path) == []
  rows = [
    Outcome('baseline', 0, outcomes.COMPLETE, {'loss': 1.5}, {'steps': 10.0}),
    Outcome('größer', 1, outcomes.DIVERGED, note='the loss is not finite'),
  ]
  outcomes.write(tmp_path, rows)
  assert outcomes.read(tmp_path) == rows
  outcomes.write(tmp_path, [])
  assert outcomes.read(tmp_path) == []
  outcomes.write(tmp_path, rows[:1])
  assert outcomes.read(tmp_path) == rows[:1]
  assert [path.name for path in tmp_path.iterdir()] == [outcomes.OUTCOMES]


def test_what_is_not_finite_is_no_metric(tmp_path):
  outcomes.write(tmp_path, [Outcome('a', 0, outcomes.COMPLETE, {'loss': float('nan'), 'accuracy': 0.5})])
  assert outcomes.read(tmp_path)[0].metrics == {'accuracy': 0.5}


def test_a_broken_line_is_named(tmp_path):
  outcomes.write(tmp_path, [Outcome('a', 0, outcomes.COMPLETE)])
  with (tmp_path / outcomes.OUTCOMES).open('a') as file:
    file.write('{"arm": "b", "se\n')
  with pytest.raises(UsageError, match=r'outcomes\.jsonl, line 2: no outcome'):
    outcomes.read(tmp_path)


def test_an_unknown_status_is_refused():
  with pytest.raises(ValueError, match='expected one of complete, diverged, failed'):
    Outcome('a', 0, 'done')


@pytest.mark.parametrize(
  'name',
  [
    'loss',
    'perplexity',
    'embedded_text/loss',
    'eval_bits_per_byte',
    'seconds',
    'a/b/pseudo_bits_per_byte_of_continuation',
    'text/nll',
    'speech/wer',
    'sts/rmse',
    'text/bits_per_token',
    'mlm_loss',
  ],
)
def test_of_these_less_is_better(name):
  assert outcomes.less_is_better(name)


@pytest.mark.parametrize('name', ['accuracy', 'score', 'glue_cola/matthews_corrcoef', 'lossless', 'bleu', 'rougeLsum'])
def test_of_those_more_is_better(name):
  assert not outcomes.less_is_better(name)
