import types

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives.masked_lm import MaskedLM

CLS, SEP, MASK = 5, 6, 7
TOKENIZER = types.SimpleNamespace(vocab_size=1000, pad_id=0, cls_id=CLS, sep_id=SEP, mask_id=MASK)


def mask(tokens, seed=0, **parameters):
  return MaskedLM(**parameters)(np.asarray(tokens, np.int32), np.random.default_rng(seed), TOKENIZER)


@pytest.mark.parametrize('length', [1, 2, 5, 126, 510])
def test_the_number_of_predictions_is_that_of_bert(length):
  tokens = np.random.default_rng(0).integers(10, 1000, length)
  for seed in range(5):
    made = mask(tokens, seed)
    assert made.keys() == set(MaskedLM.features)
    assert all(array.dtype == np.int32 and array.shape == (length + 2,) for array in made.values())
    assert made['predicted'].sum() == max(1, round((length + 2) * 0.15))
  assert MaskedLM().num_predictions(512) == 77 and MaskedLM().num_predictions(128) == 19


def test_the_targets_are_the_text_in_its_frame_and_differ_only_where_predicted():
  tokens = np.arange(100, 200)
  made = mask(tokens)
  np.testing.assert_array_equal(made['targets'], [CLS, *tokens, SEP])
  same = made['inputs'] == made['targets']
  assert np.all(same | (made['predicted'] == 1))
  assert 0 < np.sum(~same) <= made['predicted'].sum()


def test_special_tokens_are_never_predicted():
  tokens = [SEP, 50, SEP, MASK, CLS, 0, 51]
  for seed in range(50):
    made = mask(tokens, seed, mask_probability=0.9)
    np.testing.assert_array_equal(np.flatnonzero(made['predicted']), [2, 7])
  assert mask([SEP, SEP])['predicted'].sum() == 0


def test_every_position_is_as_likely_and_fares_as_bert_says():
  tokens, rounds = np.arange(100, 198), 600
  predicted, hidden, kept = np.zeros(100), 0, 0
  random_tokens = []
  for seed in range(rounds):
    made = mask(tokens, seed)
    predicted += made['predicted']
    chosen = made['predicted'] == 1
    hidden += np.sum(made['inputs'][chosen] == MASK)
    same = made['inputs'][chosen] == made['targets'][chosen]
    kept += np.sum(same)
    random_tokens += made['inputs'][chosen & (made['inputs'] != made['targets']) & (made['inputs'] != MASK)].tolist()
  total = rounds * 15
  assert predicted.sum() == total
  assert np.all(np.abs(predicted[1:-1] - total / 98) < 5 * np.sqrt(total / 98))
  for count, share in ((hidden, 0.8), (kept, 0.1), (len(random_tokens), 0.1)):
    assert abs(count - share * total) < 5 * np.sqrt(total * share * (1 - share))
  assert min(random_tokens) < 50 and max(random_tokens) > 950  # of the whole vocabulary
  assert len(set(random_tokens)) > 400


def test_shares_can_be_set():
  made = mask(np.arange(100, 200), mask_share=1.0, random_share=0.0)
  assert np.all(made['inputs'][made['predicted'] == 1] == MASK)
  made = mask(np.arange(100, 200), mask_share=0.0, random_share=0.0)
  np.testing.assert_array_equal(made['inputs'], made['targets'])


def test_generator_alone_decides():
  first, second, third = (mask(np.arange(100, 300), seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first['inputs'], second['inputs'])
  assert not np.array_equal(first['predicted'], third['predicted'])


def test_lengths_and_separator():
  assert MaskedLM().raw_length({'inputs': 128}) == 126
  assert MaskedLM().separator(TOKENIZER) == SEP
  with pytest.raises(errors.UsageError, match='inputs length of 2, expected at least 3'):
    MaskedLM().raw_length({'inputs': 2})


@pytest.mark.parametrize(
  'parameters',
  [
    {'mask_probability': 0.0},
    {'mask_probability': 1.1},
    {'mask_share': 0.95},
    {'random_share': -0.1},
    {'mask_share': float('nan')},
  ],
)
def test_impossible_parameters(parameters):
  with pytest.raises(errors.UsageError, match='masked LM: got'):
    MaskedLM(**parameters)
