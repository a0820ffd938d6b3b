"""A plan is fair, or it is refused: before anything runs."""

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.sweeps import evaluation_sets, plan, plan_text


def test_a_plan_says_what_differs_what_it_costs_and_what_is_inert(sweep, resolver):
  axes = {'rate': {'none': (), 'same': ('RATE=0', 'SIZE=200'), 'high': 'RATE=2'}}
  made = plan.make(sweep(axes=axes), resolver)
  none, same, high = made.arms
  assert made.baseline == 'none' and none.differs == () and none.inert == ()
  assert same.differs == ('SIZE: 100 -> 200',) and same.inert == ('RATE=0',)
  assert high.differs == ('RATE: 0 -> 2',) and high.cost.steps == 10
  text = plan_text.render(made, 'demo')
  assert 'sweep demo: 3 arms x 2 seeds (0, 1) = 6 runs; baseline none' in text
  assert 'high: RATE: 0 -> 2' in text and 'same: RATE=0' in text
  assert 'the same in the same order in all arms' in text


@pytest.mark.parametrize(
  ('budget', 'amount', 'steps'),
  [
    ('steps', None, (10, 10)),
    ('steps', 7, (7, 7)),
    ('tokens', None, (10, 10)),
    ('tokens', 320, (10, 10)),
    ('flops', None, (10, 5)),
    ('flops', 24_000, (40, 20)),
    ('parameters', None, None),
    ('seconds', 5.0, (10, 10)),
  ],
)
def test_steps_follow_from_the_budget(sweep, resolver, budget, amount, steps):
  axes = {'size': {'small': 'SIZE=100', 'large': 'SIZE=200'}}
  asked = sweep(axes=axes, budget=budget, amount=amount)
  if steps is None:
    with pytest.raises(UsageError, match="arm 'large' cannot be held to the budget of parameters: it has 200"):
      plan.make(asked, resolver)
    return
  made = plan.make(asked, resolver)
  assert tuple(each.cost.steps for each in made.arms) == steps
  assert ('LoopConfig.max_seconds' in made.arms[0].values) == (budget == 'seconds')


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    ({'axes': {'r': {'a': 'RATE=1', 'b': 'RTAE=2'}}}, "arm 'b': unknown macro 'RTAE': did you mean 'RATE'"),
    ({'axes': {'r': {'a': 'RATE=0', 'b': ()}}}, "axis 'r': 'a' and 'b' come to the same resolved values"),
    ({'axes': {}, 'arms': {'a': 'RATE=0', 'b': ()}}, "arms 'a' and 'b' come to the same"),
    ({'axes': {'d': {'a': 'DATA=a', 'b': 'DATA=b'}}}, "arm 'b' reads other documents"),
    ({'axes': {'s': {'a': (), 'b': 'TRAIN_STEPS=20'}}}, "arm 'b' cannot be held to the budget of steps"),
    ({'axes': {'s': {'a': 'SIZE=100', 'b': 'MODEL_DIR=x'}}}, "arm 'b' sets MODEL_DIR, which is the folder of a run"),
    ({'axes': {'s': {'a': 'SIZE=100', 'b': 'RANDOM_SEED=7'}}}, 'sets RANDOM_SEED, which is Sweep.seeds'),
    ({'axes': {'s': {'a': (), 'b': 'TRAIN_STEPS=20'}}, 'budget': 'tokens'}, 'sets TRAIN_STEPS, which is the budget'),
    ({'axes': {'l': {'a': (), 'b': 'LoopConfig.log_period=2'}}}, "axis 'l': 'a' and 'b' come to the same"),
    ({'axes': {'l': {'a': (), 'b': 'T5Config.rotary_base=5.0'}}}, "axis 'l': 'a' and 'b' come to the same"),
    ({'budget': 'tokens', 'amount': 20}, 'a step takes 32, and 1 of them are not 20'),
    ({'metrics': ('loss',)}, "metric 'loss': expected TASK/METRIC"),
    ({'metrics': ('txet/loss',)}, "'txet': did you mean 'text'"),
    ({'axes': {'e': {'a': (), 'b': 'eval/DatasetConfig.split=test'}}}, 'is not measured on the same'),
  ],
)
def test_what_is_unfair_or_impossible_is_refused(sweep, resolver, given, told):
  with pytest.raises(UsageError) as caught:
    plan.make(sweep(**given), resolver)
  assert told in str(caught.value) and '\n' not in str(caught.value)


def test_differences_that_are_meant_are_allowed(sweep, resolver):
  axes = {'d': {'a': 'DATA=a', 'b': 'DATA=b'}}
  made = plan.make(sweep(axes=axes, same_data=False), resolver)
  assert '2 different orders' in plan_text.render(made, 'demo')
  axes = {'e': {'a': (), 'b': 'eval/DatasetConfig.split=test'}}
  plan.make(sweep(axes=axes, same_evaluation=False), resolver)
  frozen = {'frozen': 'eval/DatasetConfig.split=validation'}
  made = plan.make(sweep(axes=axes, evaluations=frozen, metrics=('frozen/text/loss',)), resolver)
  assert evaluation_sets.source_of(made.sweep, 'frozen/text/loss') == ('frozen', 'text', 'loss')


def test_texts_that_are_continued_are_the_same_whatever_the_objective(sweep, resolver):
  axes = {'o': {'a': 'eval/DatasetConfig.objective=lm', 'b': 'eval/DatasetConfig.objective=spans'}}
  frozen = {'evaluations': {'frozen': ()}, 'metrics': ('frozen/text/bits_per_byte_of_continuation',)}
  with pytest.raises(UsageError, match='objective: lm -> spans'):
    plan.make(sweep(axes=axes, **frozen), resolver)
  plan.make(sweep(axes=axes, bindings=('Continuations.length=9',), **frozen), resolver)
  for differs in ('Continuations.length', 'eval/DatasetConfig.split'):
    axes = {'o': {name: f'{differs}={name}' for name in ('8', '9')}}
    with pytest.raises(UsageError, match='is not measured on the same'):
      plan.make(sweep(axes=axes, bindings=('Continuations.length=9',), **frozen), resolver)


def test_answers_that_are_chosen_from_are_the_same_whatever_the_objective(sweep, resolver):
  axes = {'o': {'a': 'eval/DatasetConfig.objective=lm', 'b': 'eval/DatasetConfig.objective=spans'}}
  frozen = {'evaluations': {'frozen': ()}, 'metrics': ('frozen/asked/choice_accuracy',)}
  with pytest.raises(UsageError, match="task of metric 'frozen/asked/choice_accuracy'"):
    plan.make(sweep(axes=axes, **frozen), resolver)
  bindings = ('Choices.length=9',)
  plan.make(sweep(axes=axes, bindings=bindings, **frozen), resolver)
  both = frozen | {'metrics': ('frozen/asked/choice_accuracy', 'frozen/text/loss')}
  with pytest.raises(UsageError, match="metric 'frozen/text/loss' is not measured on the same"):
    plan.make(sweep(axes=axes, bindings=bindings, **both), resolver)
  plan.make(sweep(axes=axes, bindings=(*bindings, 'Continuations.length=9'), **both), resolver)
  for differs in ('Choices.length', 'eval/DatasetConfig.split'):
    axes = {'o': {name: f'{differs}={name}' for name in ('8', '9')}}
    with pytest.raises(UsageError, match='is not measured on the same'):
      plan.make(sweep(axes=axes, bindings=bindings, **frozen), resolver)


def test_a_metric_is_of_a_task_that_every_arm_is_evaluated_on(sweep, resolver, monkeypatch):
  axes = {'m': {'a': (), 'b': 'eval/DatasetConfig.mixture_or_task_name=others'}}
  plan.make(sweep(axes=axes), resolver)
  monkeypatch.setattr(resolver, 'tasks', lambda variant, _: ['others' if 'others' in str(variant.values) else 'text'])
  with pytest.raises(UsageError, match="task of metric 'text/loss' in arm 'b'"):
    plan.make(sweep(axes=axes), resolver)
