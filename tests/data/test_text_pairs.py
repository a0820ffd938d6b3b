"""Files of texts that are alike, and those of GLUE: what of a record is compared."""

import json

import pytest

from t5x_lite.core import errors
from t5x_lite.data import dataset_checks, dataset_config, task, text_pairs
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.tasks import text_pairs as catalogue

ROWS = [
  {'a': 'the cat', 'b': 'it was', 'c': 'on the mat', 'n': 5},
  {'a': 'it', 'b': 'the cat', 'c': '', 'n': 3.5},
  {'a': 'it', 'b': ' ', 'c': 'x', 'n': 1},
]
FIELDS = {'text_field': 'a', 'pair_field': 'b'}


@pytest.fixture
def path(tmp_path):
  (tmp_path / 'pairs.jsonl').write_text('\n'.join(map(json.dumps, ROWS)))
  (tmp_path / 'pairs.csv').write_text('\n'.join(['a,b,c,n', *(','.join(map(str, row.values())) for row in ROWS)]))
  return tmp_path


def examples(path, **options):
  member = text_pairs.text_pairs(str(path), **{**FIELDS, **options})
  records = member.source.random_access('train')
  return [example for index in range(len(records)) for example in member.encoder_examples(records[index])]


@pytest.mark.parametrize('name', ['pairs.jsonl', 'pairs.csv'])
def test_records_are_pairs_and_those_that_lack_a_text_are_left_out(path, name):
  pairs = [{'text': 'the cat', 'pair': 'it was'}, {'text': 'it', 'pair': 'the cat'}]
  assert examples(path / name) == pairs
  assert examples(path / name, negative_field='c') == [{**pairs[0], 'negative': 'on the mat'}, pairs[1]]
  graded = examples(path / name, grade_field='n', least_grade=4)
  assert graded == [{**pairs[0], 'label': 1}, {**pairs[1], 'label': 0}]
  assert examples(path / name, group_field='n') == [{**pairs[0], 'group': '5'}, {**pairs[1], 'group': '3.5'}]
  itself = examples(path / name, pair_field=None)
  assert [(each['text'], each['pair']) for each in itself] == [('the cat', 'the cat'), ('it', 'it'), ('it', 'it')]


def test_a_negative_may_be_null(path):
  (path / 'null.jsonl').write_text('{"a": "x", "b": "y", "c": null}\n{"a": "x", "b": "y", "c": "z"}\n')
  found = examples(path / 'null.jsonl', negative_field='c')
  assert [each.get('negative') for each in found] == [None, 'z']


def test_cosines_are_compared_with_grades(path):
  member = text_pairs.text_pairs(str(path / 'pairs.csv'), **FIELDS, grade_field='n')
  record = member.source.random_access('train')[1]
  assert member.reference(record) == 3.5 and member.encoder.metrics == ('spearman_corrcoef',)
  assert text_pairs.text_pairs('x', **FIELDS).encoder.metrics == ()


def test_what_is_no_grade_or_no_field_is_one_line(path):
  (path / 'bad.jsonl').write_text('{"a": "x", "b": "y", "n": "high"}')
  with pytest.raises(errors.UsageError, match="got 'high' as 'n' of a record, expected a number"):
    examples(path / 'bad.jsonl', grade_field='n')
  with pytest.raises(errors.UsageError, match="'d'"):
    examples(path / 'pairs.jsonl', negative_field='d')


def test_packing_is_refused(path):
  member = text_pairs.text_pairs(str(path / 'pairs.jsonl'), **FIELDS)
  config = dataset_config.DatasetConfig(
    mixture_or_task_name=member,
    task_feature_lengths={'inputs': 32},
    tokenizer=None,
    split='train',
    batch_size=4,
    features=EncoderTaskFeatures('embedding'),
    pack=True,
  )
  with pytest.raises(errors.UsageError, match='expected PACK = False'):
    dataset_checks.check_values(config)


def test_pairs_of_glue():
  stsb = task.get('stsb_pairs')
  pair = {'sentence1': 'a', 'sentence2': 'b'}
  labels = [next(stsb.encoder_examples({**pair, 'label': grade}))['label'] for grade in (-1.0, 3.9, 4.0)]
  assert labels == [-1, 0, 1] and stsb.reference({**pair, 'label': 3.9}) == 3.9
  assert catalogue.graded_pair({**pair, 'label': 5.0}) == {'text': 'a', 'pair': 'b', 'label': 1}
  mnli = task.get('mnli_pairs')
  found = [list(mnli.encoder_examples({'premise': 'p', 'hypothesis': 'h', 'label': label})) for label in (0, 1, 2)]
  assert found == [[{'text': 'p', 'pair': 'h'}], [], []]
  qqp = task.get('qqp_pairs')
  assert not list(qqp.encoder_examples({'question1': 'p', 'question2': 'h', 'label': 0}))
