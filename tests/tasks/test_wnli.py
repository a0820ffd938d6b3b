"""WNLI as Winograd schemas; the expected texts are those that T5's own function makes."""

import os
import pathlib

import pytest

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.metrics import registry
from t5x_lite.tasks import glue, glue_files, wnli

TAPE = 'Edward dropped tape onto his window sill, and when he pulled the tape off, some of the glue was stuck on '
SCHEMAS = {
  'after a verb, possessive': (
    'Lily spoke to Donna breaking her silence.',
    "Lily spoke to Donna breaking Donna's silence.",
    ('Lily spoke to Donna breaking *her* silence.', 'Donna'),
  ),
  'at the beginning': (
    'The fish ate the worm. It was tasty.',
    'The worm was tasty.',
    ('The fish ate the worm. *It* was tasty.', 'The worm'),
  ),
  'at the end': (
    f'{TAPE}it.',
    'Some of the glue was stuck on the window sill.',
    (f'{TAPE}*it* .', 'the window sill'),
  ),
  'one of several': (
    "Al stole Bob's wallet and car, and then he was driving it really fast to get away.",
    'He was driving the car really fast to get away.',
    ("Al stole Bob's wallet and car, and then he was driving *it* really fast to get away.", 'the car'),
  ),
  'nothing repeated': (
    'You can see the garden behind it.',
    'The garden shows through the wall.',
    ('You can see the garden behind *it* .', ''),
  ),
}


def record(premise, hypothesis, label=1):
  return {'sentence1': premise, 'sentence2': hypothesis, 'label': label, 'idx': 0}


@pytest.mark.parametrize('name', SCHEMAS)
def test_a_pair_becomes_the_schema_that_t5_makes_of_it(name):
  premise, hypothesis, (inputs, targets) = SCHEMAS[name]
  entry = task.get(wnli.NAME)
  assert list(entry.examples(record(premise, hypothesis))) == [{'inputs': f'wsc: {inputs}', 'targets': targets}]


def test_what_is_written_is_judged_by_the_phrase():
  entry = task.get(wnli.NAME)
  premise, hypothesis, _ = SCHEMAS['at the beginning']
  references = [entry.reference(record(premise, hypothesis, label)) for label in (1, 0)]
  (metric,) = entry.metrics
  assert registry.get(metric)(references, ['worm', 'the fish']) == {'accuracy': 100.0}
  assert registry.get(metric)(references, ['fish', 'worm']) == {'accuracy': 0.0}


def test_it_is_only_evaluated_on_and_no_mixture_trains_on_wnli():
  assert set(task.get(wnli.NAME).splits) == {'validation', 'test'}
  assert not {'glue_wnli', wnli.NAME} & set(dict(glue.PROPORTIONAL_RATES))


def test_a_text_without_a_pronoun_is_an_error():
  with pytest.raises(errors.UsageError, match=r'no pronoun of .* is in'):
    wnli.wnli_simple(record('Bob sleeps.', 'Bob sleeps.'))


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
def test_the_phrases_of_the_benchmark_are_in_its_sentences():
  """Of the training split, for it is there: in nine pairs the second sentence repeats nothing around the pronoun."""
  rows = list(glue_files.GlueFiles('wnli')(pathlib.Path(os.environ['T5X_LITE_REAL_DATA'], 'glue/WNLI'), 'train'))
  examples = [(row['sentence2'], wnli.wnli_simple(row)) for row in rows]
  assert sum(not example['targets'] for _, example in examples) == 9
  assert all(example['targets'] in ' '.join(sentence.split()) for sentence, example in examples)
  assert all(example['inputs'].count('*') == 2 for _, example in examples)
