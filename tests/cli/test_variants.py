"""Many configurations of one command, resolved within one process as the command itself would."""

import pytest

from t5x_lite.cli import variants
from t5x_lite.core.errors import UsageError


@pytest.fixture
def resolve(run, folder):
  """`resolve(*bindings, files=...)`, after a run, whose values it should have."""
  made = variants.Variants()

  def one(*bindings, files=('toy.gin',), **options):
    return made.resolve('toy_run.go', ('dry_run',), files, ('MODEL_DIR=x', *bindings), **options)

  return one


def test_a_variant_has_the_values_of_the_run(run, resolve):
  for flags in ((), ('RATE=2', 'test/Reader.sizes=(5,)')):
    found = run('--gin.MODEL_DIR=x', *(f'--gin.{flag}' for flag in flags))
    variant = resolve(*flags)
    assert dict(variant.values) == found.record.values and variant.text == found.record.text


def test_its_text_alone_says_the_same(resolve):
  variant = resolve('RATE=2', 'STEPS=3')
  again = resolve(files=(), text=variant.text)
  assert again.values == variant.values
  assert resolve('RATE=5', files=(), text=variant.text).values != variant.values


def test_values_below_an_argument(resolve):
  assert resolve().values_below('test') == {
    key: value for key, value in resolve().values.items() if key.startswith('test/Reader')
  }
  assert resolve().values_below('steps') == {} == resolve().values_below('test.no_such') == resolve().values_below('no')


def test_another_function_takes_the_arguments(resolve):
  taken = resolve('STEPS=7').call(lambda **given: given, dry_run=True)
  assert taken['steps'] == 7 and taken['dry_run'] is True and taken['optim'].rate == 1.0


@pytest.mark.parametrize(
  ('bindings', 'told'),
  [
    (('STESP=3',), "unknown macro 'STESP': did you mean 'STEPS'"),
    (('Reader.batches=3',), "has no parameter 'batches'"),
    (('STEPS=two',), 'expected int'),
    (('Unrelated.x=1',), 'has no parameter'),
    (('STEPS',), 'expected a binding NAME=VALUE'),
    (('unused/Reader.batch=3',), "unknown scope 'unused'"),
  ],
)
def test_what_the_command_would_refuse_is_refused(resolve, bindings, told):
  with pytest.raises(UsageError) as caught:
    resolve(*bindings)
  assert told in str(caught.value)


def test_what_one_variant_imports_the_next_does_not_know(resolve, folder):
  (folder / 'more.gin').write_text('import json\nSTEPS = 3\n')
  assert resolve(files=('toy.gin', 'more.gin')).values['go.steps'] == '3'
  with pytest.raises(UsageError, match='JSONDecoder'):
    resolve('JSONDecoder.strict=False')
