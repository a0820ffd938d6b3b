import types

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives.permutation_lm import PermutationLM

CLS, SEP = 5, 6
TOKENIZER = types.SimpleNamespace(cls_id=CLS, sep_id=SEP)


def permute(tokens, seed=0, **parameters):
  return PermutationLM(**parameters)(np.asarray(tokens, np.int32), np.random.default_rng(seed), TOKENIZER)


def runs(flags):
  """Lengths of the runs of True."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
  return edges[1::2] - edges[::2]


@pytest.mark.parametrize('length', [1, 2, 6, 7, 126, 510])
def test_form_of_an_example(length):
  tokens = np.random.default_rng(0).integers(10, 1000, length)
  for seed in range(20):
    made = permute(tokens, seed)
    assert made.keys() == set(PermutationLM.features)
    assert all(array.dtype == np.int32 and array.shape == (length + 2,) for array in made.values())
    np.testing.assert_array_equal(made['targets'], [*tokens, SEP, CLS])
    np.testing.assert_array_equal(made['token_types'], [0] * (length + 1) + [2])
    predicted, order = made['predicted'] == 1, made['order']
    assert predicted.any() and not predicted[-2:].any()
    ordered = predicted.copy()
    ordered[-2:] = True
    assert np.all(order[~ordered] == 0)  # context
    np.testing.assert_array_equal(np.sort(order[ordered]), np.arange(1, ordered.sum() + 1))


def test_a_sixth_of_the_tokens_is_predicted_in_spans():
  shares, lengths = [], set()
  for seed in range(300):
    spans = PermutationLM().spans(510, np.random.default_rng(seed))
    shares.append(spans.mean())
    lengths |= set(runs(spans).tolist())
  assert abs(np.mean(shares) - 1 / 6) < 0.003
  assert {1, 2, 3, 4, 5} <= lengths


@pytest.mark.parametrize('longest, factor', [(1, 2), (3, 4), (5, 6)])
def test_spans_lie_in_stretches_of_their_own(longest, factor):
  for seed in range(50):
    spans = PermutationLM(longest, factor).spans(2000, np.random.default_rng(seed))
    assert runs(spans).max() <= 2 * longest  # two stretches may touch
    assert abs(spans.mean() - 1 / factor) < 0.03


def test_the_order_is_random_and_the_generator_alone_decides():
  first, second, third = (permute(np.arange(100, 300), seed) for seed in (1, 1, 2))
  for name in PermutationLM.features:
    np.testing.assert_array_equal(first[name], second[name])
  assert not np.array_equal(first['order'], third['order'])
  places = [order[order > 0] for order in (permute(np.arange(100, 300), seed)['order'] for seed in range(30))]
  assert 0.4 < np.mean([np.mean(np.diff(place) > 0) for place in places]) < 0.6


def test_separators_between_documents_are_ordered_but_not_predicted():
  for seed in range(50):
    made = permute([50, SEP, 51, SEP], seed)
    assert set(np.flatnonzero(made['predicted'])) <= {0, 2}
    assert np.all(made['order'][[1, 3, 4, 5]] > 0)
  assert permute([SEP, SEP])['predicted'].sum() == 0


def test_lengths_and_separator():
  assert PermutationLM().raw_length({'targets': 128}) == 126
  assert PermutationLM().separator(TOKENIZER) == SEP
  with pytest.raises(errors.UsageError, match='targets length of 2, expected at least 3'):
    PermutationLM().raw_length({'targets': 2})


@pytest.mark.parametrize('parameters', [{'max_span_length': 0}, {'context_factor': 1}])
def test_impossible_parameters(parameters):
  with pytest.raises(errors.UsageError, match='permutation LM: got'):
    PermutationLM(**parameters)
