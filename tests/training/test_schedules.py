"""T5X's schedule numbers, and the two decays of BERT and GPT."""

import jax
import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.training import schedules

STEPS = [0, 1, 7, 500, 1000, 1001, 10_000, 10_001, 250_000, 1_000_000]


@pytest.mark.parametrize(
  ('factors', 'settings', 'formula'),
  [
    ('constant * rsqrt_decay', {'base_learning_rate': 1.0, 'warmup_steps': 10_000}, lambda s: max(s, 10_000) ** -0.5),
    ('constant', {'base_learning_rate': 1e-3}, lambda s: 1e-3),
    ('constant * linear_warmup * rsqrt_decay', {}, lambda s: 0.5 * min(1, s / 1000) / max(s, 1000) ** 0.5),
    ('constant*rsqrt_normalized_decay', {}, lambda s: 0.5 * (1000 / max(s, 1000)) ** 0.5),
    (
      'linear_decay',
      {'base_learning_rate': 0.1, 'decay_factor': 1e-6},
      lambda s: 0.1 * min(s / 1000, 1 + 1e-6 * (1000 - s)),
    ),
    ('constant * decay_every', {'steps_per_decay': 300}, lambda s: 0.5 * 0.5 ** (s // 300)),
    (
      'constant * cosine_decay',
      {'steps_per_cycle': 3000},
      lambda s: 0.25 * (1 + np.cos(np.pi * ((max(0, s - 1000) / 3000) % 1))),
    ),
    (
      'constant * rsqrt_decay',
      {'base_learning_rate': 1.0, 'step_offset': 250_000},
      lambda s: max(s - 250_000, 1000) ** -0.5,
    ),
  ],
)
def test_factors_are_those_of_t5x(factors, settings, formula):
  schedule = schedules.create_learning_rate_scheduler(factors, **settings)
  traced = jax.jit(schedule)
  for step in STEPS:
    expected = max(formula(step), 1e-8)
    assert schedule(step).dtype == np.float32
    np.testing.assert_allclose(schedule(step), expected, rtol=2e-5, atol=1e-9, err_msg=str(step))
    np.testing.assert_allclose(traced(np.int32(step)), expected, rtol=2e-5, atol=1e-9, err_msg=str(step))


def test_pretraining_starts_at_one_hundredth_and_halves_at_four_times_the_warmup():
  schedule = schedules.create_learning_rate_scheduler('constant * rsqrt_decay', 1.0, 10_000)
  assert schedule(0) == schedule(10_000) == np.float32(0.01)
  assert schedule(40_000) == np.float32(0.005)


def test_bad_schedules_are_named():
  with pytest.raises(UsageError, match="'rsqrt_decy': did you mean 'rsqrt_decay'"):
    schedules.create_learning_rate_scheduler('constant * rsqrt_decy')
  with pytest.raises(UsageError, match='warmup_steps=0'):
    schedules.create_learning_rate_scheduler('constant * rsqrt_decay', warmup_steps=0)
  with pytest.raises(UsageError, match=r'warmup_steps=100.*total_steps=100'):
    schedules.linear_warmup_linear_decay(1.0, total_steps=100, warmup_steps=100)


def test_warmup_then_linear_or_cosine_decay():
  linear = schedules.linear_warmup_linear_decay(1.0, total_steps=110, warmup_steps=10, end_learning_rate=0.2)
  cosine = schedules.linear_warmup_cosine_decay(1.0, total_steps=110, warmup_steps=10, end_learning_rate=0.2)
  for schedule, quarter in ((linear, 0.8), (cosine, 0.2 + 0.8 * (0.5 + 0.5 * np.cos(np.pi / 4)))):
    found = [float(jax.jit(schedule)(np.int32(step))) for step in (0, 5, 10, 35, 60, 110, 500)]
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0, quarter, 0.6, 0.2, 0.2], rtol=1e-5)
  assert schedules.linear_warmup_cosine_decay(1.0, total_steps=10)(0) == 1.0
