"""Errors of several steps, told as one line."""

import pytest

from t5x_lite.core import errors


def failing(message, brief=None):
  def step():
    raise errors.UsageError(message, brief)

  return step


def told(*steps, **options):
  with pytest.raises(errors.UsageError) as caught:
    errors.together(*steps, **options)
  return str(caught.value)


def test_few_are_told_in_full_and_each_once():
  assert errors.together(lambda: 1, lambda: 2) == [1, 2]
  assert told(lambda: 1, failing('first'), failing('second'), failing('first'), more='elsewhere') == 'first; and second'


def test_many_are_told_briefly_and_counted():
  steps = [failing(f'set {n} is not there: {"x" * 500}', f'set {n}') for n in range(20)]
  line = told(*steps, more='the list tells all')
  assert line.startswith('set 0 is not there: xxx') and len(line) < 700
  assert line.endswith('; and 19 others: set 1, set 2, set 3 and 16 more (the list tells all)')
  assert told(*steps[:4]).endswith('; and 3 others: set 1, set 2, set 3')


def test_what_has_no_brief_form_is_cut():
  line = told(*(failing(f'{n} {"y" * 500}') for n in range(4)))
  assert len(line) < 900 and 'others: 1 yyy' in line
