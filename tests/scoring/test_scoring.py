"""From logits and texts to what the metrics compare, and to the files that servers take."""

import json

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import task
from t5x_lite.metrics import registry
from t5x_lite.scoring import heads, items, submission, texts
from t5x_lite.scoring.items import Item, Prediction

CONTEXT = 'it was written by ada lovelace in 1843'
# Where the words of the context stand in it, behind [CLS] and a question of one token, and before [SEP].
WORDS = [(0, 2), (3, 6), (7, 14), (15, 17), (18, 21), (22, 30), (31, 33), (34, 38)]
OFFSETS = np.array([(-1, -1)] * 3 + WORDS + [(-1, -1)], np.int32)


def span_item(offsets=OFFSETS):
  part = {'pooled': np.zeros(1, np.int32), 'offsets': offsets}
  return Item({}, {'pair': CONTEXT, 'answers': ['ada lovelace']}, ['ada lovelace'], [part])


def span_logits(**high):
  logits = np.zeros((len(OFFSETS), 2), np.float32)
  for name, (position, value) in high.items():
    logits[position, int(name.startswith('end'))] = value
  return logits


def test_the_best_span_is_text_of_the_context():
  found = heads._span(span_item(), [span_logits(start=(7, 5.0), end=(8, 4.0))], may_lack=False)
  assert found.value == 'ada lovelace' and found.shown['start'] == 18


def test_a_span_never_ends_before_it_starts_nor_stands_in_the_question():
  logits = span_logits(start=(8, 5.0), end=(7, 9.0))
  assert heads._span(span_item(), [logits], may_lack=False).value == 'it was written by ada'
  logits = span_logits(start=(1, 9.0), end=(5, 3.0))
  assert heads._span(span_item(), [logits], may_lack=False).value == 'it was written'


def test_an_answer_is_too_long_from_thirty_one_tokens_on():
  start, end = np.zeros((2, 100), np.float32)
  start[10], end[[39, 40]] = 5.0, 5.0
  offsets = np.stack([np.arange(100), np.arange(100) + 1], axis=1)
  pairs = set(heads._pairs(start, end, offsets))
  assert (10, 39) in pairs and (10, 40) not in pairs


def test_no_answer_wins_where_it_may_and_scores_more_in_every_window():
  sure = span_logits(start=(7, 2.0), end=(8, 2.0), start_null=(0, 5.0), end_null=(0, 5.0))
  unsure = span_logits(start_null=(0, 1.0), end_null=(0, 1.0))
  item = span_item()
  both = Item(item.record, item.example, item.reference, [*item.parts, *item.parts])
  assert heads._span(item, [sure], may_lack=True).value == ''
  assert heads._span(item, [sure], may_lack=False).value == 'ada lovelace'
  assert heads._span(both, [sure, unsure], may_lack=True).value == 'ada lovelace'  # as in BERT: the least of all


def test_words_have_the_tags_of_their_first_pieces_and_lost_ones_none():
  part = {'words': np.array([-1, 0, -1, 1, -1], np.int32), 'tags': np.array([-1, 0, -1, 0, -1], np.int32)}
  item = Item({}, {'words': ['unbelievable', 'cat', 'lost'], 'tags': [0, 0, 0]}, None, [part])
  logits = np.zeros((5, 3), np.float32)
  logits[1, 2] = logits[2, 1] = logits[3, 1] = 1.0
  assert heads._tagged(item, [logits], ('O', 'B-x', 'I-x')).value == ['I-x', 'B-x', 'O']


@pytest.mark.parametrize(('longest', 'expected'), [(16, [16]), (17, [16, 17]), (128, [16, 32, 64, 128]), (8, [8])])
def test_buckets(longest, expected):
  assert heads.buckets(longest) == expected


def test_every_index_is_in_one_chunk_that_it_fits():
  lengths = [int(n) for n in np.random.default_rng(0).integers(1, 65, 50)]
  order = sorted(range(50), key=lambda index: lengths[index])
  chunks = list(heads.chunks(order, lengths, heads.buckets(64), 8))
  assert sorted(index for _, chosen in chunks for index in chosen) == list(range(50))
  assert all(len(chosen) <= 8 and max(lengths[i] for i in chosen) <= length for length, chosen in chunks)


def test_what_is_unknown_is_not_scored_and_the_score_is_the_mean_of_metrics():
  made = [Item({}, {}, reference) for reference in (1, 0, 1, None)]
  predictions = [Prediction(value, {}) for value in (1, 1, 1, 0)]
  found = items.score(('f1', 'accuracy'), made, predictions)
  assert found['accuracy'] == pytest.approx(200 / 3) and found['f1'] == pytest.approx(80.0)
  assert found['score'] == pytest.approx((200 / 3 + 80) / 2)
  assert items.score(('accuracy',), made[3:], predictions[3:]) == {}


def test_details_do_not_count_in_the_score():
  made = [Item({}, {}, ['O', 'B-x']), Item({}, {}, ['B-x', 'O'])]
  predictions = [Prediction(['O', 'B-x'], {}), Prediction(['B-x', 'B-x'], {})]
  found = items.score(('entity_f1',), made, predictions)
  assert found['score'] == found['entity_f1'] != found['entity_precision']


def records(count, **fields):
  return [{'idx': number, **{name: values[number] for name, values in fields.items()}} for number in range(count)]


@pytest.mark.parametrize(
  ('name', 'split', 'values', 'file', 'lines'),
  [
    ('glue_cola', 'test', [1, 0], 'CoLA.tsv', ['0\t1', '1\t0']),
    ('glue_rte', 'test', [1, 0], 'RTE.tsv', ['0\tnot_entailment', '1\tentailment']),
    ('glue_mnli', 'test_mismatched', [2, -1], 'MNLI-mm.tsv', ['0\tcontradiction', '1\tentailment']),
    ('glue_stsb', 'test', [5.5, -1.0], 'STS-B.tsv', ['0\t5.000', '1\t0.000']),
  ],
)
def test_files_for_glue(name, split, values, file, lines):
  made = [Item(record, {}, None) for record in records(2)]
  found = submission.submission(name, split, made, [Prediction(value, {}) for value in values])
  assert found.name == file and found.text.splitlines() == ['index\tprediction', *lines]


@pytest.mark.parametrize(
  ('config', 'values', 'labels'),
  [
    ('boolq', [1, 0], ['true', 'false']),
    ('cb', [1, -1], ['contradiction', 'entailment']),
    ('copa', [1, 0], [1, 0]),
    ('wsc', [1, 'the mat'], ['True', 'False']),
  ],
)
def test_files_for_super_glue(config, values, labels):
  made = [Item(record, {}, None) for record in records(2, span1_text=['the cat'] * 2)]
  found = submission.submission(f'super_glue_{config}', 'test', made, [Prediction(value, {}) for value in values])
  rows = [json.loads(line) for line in found.text.splitlines()]
  assert rows == [{'idx': number, 'label': label} for number, label in enumerate(labels)]


def test_multirc_is_nested_and_record_counts_a_query_once():
  places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (5, 0, 0)]
  made = [
    Item({'idx': dict(zip(('paragraph', 'question', 'answer'), place, strict=True))}, {}, None) for place in places
  ]
  text = submission.submission('super_glue_multirc', 'test', made, [Prediction(1, {})] * 4).text
  rows = [json.loads(line) for line in text.splitlines()]
  assert [row['idx'] for row in rows] == [0, 5]
  assert rows[0]['passage']['questions'][0]['answers'] == [{'idx': 0, 'label': 1}, {'idx': 1, 'label': 1}]
  made = [Item({'idx': {'passage': 3, 'query': 7}}, {}, None)] * 2
  found = submission.submission('super_glue_record', 'test', made, [Prediction('Ada', {}), Prediction('Eve', {})])
  assert json.loads(found.text) == {'idx': 7, 'label': 'Ada'}


def test_squad_is_one_object_and_others_have_no_server():
  made = [Item({'id': name, 'context': 'by Ada'}, {}, None) for name in 'ab']
  found = submission.submission('squad_v2', 'validation', made, [Prediction('Ada', {}), Prediction('', {})])
  assert found.name == 'predictions.json' and json.loads(found.text) == {'a': 'Ada', 'b': ''}
  assert submission.submission('banking77', 'test', made, [Prediction(0, {})] * 2) is None


def test_labels_to_rank_are_those_that_the_task_writes():
  assert texts.labels_to_rank(task.get('glue_rte')) == ('entailment', 'not_entailment')
  assert len(texts.labels_to_rank(task.get('banking77'))) == 77
  for name in ('glue_stsb', 'squad', 'super_glue_wsc'):
    with pytest.raises(errors.UsageError, match='no fixed set of labels'):
      texts.labels_to_rank(task.get(name))


def test_every_task_with_a_head_has_metrics_that_take_what_its_head_says():
  perfect = {
    'classification': 1,
    'multiple_choice': 1,
    'regression': 2.5,
    'embedding': 2.5,
    'tagging': ['O', 'O'],
    'span': 'Ada',
  }
  references = {
    'super_glue_multirc': {'group': (0, 0), 'value': 1},
    'super_glue_wsc': {'referent': 'cat', 'label': 1},
    'super_glue_record': {'group': (0, 0), 'value': ['Ada']},
    'semeval2010_task8': 'Cause-Effect(e2,e1)',
    'squad': ['Ada'],
    'squad_v2': ['Ada'],
  }
  seen = set()
  for name in task.names():
    member = task.get(name)
    if not isinstance(member, task.Task) or member.encoder is None:
      continue
    metrics = member.metrics if member.encoder.metrics is None else member.encoder.metrics
    value = perfect[member.encoder.head]
    if member.encoder.answer is not None:
      value = member.encoder.answer({'entities': ['Eve', 'Ada']}, 1)
    reference = references.get(name, value)
    if member.encoder.head == 'tagging':
      reference = {'words': ['a', 'b'], 'tags': value}
    made = [
      Item({}, {}, reference),
      Item({}, {}, references.get(name, {**reference} if isinstance(reference, dict) else reference)),
    ]
    found = items.score(metrics, made, [Prediction(value, {})] * 2)
    assert not metrics or set(found) > {'score'}, name
    if member.encoder.head not in (
      'regression',
      'embedding',
      'tagging',
    ):  # without spread or spans there is nothing to be right about
      assert all(
        value == 100.0 or 'mean_3class' in name or 'matthews' in name or 'relation' in name
        for name, value in found.items()
        if name != 'score'
      ), (name, found)
    seen.add(member.encoder.head)
  assert seen == set(perfect)


def test_every_metric_of_the_library_takes_nothing_at_all():
  """So that a run can ask all of them at its start, and hear of a package that is missing."""
  for name in registry.names():
    try:
      assert registry.get(name)([], [])
    except errors.UsageError as error:
      assert 'pip install' in str(error)


def test_what_a_test_set_does_not_tell_is_no_reference():
  unknown = {
    'glue_stsb': {'sentence1': 'a', 'sentence2': 'b', 'label': -1.0, 'idx': 0},
    'super_glue_wsc': {
      'text': 'He saw Ada .',
      'span1_text': 'Ada',
      'span1_index': 2,
      'span2_text': 'He',
      'span2_index': 0,
      'label': -1,
      'idx': 0,
      'split': 'test',
    },
  }
  for name, record in unknown.items():
    member = task.get(name)
    (item,) = items._written(member)([record])
    assert item.reference is None, name
    assert items.score(member.metrics, [item], [Prediction('', {})]) == {}
    (item,) = items._written(member)([{**record, 'label': 1}])
    assert item.reference is not None, name


def test_spans_are_compared_with_the_answers_as_they_stand_in_the_context():
  record = {
    'id': 'a',
    'question': 'When?',
    'context': 'It was 1980-1990 .',
    'answers': {'text': ['1980-1990'], 'answer_start': [7]},
  }
  member = task.get('squad')
  (example,) = member.encoder_examples(record)
  assert items._right(member, record, example) == ['1980-1990']
  assert '1980 - 1990' in member.reference(record)


@pytest.mark.parametrize(
  ('answer', 'context', 'expected'),
  [
    ('U . S . A', 'In the U.S.A today', 'U.S.A'),
    ('1980 - 1990', 'from 1980-1990', '1980-1990'),
    ('Ada Lovelace', 'by Ada  Lovelace', 'Ada  Lovelace'),
    ('Eve', 'by Ada', 'Eve'),
    ('', 'by Ada', ''),
  ],
)
def test_servers_are_told_answers_as_they_stand_in_the_context(answer, context, expected):
  made = [Item({'id': 'a', 'context': context}, {}, None)]
  found = submission.submission('squad', 'validation', made, [Prediction(answer, {})])
  assert json.loads(found.text) == {'a': expected}
