"""What a sweep file says: arms are all combinations, some of them, or a list."""

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import spec

AXES = {'a': {'x': 'A=1', 'y': 'A=2'}, 'b': {'p': ('b.gin', 'B=1'), 'q': (), 'r': 'B=3'}}


def make(**given):
  return spec.Sweep(**{'base': ('base.gin',), 'metrics': ('t/loss',), 'axes': AXES} | given)


def test_a_grid_has_every_combination_once_the_last_axis_fastest():
  arms = spec.arms(make())
  assert [arm.name for arm in arms] == ['x,p', 'x,q', 'x,r', 'y,p', 'y,q', 'y,r']
  assert arms[3].settings == spec.Settings(('b.gin',), ('A=2', 'B=1'))
  assert arms[3].axes == {'a': 'y', 'b': 'p'} and arms[3].description == 'a y, b p'


def test_random_arms_are_different_combinations_and_the_same_each_time():
  arms = spec.arms(make(sampler='random', num_arms=4, sampler_seed=1))
  names = [arm.name for arm in arms]
  assert len(set(names)) == 4 and names == [
    arm.name for arm in spec.arms(make(sampler='random', num_arms=4, sampler_seed=1))
  ]
  assert set(names) < {arm.name for arm in spec.arms(make())}


def test_numbers_of_a_range_are_within_it():
  asked = make(ranges={'lr': ('RATE', 0.001, 0.1, 'log')}, axes={}, sampler='random', num_arms=30)
  values = [float(arm.axes['lr']) for arm in spec.arms(asked)]
  assert all(0.001 <= value <= 0.1 for value in values) and len(set(values)) == 30
  assert 0.004 < sorted(values)[15] < 0.025  # half of them below the middle, which is 0.01
  assert spec.arms(asked)[0].settings.bindings == (f'RATE={spec.arms(asked)[0].axes["lr"]}',)


def test_listed_arms_take_values_of_axes_or_settings():
  arms = spec.arms(make(sampler='list', arms={'one': {'b': 'r'}, 'two': ('C=5', 'c.gin')}))
  assert arms[0].axes == {'a': 'x', 'b': 'r'} and arms[0].settings.bindings == ('A=1', 'B=3')
  assert arms[1].axes == {} and arms[1].settings == spec.Settings(('c.gin',), ('C=5',))
  assert spec.baseline(make(baseline='two'), arms) == 'two' and spec.baseline(make(), arms) == 'one'


def test_single_settings_are_named_by_what_they_set():
  arms = spec.arms(make(axes={'rate': ['RATE=0.1', "RATE='high'", 'optimizers/lion.gin']}))
  assert [(arm.name, arm.settings) for arm in arms] == [
    ('0.1', spec.Settings((), ('RATE=0.1',))),
    ('high', spec.Settings((), ("RATE='high'",))),
    ('lion', spec.Settings(('optimizers/lion.gin',), ())),
  ]


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    ({'budget': 'token'}, "unknown budget 'token': did you mean 'tokens'"),
    ({'budget': 'seconds'}, 'Sweep.amount'),
    ({'budget': 'seconds', 'amount': 0.01}, 'amount=0.01 cannot be held'),
    ({'amount': 0}, 'expected more than 0'),
    ({'base': ()}, 'Sweep.base'),
    ({'metrics': ()}, 'Sweep.metrics'),
    ({'metrics': ('a/b', 'a/b')}, "'a/b' stands there twice"),
    ({'axes': ['A=1']}, "Sweep.axes: expected names with what they stand for, such as {'dropout'"),
    ({'axes': {'a': [('A=1', 'B=2')]}}, "axis 'a': expected its values by name"),
    ({'axes': {'a': ['A=1', 'B=1']}}, "two values would be called '1'"),
    ({'seeds': (0, 0)}, 'expected different numbers'),
    ({'axes': {'a': {'x/y': 'A=1'}}}, "'x/y'"),
    ({'axes': {'a': {}}}, "axis 'a': expected values"),
    ({'axes': {'a': {'x': 3}}}, "axis 'a', 'x': expected gin files and bindings"),
    ({'axes': {}}, 'no arms'),
    ({'arms': {'one': {'c': 'x'}}}, "axis of arm 'one'"),
    ({'arms': {'one': {'a': 'z'}}}, "value of axis 'a' of arm 'one'"),
    ({'arms': {'x,p': 'A=5'}}, "two arms are called 'x,p'"),
    ({'baseline': 'x,s'}, "unknown baseline 'x,s': did you mean"),
    ({'sampler': 'random'}, "expected how many arms 'random' is to make"),
    ({'sampler': 'random', 'num_arms': 7}, 'expected 1 to 6'),
    ({'ranges': {'r': ('R', 1, 2)}}, "not 'grid'"),
    ({'ranges': {'r': ('R', 0, 2, 'log')}, 'sampler': 'random', 'num_arms': 2}, "range 'r'"),
    ({'pruner': 'median', 'seeds': (0, 1)}, 'expected one seed'),
    ({'sampler': 'gird'}, "unknown sampler 'gird': did you mean 'grid'"),
  ],
)
def test_a_bad_sweep_file_is_refused(given, told):
  with pytest.raises(UsageError) as caught:
    spec.arms(make(**given))
  assert told in str(caught.value)
