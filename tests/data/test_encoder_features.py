"""Examples with labels as batches: labels stand at positions, and packing keeps them there."""

import json
import os
import pathlib

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import features, packing, task
from t5x_lite.data.encoder.examples import tokenise_labelled
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'tokenizers'
LENGTH = 64
EXAMPLES = {
  'classification': [
    {'text': 'the cat', 'pair': 'was it', 'label': 2},
    {'text': 'it', 'label': 0},
    {'text': 'of the mat', 'label': -1},
  ],
  'regression': [{'text': 'the cat', 'label': 0.5}, {'text': 'it', 'pair': 'was', 'label': -1.0}],
  'multiple_choice': [
    {'text': 'the cat', 'choices': ['was', 'it was'], 'label': 1},
    {'text': 'it', 'choices': ['in', 'on', 'of'], 'label': 0},
    {'text': 'it', 'choices': ['in', 'on'], 'label': -1},
  ],
  'span': [
    {'text': 'who', 'pair': 'it was the cat', 'answers': ['the cat'], 'starts': [7]},
    {'text': 'who', 'pair': 'it was', 'answers': [], 'starts': []},
  ],
  'tagging': [{'words': ['the', 'unbelievable', 'cat'], 'tags': [0, 2, -1]}, {'words': ['it'], 'tags': [1]}],
  'embedding': [
    {'text': 'the cat', 'pair': 'it was'},
    {'text': 'it', 'pair': 'the cat', 'negative': 'on the mat', 'label': 1},
    {'text': 'it', 'pair': 'it', 'label': 0},
    {'text': 'it', 'pair': 'was', 'label': -1},
    {'text': 'in', 'pair': 'it', 'negative': 'on', 'group': 'g'},
    {'text': 'of', 'pair': 'the', 'group': 'g'},
  ],
}


def make(head, family='roberta'):
  if family in ('bert', 'roberta'):
    pytest.importorskip('tokenizers')
  encoder = task.EncoderTask(head, lambda record: record['of'])
  tokenise = tokenise_labelled(task.Task('t', None, None, encoder=encoder), load_tokenizer(GOLDEN / family), LENGTH, 8)
  return [example.features for example in tokenise([{'of': EXAMPLES[head]}])[0]]


@pytest.fixture(params=task.HEADS)
def head(request):
  return request.param


def test_examples_are_those_of_the_head_and_arrays_those_of_the_spec(head):
  converter = EncoderTaskFeatures(head)
  spec = features.batch_spec(converter, {'inputs': LENGTH}, 3)
  for example in make(head):
    assert features.accepts(converter, tuple(example))
    converted = converter(example)
    assert tuple(converted) == converter.keys('encoder') == tuple(spec)
    assert {name: values.dtype for name, values in converted.items()} == {n: leaf.dtype for n, leaf in spec.items()}
    assert {values.shape for values in converted.values()} == {(len(example['inputs']),)}
  assert {leaf.shape for leaf in spec.values()} == {(3, LENGTH)}


def packed(head, family='roberta'):
  """A row of all examples of the head, and where each begins."""
  converter = EncoderTaskFeatures(head)
  entries = [packing.Entry(converter(example)) for example in make(head, family)]
  row = packing.Row.of(entries * 2, {'encoder': None})
  spec = features.batch_spec(converter, {'inputs': 2 * LENGTH}, 1)
  batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
  packing.write_row(row, batch, 0, converter)
  starts = np.cumsum([0, *(entry.length('encoder') for entry in row.entries)])
  return {name.removeprefix('encoder_'): values[0] for name, values in batch.items()}, row.entries, starts


def test_examples_in_a_row_keep_their_labels_and_have_segments_of_their_own(head):
  row, entries, starts = packed(head)
  last = 0
  for entry, start, stop in zip(entries, starts, starts[1:], strict=False):
    for name, values in entry.example.items():
      if name not in ('encoder_segment_ids', 'encoder_label_group'):
        np.testing.assert_array_equal(row[name.removeprefix('encoder_')][start:stop], values)
    segments = row['segment_ids'][start:stop]
    np.testing.assert_array_equal(segments - last, entry.example['encoder_segment_ids'])
    last = segments[-1]
  used = row['segment_ids'] > 0
  assert used.sum() == starts[-1] and not any(values[~used].any() for values in row.values())
  begins = np.flatnonzero(np.diff(row['segment_ids'], prepend=0) > 0)
  np.testing.assert_array_equal(row['positions'][begins], 0)
  within = used & ~np.isin(np.arange(len(used)), begins)
  np.testing.assert_array_equal(row['positions'][within], row['positions'][np.flatnonzero(within) - 1] + 1)


@pytest.mark.parametrize('family', ['bert', 'xlnet'])
def test_a_class_is_at_the_token_that_stands_for_the_text(family):
  row, _, starts = packed('classification', family)
  at = starts[:-1] if family == 'bert' else starts[1:] - 1
  expected = np.zeros((2, 2 * LENGTH))
  expected[0, at], expected[1, at] = [2, 0, 0] * 2, [1, 1, 0] * 2
  np.testing.assert_array_equal([row['label'], row['label_weights']], expected)


def test_a_number_is_a_value():
  row, _, starts = packed('regression')
  assert row['label_value'][starts[:2]].tolist() == [0.5, 0.0] and np.count_nonzero(row['label_value']) == 2
  assert row['label_weights'][starts[:2]].tolist() == [1.0, 0.0] and row['label_weights'].sum() == 2
  assert 'label' not in row


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_texts_to_be_compared_are_numbered_and_the_same_text_has_the_same_id(family):
  rows = [EncoderTaskFeatures('embedding')(example) for example in make('embedding', family)]
  numbers, ids = (
    [row[f'encoder_text_{name}'][row['encoder_text_number'] > 0] for row in rows] for name in ('number', 'id')
  )
  assert [each.tolist() for each in numbers] == [[1, 2], [1, 2, 3], [1, 2], [1, 2], [1, 2, 3], [1, 2]]
  assert ids[0][0] == ids[1][1] and ids[1][0] == ids[2][0] == ids[2][1] == ids[3][0]
  assert ids[4][0] == ids[4][1] == ids[5][0] == ids[5][1]
  assert len({value for row in ids for value in row.tolist()}) == 7 and all((row > 0).all() for row in ids)
  for row, own in zip(rows, numbers, strict=True):
    begins = np.flatnonzero(row['encoder_text_number'])
    np.testing.assert_array_equal(row['encoder_positions'][begins], 0)
    assert row['encoder_segment_ids'][begins].tolist() == own.tolist()
  assert [row['encoder_label_weights'].sum() for row in rows] == [1, 1, 0, 0, 1, 1]
  assert all(not row['encoder_label_weights'][1:].any() for row in rows)


def test_the_right_choice_is_one_of_those_that_weigh():
  row, _, starts = packed('multiple_choice')
  begins = np.flatnonzero(np.diff(row['segment_ids'], prepend=0) > 0)
  assert len(begins) == 14  # 2 + 3 + 2 choices, twice
  assert row['label_weights'][begins].tolist() == [1, 1, 1, 1, 1, 0, 0] * 2
  assert row['label'][begins].tolist() == [0, 1, 1, 0, 0, 0, 0] * 2
  assert row['label_weights'].sum() == 10 and row['label'].sum() == 4
  assert set(starts[:-1]) <= set(begins)
  # The choices of a question are linked, and no two questions of a row share a number.
  assert row['label_group'][begins].tolist() == [1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6]
  assert np.count_nonzero(row['label_group']) == 14


def test_every_example_has_one_start_and_one_end():
  row, entries, starts = packed('span')
  for start, stop, has_answer in zip(starts, starts[1:], [True, False] * 2, strict=False):
    (first,), (last,) = (np.flatnonzero(row[f'span_{end}'][start:stop]) for end in ('start', 'end'))
    assert 0 < first < last if has_answer else first == last == 0
  assert row['span_start'].sum() == row['span_end'].sum() == len(entries)


def test_tags_weigh_at_first_pieces():
  row, _, starts = packed('tagging')
  assert row['label_weights'].sum() == 6 and row['label'].sum() == 2 * (0 + 2 + 1)
  first = row['label_weights'][: starts[1]]
  assert np.flatnonzero(first)[0] == 1 and len(first) > 2 + 3  # the long word has several pieces


def test_unknown_heads_are_refused():
  with pytest.raises(errors.UsageError, match="did you mean 'span'"):
    EncoderTaskFeatures('spam')
  with pytest.raises(errors.UsageError, match='got max_query_length 0'):
    EncoderTaskFeatures('span', 0)


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
def test_real_answers_are_spelt_by_the_tokens_between_start_and_end(tmp_path):
  pytest.importorskip('tokenizers')
  root = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'])
  (tmp_path / 'vocab.txt').write_bytes((root / 'tokenizers' / 'bert-base-uncased' / 'vocab.txt').read_bytes())
  tokenizer = load_tokenizer(tmp_path, model_type='bert')

  def example(record):
    answers = {'answers': record['answers']['text'], 'starts': record['answers']['answer_start']}
    return {'text': record['question'], 'pair': record['context'], **answers}

  squad = task.Task('t', None, None, encoder=task.EncoderTask('span', example), long_examples='split', stride=64)
  records = json.loads((root / 'squad' / 'hf_fixture_sample.json').read_text())['data']
  for record, windows in zip(records, tokenise_labelled(squad, tokenizer, 192)(records), strict=True):
    spelt = set()
    for window in windows:
      converted = EncoderTaskFeatures('span')(window.features)
      start, end = (int(np.argmax(converted[f'encoder_span_{name}'])) for name in ('start', 'end'))
      if start:
        spelt.add(tokenizer.decode(converted['encoder_input_tokens'][start : end + 1]))
    if not record['answers']['text']:
      assert not spelt
      continue
    answer = tokenizer.decode(tokenizer.encode(record['answers']['text'][0]))
    assert any(answer.replace(' ', '') in text.replace(' ', '') for text in spelt), (answer, spelt)
