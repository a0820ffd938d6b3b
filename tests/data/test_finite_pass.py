import dataclasses

import numpy as np
import pytest

from t5x_lite.data import pipeline
from t5x_lite.objectives import span_corruption


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
@pytest.mark.parametrize('pack', [True, False])
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
