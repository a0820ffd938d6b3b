"""T5's multi-task mixtures: C4 and all supervised tasks of the paper together, at rates of their sizes.

Source: Raffel et al. 2020 (T5), sections 3.5.2 and 3.7, and the mixtures `all_mix`, `all_equal` and `all_proportional`
of the published code. The sizes are those that T5 counted, so that no data is opened for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from t5x_lite.core import errors
from t5x_lite.data import mixtures
from t5x_lite.tasks import glue, pretrain, squad, summarization, super_glue, translation  # noqa: F401 (they register tasks)

UNSUPERVISED = 'c4_en'
# Records of the training splits of TFDS's versions that T5 used.
LARGE_SETS: Mapping[str, float] = {
  'cnn_dailymail': 287_113.0,
  'squad': 87_599.0,
  'wmt_t2t_ende': 4_592_289.0,
  'wmt15_enfr': 40_853_137.0,
  'wmt16_enro': 610_320.0,
}
RTE = ('glue_rte', 'super_glue_rte')  # one set in both benchmarks: T5 halves the rate of each
EVALUATED = (*glue.EVALUATED, *super_glue.EVALUATED)  # without training on it
ARTIFICIAL_LIMIT = 2.0**19  # K of section 3.5.2


CAPPED = ('wmt_t2t_ende', 'wmt15_enfr')  # for T5's final models


def t5_rates(
  *,
  limit: float = ARTIFICIAL_LIMIT,
  unsupervised: float | None = None,
  translation_limit: float | None = None,
  temperature: float = 1.0,
) -> mixtures.Rates:
  """The rates of T5's `all_mix`: the size of each set, at most `limit`, and a rate for C4 of its own.

  Args:
    limit: the artificial size limit K, in records.
    unsupervised: the rate of C4, in records; None: `limit`, which is `all_proportional`. For its final models the paper
      has 710,000 (Small), 2,620,000 (Base), 8,660,000 (Large), 33,500,000 (3B) and 133,000,000 (11B), section 3.7.
    translation_limit: the limit of WMT English to German and to French, in records; None: `limit`. 1,000,000 for the
      final models.
    temperature: T of section 3.5.2: every rate is raised to 1 / T. There it comes with a limit of 2^21.
  """
  given = {
    'limit': limit,
    'unsupervised': unsupervised,
    'translation_limit': translation_limit,
    'temperature': temperature,
  }
  if not all(value is None or value > 0 for value in given.values()):
    raise errors.UsageError(f't5_rates: got {given}, expected positive numbers')
  most = dict.fromkeys(CAPPED, limit if translation_limit is None else translation_limit)
  rates = {name: rate / 2 if name in RTE else rate for name, rate in _benchmarks().items()}
  rates |= {name: min(size, most.get(name, limit)) for name, size in LARGE_SETS.items()}
  rates = {UNSUPERVISED: limit if unsupervised is None else unsupervised, **rates}
  return tuple((name, rate ** (1 / temperature)) for name, rate in rates.items())


def t5_only_evaluated() -> tuple[str, ...]:
  """What T5 evaluates these mixtures on besides."""
  return EVALUATED


def t5_equal_rates() -> mixtures.Rates:
  """The same rate for C4 and every supervised task: T5's `all_equal`."""
  return mixtures.equal((UNSUPERVISED, *_benchmarks(), *LARGE_SETS))


def _benchmarks() -> dict[str, float]:
  """The tasks of GLUE and SuperGLUE that T5 trains on, with the sizes of their training splits."""
  return dict((*glue.PROPORTIONAL_RATES, *super_glue.PROPORTIONAL_RATES))
