import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives.text_infilling import TextInfilling


def test_span_lengths_are_poisson_up_to_the_last():
  objective, rng = TextInfilling(), np.random.default_rng(0)
  lengths, masks = [], []
  for _ in range(400):
    spans = objective.span_lengths(1000, rng)
    assert spans.sum() == 300
    lengths += spans.tolist()
    masks.append(len(spans))
  assert abs(np.mean(masks) - 100.3) < 1.5  # 300 / 3, and the last one of them is cut
  shares = np.bincount(lengths, minlength=12) / len(lengths)
  expected = np.exp(-3.0) * np.array([1, 3, 4.5, 4.5, 3.375, 2.025])
  assert np.all(np.abs(shares[:6] - expected) < 0.01)


def test_empty_spans_are_mask_tokens_too(t5):
  mask, tokens = t5.sentinel_id(0), np.arange(100, 600, dtype=np.int32)
  inserted = 0
  for seed in range(20):
    inputs = TextInfilling()(tokens, np.random.default_rng(seed), t5)['inputs'][:-1]
    places = np.flatnonzero(inputs == mask)
    inside = places[(places > 0) & (places < len(inputs) - 1)]
    inserted += np.sum(inputs[inside + 1] - inputs[inside - 1] == 1)
  assert 20 < inserted < 80  # 20 x 50 spans, one in twenty empty


def test_every_arrangement_is_as_likely(t5):
  # Four tokens, one of them masked: the mask has any of the four places.
  counts = np.zeros(4)
  for seed in range(4000):
    made = TextInfilling(0.25)(np.arange(100, 104, dtype=np.int32), np.random.default_rng(seed), t5)
    counts[np.argmax(made['inputs'] == t5.sentinel_id(0))] += 1
  assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(750))


def test_all_masked_is_all_mask_tokens(t5):
  made = TextInfilling(1.0)(np.arange(100, 200, dtype=np.int32), np.random.default_rng(0), t5)
  assert set(made['inputs'][:-1].tolist()) == {t5.sentinel_id(0)}
  assert len(made['targets']) == 101


def test_lengths():
  assert TextInfilling().raw_length({'inputs': 512, 'targets': 512}) == 511
  assert TextInfilling().separator(None) is None
  assert TextInfilling().raw_length({'targets': 512}) == 255  # of a decoder-only model
  for lengths in ({'inputs': 512, 'targets': 511}, {'targets': 3}, {'inputs': 1, 'targets': 2}, {'inputs': 9}):
    with pytest.raises(errors.UsageError, match='expected inputs of at least 2, and targets no shorter'):
      TextInfilling().raw_length(lengths)


@pytest.mark.parametrize('parameters', [{'mask_ratio': -0.1}, {'mask_ratio': 1.5}, {'poisson_lambda': 0.0}])
def test_impossible_parameters(parameters):
  with pytest.raises(errors.UsageError, match='text infilling: got'):
    TextInfilling(**parameters)
