import collections
import types

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives.prefix_lm import PrefixLM

EOS = 1
TOKENIZER = types.SimpleNamespace(eos_id=EOS)


def split(length, seed=0):
  tokens = np.arange(10, 10 + length, dtype=np.int32)
  return tokens, PrefixLM()(tokens, np.random.default_rng(seed), TOKENIZER)


@pytest.mark.parametrize('length', [1, 2, 3, 50])
def test_the_parts_are_the_text_each_with_eos(length):
  for seed in range(20):
    tokens, made = split(length, seed)
    inputs, targets = made['inputs'], made['targets']
    assert made.keys() == set(PrefixLM.features) and inputs.dtype == targets.dtype == np.int32
    assert inputs[-1] == targets[-1] == EOS and len(targets) > 1
    np.testing.assert_array_equal(np.concatenate([inputs[:-1], targets[:-1]]), tokens)
    assert length == 1 or len(inputs) > 1


def test_every_cut_is_equally_likely():
  rng, tokens = np.random.default_rng(0), np.arange(10, 16, dtype=np.int32)
  cuts = collections.Counter(len(PrefixLM()(tokens, rng, TOKENIZER)['inputs']) - 1 for _ in range(5000))
  assert set(cuts) == {1, 2, 3, 4, 5}
  assert all(abs(count - 1000) < 5 * 28 for count in cuts.values())  # five standard deviations


@pytest.mark.parametrize('lengths', [{'inputs': 32, 'targets': 32}, {'inputs': 32, 'targets': 20}, {'targets': 32}])
def test_every_cut_fits(lengths):
  raw = PrefixLM().raw_length(lengths)
  longest = collections.Counter()
  for seed in range(300):
    _, made = split(raw, seed)
    assert len(made['inputs']) + len(made['targets']) <= sum(lengths.values())
    for name in lengths if 'inputs' in lengths else ():
      assert len(made[name]) <= lengths[name]
    longest['both'] = max(longest['both'], len(made['inputs']) + len(made['targets']))
    longest['inputs'] = max(longest['inputs'], len(made['inputs']))
  assert longest['both'] == raw + 2
  assert longest['inputs'] == raw  # of the shortest suffix


@pytest.mark.parametrize('lengths', [{'targets': 3}, {'inputs': 1, 'targets': 9}, {'inputs': 9, 'targets': 1}])
def test_impossible_lengths(lengths):
  with pytest.raises(errors.UsageError, match='prefix LM: got task_feature_lengths'):
    PrefixLM().raw_length(lengths)


def test_a_lower_density_cuts_in_the_last_part():
  rng, tokens = np.random.default_rng(0), np.arange(10, 111, dtype=np.int32)
  rests = [len(PrefixLM(0.25)(tokens, rng, TOKENIZER)['targets']) - 1 for _ in range(5000)]
  assert set(rests) == set(range(1, 52))  # T5: from round((1 - 2 * 0.25) * 100) inputs on
  assert abs(np.mean(rests) - 26) < 5 * 14.7 / np.sqrt(5000)
  assert PrefixLM(0.25).raw_length({'inputs': 32, 'targets': 20}) == 32


def test_a_higher_density_cuts_in_the_first_part():
  rng, tokens = np.random.default_rng(0), np.arange(10, 111, dtype=np.int32)
  prefixes = [len(PrefixLM(0.75)(tokens, rng, TOKENIZER)['inputs']) - 1 for _ in range(5000)]
  assert set(prefixes) == set(range(1, 51))
  assert abs(np.mean(prefixes) - 25.5) < 5 * 14.4 / np.sqrt(5000)
  assert PrefixLM(0.75).raw_length({'inputs': 20, 'targets': 32}) == 32


def test_the_name_in_fingerprints_is_stable():
  assert repr(PrefixLM()) == 'PrefixLM()' and repr(PrefixLM(0.25)) == 'PrefixLM(noise_density=0.25)'


@pytest.mark.parametrize('density', [-0.1, 1.1, float('nan')])
def test_impossible_densities(density):
  with pytest.raises(errors.UsageError, match='prefix LM: got noise_density'):
    PrefixLM(density)
