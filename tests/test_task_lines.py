"""Lines of a task of the catalogue, to probe with."""

from __future__ import annotations

import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.data import task
from t5x_lite.inference import task_lines
from t5x_lite.tasks import originals


def source(*records):
  return originals.OriginalSource(lambda *_: records, '.', ('validation',))


def worded(record):
  return {'inputs': 'in', 'targets': record.get('target', 'out')}


def made(records, head=None, labels=()):
  encoder = None if head is None else task.EncoderTask(head, lambda record: record, labels)
  return task.Task('some', source(*records), worded, supervised=True, encoder=encoder)


def lines(member, limit=100, *, pairs=True):
  found = list(task_lines.lines(member, 'validation', limit, pairs=pairs))
  assert [line.number for line in found] == list(range(1, 1 + len(found)))
  return [line.fields for line in found]


def test_classes_are_named_and_unknown_ones_left_out():
  records = [{'text': f't{n}', 'pair': f'p{n}', 'label': n - 1} for n in range(3)]
  member = made(records, 'classification', ('no', 'yes'))
  assert lines(member) == [
    {'text': 't1', 'pair': 'p1', 'label': 'no'},
    {'text': 't2', 'pair': 'p2', 'label': 'yes'},
  ]
  assert lines(member, pairs=False)[0] == {'text': 't1 p1', 'label': 'no'}


def test_words_have_the_names_of_their_tags():
  member = made([{'words': ['a', 'b'], 'tags': [1, 0]}], 'tagging', ('O', 'B-X'))
  assert lines(member) == [{'words': ['a', 'b'], 'tags': ['B-X', 'O']}]


def test_other_tasks_have_their_targets_as_labels():
  assert lines(made([{'target': 'x'}, {'target': '<unk>'}, {'target': 'y'}])) == [
    {'text': 'in', 'label': 'x'},
    {'text': 'in', 'label': 'y'},
  ]


def test_only_so_many_records_are_read_evenly():
  member = made([{'text': f't{n}', 'label': 0} for n in range(10)], 'classification', ('no',))
  assert [line['text'] for line in lines(member, 4)] == ['t0', 't2', 't5', 't7']


@pytest.mark.parametrize(
  ('name', 'limit', 'told'),
  [
    ('embedded_text', 9, "'embedded_text' has no labels to probe for"),
    ('embedded_mixture', 9, "'embedded_mixture' has no labels to probe for"),
    ('embedded_modul', 9, "did you mean 'embedded_module'"),
    ('embedded_module', 0, 'limit=0: expected at least 1'),
  ],
)
def test_what_cannot_be_probed_for_is_told(name, limit, told):
  with pytest.raises(UsageError, match=told):
    task_lines.lines(name, 'validation', limit, pairs=False)
