import pytest

from t5x_lite.core import errors
from t5x_lite.data import mixtures
from t5x_lite.data import task as task_lib


def text_task(name, **kwargs):
  return task_lib.Task(name, source=None, preprocess=lambda record: {'text': record['x']}, **kwargs)


def test_get_returns_what_was_registered(registry):
  entry = registry.register(text_task('c4_en'))
  mixture = registry.register(mixtures.Mixture('both', (('c4_en', 1.0),)))
  assert registry.get('c4_en') is entry
  assert registry.get('both') is mixture
  assert registry.names() == ('both', 'c4_en')


def test_unknown_name_tells_the_nearest(registry):
  registry.register(text_task('c4_en'))
  with pytest.raises(errors.UsageError, match="unknown mixture or task 'c5_en': did you mean 'c4_en'"):
    registry.get('c5_en')


def test_a_name_nobody_has_registered_is_looked_for_in_the_catalogue_once(registry):
  loads = []

  def load():
    loads.append(registry.register(text_task('c4_en')))

  registry.set_catalogue(load)
  assert registry.get('c4_en') is loads[0]
  with pytest.raises(errors.UsageError, match="did you mean 'c4_en'"):
    registry.get('c5_en')
  assert len(loads) == 1


@pytest.mark.parametrize('second', [text_task('a'), mixtures.Mixture('a', (('b', 1.0),))])
def test_a_name_is_given_once(registry, second):
  registry.register(text_task('a'))
  with pytest.raises(errors.UsageError, match="'a' is already registered"):
    registry.register(second)


@pytest.mark.parametrize(
  'rates',
  [
    (),
    (('a', 1.0), ('a', 2.0)),
    (('a', 0.0),),
    (('a', -1.0),),
    (('a', float('nan')),),
    (('a', float('inf')),),
  ],
)
def test_impossible_mixtures(rates):
  with pytest.raises(errors.UsageError, match='mix'):
    mixtures.Mixture('mix', rates)


def test_parts_are_shares(registry):
  first, second = registry.register(text_task('a')), registry.register(text_task('b'))
  registry.register(mixtures.Mixture('mix', (('a', 3), ('b', 1))))
  assert mixtures.blend('mix') == mixtures.Blend((first, second), ((0, (0.75, 0.25)),))
  assert mixtures.blend('b') == mixtures.Blend((second,), ((0, (1.0,)),))


def test_parts_of_a_mixture_must_be_known_tasks(registry):
  registry.register(text_task('alpha'))
  registry.register(mixtures.Mixture('typo', (('alhpa', 1),)))
  with pytest.raises(errors.UsageError, match="did you mean 'alpha'"):
    registry.tasks('typo')


def test_preprocess_may_return_one_several_or_none():
  def examples(made):
    return list(task_lib.Task('t', None, lambda record: made).examples({}))

  assert examples({'text': 'a'}) == [{'text': 'a'}]
  assert examples([{'text': 'a'}, {'text': 'b'}]) == [{'text': 'a'}, {'text': 'b'}]
  assert examples([]) == []


@pytest.mark.parametrize('supervised, made', [(False, {'inputs': '', 'targets': ''}), (True, {'text': ''})])
def test_preprocess_must_return_the_features_of_its_kind(supervised, made):
  task = task_lib.Task('t', None, lambda record: made, supervised=supervised)
  with pytest.raises(errors.UsageError, match=rf"task 't' \(supervised={supervised}\)"):
    list(task.examples({}))


def test_splits_are_renamed():
  task = text_task('t', splits={'validation': 'test'})
  assert task.source_split('validation') == 'test'
  with pytest.raises(errors.UsageError, match="unknown split of task 't' 'train'"):
    task.source_split('train')
