import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.objectives.ul2 import PAPER, UL2


def test_denoisers_are_drawn_by_their_rates():
  rows = (('[NLU]', 3.0, 0.15, 1.0), ('[NLG]', 8.0, 0.5, 0.0), ('[S2S]', None, 0.25, 3.0))
  objective, rng = UL2(rows), np.random.default_rng(0)
  counts = np.bincount([objective.draw(rng) for _ in range(4000)], minlength=3)
  assert counts[1] == 0 and abs(counts[0] - 1000) < 5 * np.sqrt(750)
  counts = np.bincount([UL2().draw(rng) for _ in range(7000)], minlength=7)
  assert len(counts) == 7 and np.all(np.abs(counts - 1000) < 5 * np.sqrt(860))


def test_table_of_the_paper():
  spans = [(mode, span, density) for mode, span, density, _ in PAPER]
  assert {(span, density) for mode, span, density in spans if mode == '[NLU]'} == {(3, 0.15), (8, 0.15)}
  assert {(span, density) for mode, span, density in spans if mode == '[NLG]'} == {
    (3, 0.5),
    (8, 0.5),
    (64, 0.15),
    (64, 0.5),
  }
  assert UL2().objectives[-1] == PrefixLM(0.25)


def test_raw_length_is_the_largest_that_fits_all():
  lengths = {'inputs': 512, 'targets': 512}
  assert UL2().raw_length(lengths) == 506  # the prefix may be all but one token, and 6 are the mode's
  assert UL2(mode_length=0).raw_length(lengths) == 512
  assert UL2().raw_length({'inputs': 512, 'targets': 338}) == 506
  assert UL2().raw_length({'inputs': 512, 'targets': 337}) == 505  # half of the tokens in spans of 3
  assert UL2((('', 3.0, 0.15, 1.0),), mode_length=0).raw_length({'inputs': 512, 'targets': 114}) == 568
  assert UL2().raw_length({'targets': 512}) == 378  # 6 of the mode, 2 EOS, 2 x 63 sentinels
  for lengths in ({'targets': 9}, {'inputs': 9}, {'inputs': 6, 'targets': 512}, {'inputs': 512, 'targets': 1}):
    with pytest.raises(errors.UsageError, match='UL2: got task_feature_lengths'):
      UL2().raw_length(lengths)


def test_a_mode_that_is_too_long(t5):
  with pytest.raises(errors.UsageError, match=r"the mode '\[..[UGS]\]' has 5 tokens .* expected at least 5"):
    UL2(mode_length=4)(np.arange(100, 200, dtype=np.int32), np.random.default_rng(0), t5)


def test_examples_differ_only_in_their_denoiser(t5):
  tokens = np.arange(100, 606, dtype=np.int32)
  modes = {tuple(t5.encode(row[0])) for row in PAPER}
  seen = {tuple(UL2()(tokens, np.random.default_rng(seed), t5)['inputs'][:5].tolist()) for seed in range(60)}
  assert seen == modes


@pytest.mark.parametrize(
  'parameters, message',
  [
    ({'denoisers': ()}, 'expected rates of at least 0'),
    ({'denoisers': (('', 3.0, 0.15, 0.0),)}, 'expected rates of at least 0'),
    ({'denoisers': (('', 3.0, 0.15, -1.0),)}, 'expected rates of at least 0'),
    ({'denoisers': (('', 3.0, 1.5, 1.0),)}, 'span corruption: got noise_density 1.5'),
    ({'denoisers': (('', None, -0.1, 1.0),)}, 'prefix LM: got noise_density -0.1'),
    ({'mode_length': -1}, 'got mode_length -1'),
  ],
)
def test_impossible_parameters(parameters, message):
  with pytest.raises(errors.UsageError, match=message):
    UL2(**parameters)
