import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives import corruptions
from t5x_lite.objectives.denoising import Denoising
from t5x_lite.objectives.span_corruption import SpanCorruption

TOKENS = np.arange(10, 16, dtype=np.int32)
NOISE = np.array([True, True, False, False, True, False])
X, Y, Z = 99_999, 99_998, 99_997


@pytest.mark.parametrize(
  'name, expected',
  [
    ('noise_token_to_sentinel', [X, X, 12, 13, X, 15]),
    ('noise_span_to_sentinel', [X, 12, 13, X, 15]),
    ('noise_span_to_unique_sentinel', [X, 12, 13, Y, 15]),
    ('drop_noise_tokens', [12, 13, 15]),
    ('nonnoise_span_to_sentinel', [10, 11, X, 14, X]),
    ('nonnoise_span_to_unique_sentinel', [10, 11, X, 14, Y]),
    ('drop_nonnoise_tokens', [10, 11, 14]),
    ('whole', [10, 11, 12, 13, 14, 15]),
  ],
)
def test_corruptions_are_those_of_the_published_tests(t5, name, expected):
  function = (corruptions.INPUTS | corruptions.TARGETS)[name]
  assert function(TOKENS, NOISE, np.random.default_rng(0), t5).tolist() == expected


@pytest.mark.parametrize(
  'name', ['noise_token_to_random_token', 'noise_token_to_gathered_token', 'permute_noise_tokens']
)
def test_random_corruptions_touch_noise_alone(t5, name):
  seen = set()
  for seed in range(100):
    made = corruptions.INPUTS[name](TOKENS, NOISE, np.random.default_rng(seed), t5)
    np.testing.assert_array_equal(made[~NOISE], TOKENS[~NOISE])
    seen |= set(made[NOISE].tolist())
    if name == 'permute_noise_tokens':
      assert sorted(made[NOISE]) == [10, 11, 14]
  expected = {'noise_token_to_gathered_token': set(TOKENS.tolist()), 'permute_noise_tokens': {10, 11, 14}}
  assert seen == expected.get(name, seen) and (name in expected or len(seen) > 250)


def test_bert_style_is_one_random_token_in_ten(t5):
  noise, tokens = np.ones(50_000, bool), np.arange(100, 50_100, dtype=np.int32)
  function = corruptions.INPUTS['noise_token_to_random_token_or_sentinel']
  made = function(tokens, noise, np.random.default_rng(0), t5)
  random = made[made != X]
  assert abs(len(random) / 50_000 - 0.1) < 5 * np.sqrt(0.09 / 50_000)
  assert random.min() >= 3 and random.max() > 99_000 and abs(random.mean() - 50_000) < 3000


def test_spans_make_the_examples_of_span_corruption(t5):
  for length, density in ((1, 0.15), (2, 0.15), (100, 0.5), (568, 0.15)):
    tokens = np.arange(100, 100 + length, dtype=np.int32)
    for seed in range(5):
      made = Denoising('spans', density)(tokens, np.random.default_rng(seed), t5)
      same = SpanCorruption(density)(tokens, np.random.default_rng(seed), t5)
      assert all(np.array_equal(made[name], same[name]) for name in same)


@pytest.mark.parametrize(
  'parameters, raw, targets',
  [
    ({}, 511, 192),  # the lengths of T5's own gin files
    ({'inputs': 'drop_noise_tokens', 'targets': 'drop_nonnoise_tokens'}, 511, 104),
    ({'noise_density': 0.5}, 511, 512),
    ({'inputs': 'noise_token_to_sentinel', 'targets': 'whole'}, 511, 512),
    ({'noise_density': 1.0, 'inputs': 'permute_noise_tokens', 'targets': 'whole'}, 511, 512),
    ({'noise_mask': 'spans'}, 568, 114),
    ({'noise_mask': 'spans', 'mean_noise_span_length': 10.0}, 591, 99),
  ],
)
def test_lengths_are_those_of_t5(parameters, raw, targets):
  objective = Denoising(**parameters)
  assert objective.raw_length({'inputs': 512, 'targets': targets}) == raw
  needed = objective.example_lengths(raw)[1]
  with pytest.raises(errors.UsageError, match=f'makes targets of length {needed}: got a feature length of'):
    objective.raw_length({'inputs': 512, 'targets': needed - 1})


@pytest.mark.parametrize('targets, mean, deviation', [('drop_nonnoise_tokens', 76.65, 8.07), (None, 142.5, 14.02)])
def test_independent_noise_is_rarely_drawn_again(t5_with, targets, mean, deviation):
  tokenizer, rng, tokens = t5_with(100), np.random.default_rng(0), np.arange(100, 611, dtype=np.int32)
  objective = Denoising() if targets is None else Denoising(targets=targets)
  lengths = np.array([len(objective(tokens, rng, tokenizer)['targets']) - 1 for _ in range(4000)])
  longest = objective.example_lengths(511)[1] - 1
  assert abs(lengths.mean() - mean) < 5 * deviation / np.sqrt(4000) + 0.1
  assert abs(lengths.std() - deviation) < 0.8
  assert lengths.max() <= longest and longest - mean < 3.2 * deviation


def test_sentinels_that_do_not_suffice(t5_with):
  tokens = np.arange(100, 611, dtype=np.int32)
  with pytest.raises(
    errors.UsageError, match=r'denoising of 511 tokens needs 1\d\d sentinels, but the tokenizer has 99'
  ):
    Denoising(noise_density=0.5)(tokens, np.random.default_rng(0), t5_with(99))
  made = Denoising(noise_density=0.15)(tokens, np.random.default_rng(0), t5_with(65))  # the mean: about 1 in 2 draws
  assert np.sum(made['inputs'] >= 99_900) <= 65


def test_the_mask_token_stands_in_where_there_are_no_sentinels(t5_with):
  tokenizer = t5_with(0)
  tokenizer.mask_id = 7
  made = Denoising(inputs='noise_token_to_sentinel', targets='whole')(
    np.arange(100, 200, dtype=np.int32), np.random.default_rng(0), tokenizer
  )
  assert np.any(made['inputs'] == 7)


@pytest.mark.parametrize(
  'parameters, message',
  [
    ({'noise_mask': 'span'}, "unknown noise mask of denoising 'span': did you mean 'spans'"),
    ({'inputs': 'drop_noise_token'}, "unknown inputs of denoising .* did you mean 'drop_noise_tokens'"),
    ({'targets': 'text'}, "unknown targets of denoising 'text'"),
    ({'noise_density': -0.1}, 'got noise_density -0.1'),
    ({'noise_density': 1.1}, 'expected 0 <= density <= 1'),
    ({'noise_mask': 'spans', 'noise_density': 1.1}, 'expected 0 <= density <= 1'),
    ({'noise_mask': 'spans', 'mean_noise_span_length': 0.5}, 'expected at least 1'),
  ],
)
def test_impossible_parameters(parameters, message):
  with pytest.raises(errors.UsageError, match=message):
    Denoising(**parameters)


def test_impossible_lengths():
  for lengths in ({'targets': 3}, {'inputs': 1, 'targets': 5}, {'inputs': 9}):
    with pytest.raises(errors.UsageError, match='expected inputs of at least 2, and targets'):
      Denoising().raw_length(lengths)
