"""Which answers stand beside which question, and what is right, whatever the model."""

from __future__ import annotations

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.scoring import choices
from t5x_lite.scoring.choices import Choices, Question
from t5x_lite.tasks import labelled, originals


def source(*records):
  return originals.OriginalSource(lambda *_: records, '.', ('validation',))


def free(*pairs):
  records = ({'inputs': text, 'targets': target} for text, target in pairs)
  return task.Task('free', source(*records), lambda record: record, supervised=True)


def asked(member, **more):
  return choices.questions(member, 'validation', Choices(tasks=('any',), **more))


def test_free_text_has_wrong_answers_of_other_examples():
  pairs = [(f'question {n} ' + 'x' * 50, f'answer {n % 7}') for n in range(40)] + [('unknown', '<unk>')]
  found = asked(free(*pairs), others=4, length=20, examples=50)
  assert len(found) == 40 and {place for each in found for place in each.right} == set(range(5))
  for each, (text, target) in zip(found, pairs, strict=False):
    (right,) = each.right
    assert each.text == f'{text[:7]} ... {text[-8:]}' and each.answers[right] == target
    assert len(set(each.answers)) == 5 and set(each.answers) <= {f'answer {n}' for n in range(7)}
  assert found == asked(free(*pairs), others=4, length=20, examples=50)
  assert found != asked(free(*pairs), others=4, length=20, examples=50, seed=1)
  with pytest.raises(errors.UsageError, match=r'7 different answers, expected more than Choices\.others=7'):
    asked(free(*pairs), others=7)


def test_classes_are_all_their_labels():
  member = labelled.labelled_task(
    'classes', source(*({'text': f't{n}', 'label': n - 1} for n in range(3))), 'bench', ['text'], labels=['no', 'yes']
  )
  assert asked(member) == [
    Question('bench text: t1', ('no', 'yes'), frozenset([0])),
    Question('bench text: t2', ('no', 'yes'), frozenset([1])),
  ]


def test_multiple_choice_has_its_own_choices():
  records = [{'text': f'q{n}', 'choices': ['a', 'b', 'c'][: n + 1], 'label': n - 1} for n in range(3)]
  head = task.EncoderTask('multiple_choice', lambda record: record)
  member = task.Task(
    'choices', source(*records), lambda record: {'inputs': 'i', 'targets': 't'}, supervised=True, encoder=head
  )
  assert asked(member) == [Question('q1', ('a', 'b'), frozenset([0])), Question('q2', ('a', 'b', 'c'), frozenset([1]))]


def test_accuracy_by_sums_and_by_bytes():
  questions = [Question('', ('short', 'much longer'), frozenset([1])), Question('', ('a', 'b', 'ü'), frozenset([0, 2]))]
  losses = np.asarray([3.0, 4.0, 5.0, 6.0, 7.0])
  assert choices.accuracies(questions, losses) == {
    'choice_accuracy': 50.0,
    'choice_accuracy_by_byte': 100.0,  # 4 / 11 is less than 3 / 5, and 7 / 2 less than 5
    'choice_chance': pytest.approx(100 * (1 / 2 + 2 / 3) / 2),
    'choice_examples': 2,
  }


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    ({'tasks': ()}, 'expected names of tasks'),
    ({'tasks': 'embedded_module'}, 'expected names of tasks'),
    ({'tasks': ('a',), 'others': 0}, 'Choices.others=0'),
    ({'tasks': ('embedded_text',)}, "'embedded_text' has no answers to choose from"),
    ({'tasks': ('embedded_mixture',)}, "'embedded_mixture' has no answers to choose from"),
    ({'tasks': ('embedded_modul',)}, "did you mean 'embedded_module'"),
  ],
)
def test_what_cannot_be_asked_is_told(given, told):
  with pytest.raises(errors.UsageError, match=told):
    choices.members(Choices(**given))


def test_a_query_with_several_right_answers_is_one_question():
  examples = [{'text': 'q', 'choices': ['a', 'b', 'c'], 'label': n} for n in (0, 2)]
  head = task.EncoderTask('multiple_choice', lambda record: examples)
  member = task.Task(
    'entities', source({}), lambda record: {'inputs': 'i', 'targets': 't'}, supervised=True, encoder=head
  )
  (question,) = asked(member)
  assert question == Question('q', ('a', 'b', 'c'), frozenset([0, 2]))
  found = choices.accuracies([question], np.asarray([3.0, 2.0, 1.0]))
  assert found['choice_accuracy'] == 100.0 and found['choice_chance'] == pytest.approx(200 / 3)


def test_a_phrase_that_is_not_meant_is_no_right_answer():
  records = [{'inputs': f'q{n}', 'targets': f'phrase {n}', 'label': n % 2} for n in range(12)]
  member = task.Task(
    'pronouns',
    source(*records),
    lambda record: {name: record[name] for name in ('inputs', 'targets')},
    supervised=True,
    reference=lambda record: {'referent': record['targets'], 'label': record['label']},
  )
  found = asked(member, others=2)
  assert [each.text for each in found] == [f'q{n}' for n in range(1, 12, 2)]
  assert {answer for each in found for answer in each.answers} <= {f'phrase {n}' for n in range(1, 12, 2)}


@pytest.mark.parametrize('length', [1, 5, 7, 8, 30, 99, 100])
def test_both_ends_of_a_long_text_are_kept(length):
  text = ''.join(chr(ord('a') + n % 26) for n in range(100))
  found = choices.shortened(text, length)
  assert len(found) <= max(length, 7) and (length < 100 or found == text)
  if 8 <= length < 100:
    before, _, behind = found.partition(' ... ')
    assert len(found) == length and text.startswith(before) and text.endswith(behind) and before and behind
