import dataclasses

import numpy as np
import pytest

from t5x_lite.data import documents, pipeline, sentence_pairs, streams, task
from t5x_lite.data.encoder import stream as encoder_stream
from t5x_lite.data.mixtures import Mixture
from t5x_lite.objectives import span_corruption


class Records(list):
  """A list with grain's batched access."""

  def __getitems__(self, indices):
    return [self[index] for index in indices]


def assert_same(got, expected):
  assert len(got) == len(expected)
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.keys() == theirs.keys()
    for name in theirs:
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def hosts(config, rows_of_hosts):
  return [pipeline.build(config, rows=np.array(rows)) for rows in rows_of_hosts]


def put_together(host_batches, rows_of_hosts):
  """Global batches of what each host has returned."""
  order = np.argsort(np.concatenate(rows_of_hosts))
  return [{k: np.concatenate([b[k] for b in step])[order] for k in step[0]} for step in zip(*host_batches, strict=True)]


def contiguous(num_hosts):
  return np.split(np.arange(8), num_hosts)


def sequences(batches, side='decoder', name='input_tokens'):
  """The examples of batches on one side, as lists of ids, row by row."""
  found = []
  for batch in batches:
    for ids, segments in zip(batch[f'{side}_{name}'], batch[f'{side}_segment_ids'], strict=True):
      found += [ids[segments == segment].tolist() for segment in range(1, segments.max() + 1)]
  return found


def finite(config, name, **kwargs):
  return dataclasses.replace(
    config,
    mixture_or_task_name=name,
    split='validation',
    shuffle=False,
    repeat=False,
    **kwargs,
  )


@pytest.mark.parametrize('shards', [None, 4])
@pytest.mark.parametrize('pack', [True, False, 'fill'])
def test_evaluation_covers_every_pair_once(config, registry, pack, shards):
  batches = list(pipeline.build(finite(config, 'pairs', pack=pack, num_virtual_shards=shards)))
  records = registry.get('pairs').source.records['validation']
  expected = sorted([*map(int, record['b'].split()), 1] for record in records)
  assert sorted(sequences(batches, name='target_tokens')) == expected
  assert all(batch['decoder_loss_weights'].shape == (8, 12) for batch in batches)
  for batch in batches:  # what fills up the last batch is no example
    np.testing.assert_array_equal(batch['decoder_loss_weights'] > 0, batch['decoder_segment_ids'] > 0)


@pytest.mark.parametrize('shards', [1, 4])
def test_evaluation_covers_every_token_of_every_document_once(config, registry, number_tokenizer, shards):
  batches = list(pipeline.build(finite(config, 'docs', num_virtual_shards=shards)))
  inputs, targets = (
    sequences(batches, 'encoder'),
    sequences(batches, name='target_tokens'),
  )
  restored = [
    span_corruption.restore(np.array(a), np.array(b), number_tokenizer).tolist()
    for a, b in zip(inputs, targets, strict=True)
  ]
  tokens = [token for ids in restored for token in ids]
  expected = [
    int(word) for record in registry.get('docs').source.records['validation'] for word in record['doc'].split()
  ]
  assert sorted(tokens) == sorted(expected)
  assert sum(len(ids) < config.objective.raw_length(config.task_feature_lengths) for ids in restored) <= shards
  if shards == 1:
    assert tokens == expected


@pytest.mark.parametrize('num_hosts', [2, 4])
@pytest.mark.parametrize('shards', [1, 8])
def test_evaluation_ends_after_the_same_batch_everywhere(config, num_hosts, shards):
  config = finite(config, 'both', num_virtual_shards=shards)
  expected = list(pipeline.build(config))
  got = [list(host) for host in hosts(config, contiguous(num_hosts))]
  assert {len(batches) for batches in got} == {len(expected)}
  assert_same(put_together(got, contiguous(num_hosts)), expected)


def test_evaluation_repeats_itself(config):
  config = finite(config, 'both')
  assert_same(list(pipeline.build(config)), list(pipeline.build(config)))
  iterator = pipeline.build(config)
  list(iterator)
  with pytest.raises(StopIteration):
    next(iterator)


def test_a_record_may_become_several_examples_or_none(config, registry, number_tokenizer):
  source = registry.get('docs').source
  for name, preprocess in {
    'split': lambda record: [{'text': part} for part in (record['doc'], '77', record['doc'])],
    'odd': lambda record: [{'text': record['doc']}] if record['doc'].startswith('1') else [],
  }.items():
    registry.register(registry.Task(name, source, preprocess))
    batches = list(pipeline.build(finite(config, name, num_virtual_shards=None)))
    pairs = zip(
      sequences(batches, 'encoder'),
      sequences(batches, name='target_tokens'),
      strict=True,
    )
    tokens = [t for a, b in pairs for t in span_corruption.restore(np.array(a), np.array(b), number_tokenizer)]
    made = [example['text'] for record in source.records['validation'] for example in preprocess(record)]
    assert tokens == [int(word) for text in made for word in text.split()]


def left_out(config, state=None):
  """How many examples each task has dropped by the end of a pass, from a state on."""
  iterator = pipeline.build(config)
  if state is not None:
    iterator.set_state(state)
  list(iterator)
  return iterator.statistics()['dropped_per_task']


@pytest.mark.parametrize('documents', task.DOCUMENTS)
@pytest.mark.parametrize('shards', [1, 4])
@pytest.mark.parametrize('hidden', [0, 1, 17])
def test_what_is_left_out_at_the_end_of_a_pass_is_counted(
  config, registry, add_text_task, add_pair_task, documents, shards, hidden
):
  empty = [[]] * hidden
  add_text_task('ends_empty', [[5, 6]], validation=[*empty, [5, 6, 7], *empty, np.arange(100, 150), *empty])
  registry.register(dataclasses.replace(registry.get('ends_empty'), name='text', documents=documents))
  too_long = (np.arange(100, 140), [5])
  add_pair_task('ends_long', [([5], [6])], validation=[([5], [6])] * 9 + [too_long] * hidden)
  registry.register(dataclasses.replace(registry.get('ends_long'), name='pairs_that_fit', long_examples=task.DROP))
  registry.register(Mixture('ends', (('text', 1.0), ('pairs_that_fit', 1.0))))
  for name, expected in (
    ('text', {'text': 3 * hidden}),
    ('pairs_that_fit', {'pairs_that_fit': hidden}),
    ('ends', {'text': 3 * hidden, 'pairs_that_fit': hidden}),
  ):
    pass_over = finite(config, name, num_virtual_shards=shards)
    assert left_out(pass_over) == expected
    iterator, states = pipeline.build(pass_over), []
    for _ in iterator:
      states.append(iterator.get_state())
    for state in states:  # also from where the end has been seen already
      assert left_out(pass_over, state) == expected


def test_labelled_examples_left_out_at_the_end_are_counted():
  records = Records([{}] * 5)
  reader = documents.DocumentReader('labels', records, lambda n: n if n < 5 else None, _labelled([1, 0, 2, 0, 0]))
  stream = encoder_stream.LabelledStream(reader)
  made = [stream.next() for _ in range(3)]
  assert [example.dropped for example in made] == [0, 1, 0]
  assert [stream.next(), stream.next()] == [streams.TheEnd(2), streams.TheEnd(0)]


def test_pairs_of_sentences_left_out_at_the_end_are_counted():
  sentences = [[np.array([5])], [], [np.array([6])], [], []]

  def reader():
    return documents.DocumentReader(
      's', Records(range(5)), lambda n: n if n < 5 else None, lambda at: [sentences[i] for i in at]
    )

  class Objective:
    def pair(self, given, other, rng, tokenizer, length):
      return {'inputs': given[0]}, 1, False

  stream = sentence_pairs.SentencePairStream(
    's', reader(), reader(), 5, lambda n: n if n < 5 else None, Objective(), 8, None, np.random.default_rng
  )
  assert [stream.next().dropped for _ in range(2)] == [0, 1]
  assert [stream.next(), stream.next()] == [streams.TheEnd(2), streams.TheEnd(0)]


def _labelled(counts):
  """Tokenises record number n to so many examples."""
  made = iter(counts)

  def tokenise(records):
    return [
      documents.Examples(streams.TaskExample({'inputs': np.array([5])}) for _ in range(next(made))) for _ in records
    ]

  return tokenise
