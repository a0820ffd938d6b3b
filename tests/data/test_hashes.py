import dataclasses
import itertools
import json

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import documents, example_streams, features, hashes, mixtures, opened, pipeline
from t5x_lite.objectives import causal_lm, masked_lm, sentence_pairs, span_corruption


def order(config, **changes):
  return hashes.order_hash(opened.open_dataset(dataclasses.replace(config, **changes)))


def numbers(config, num=6, hosts=1, **how):
  return list(hashes.batch_hashes(config, num, hosts, **how))


@pytest.fixture
def docs(config):
  return dataclasses.replace(config, mixture_or_task_name='docs')


def test_arms_that_differ_in_the_objective_have_one_order_and_other_batches(docs, number_tokenizer):
  class Other(type(number_tokenizer)):
    fingerprint = 'other numbers'

  arms = [
    docs,
    dataclasses.replace(docs, objective=span_corruption.SpanCorruption(noise_density=0.1)),
    dataclasses.replace(
      docs,
      objective=causal_lm.CausalLM(),
      features=features.DecoderOnlyFeatures(),
      task_feature_lengths={'targets': 30},
    ),
    dataclasses.replace(docs, task_feature_lengths={'inputs': 30, 'targets': 20}),
  ]
  assert len({order(arm) for arm in arms}) == 1
  assert order(docs, tokenizer=Other()) == order(docs)
  assert len({numbers(arm)[-1] for arm in arms}) == len(arms)


@pytest.mark.parametrize(
  'change',
  [{'seed': 1}, {'split': 'validation'}, {'shuffle': False}, {'repeat': False}, {'mixture_or_task_name': 'both'}],
  ids=str,
)
def test_other_documents_or_another_order_have_another_hash(docs, change):
  assert order(docs, **change) != order(docs)


def test_another_source_of_as_many_documents_has_another_hash(docs, registry, add_text_task):
  task = add_text_task('others', [range(100, 130)] * 40)
  named = dataclasses.replace(task, name='docs')
  assert registry.get('docs').num_examples('train') == named.num_examples('train')
  assert order(docs, mixture_or_task_name=named) != order(docs)


def test_the_seed_does_not_matter_where_nothing_is_random(docs):
  assert order(docs, shuffle=False, seed=1) == order(docs, shuffle=False)
  mixed = dataclasses.replace(docs, mixture_or_task_name='both', shuffle=False)
  assert order(mixed, seed=1) != order(mixed)  # it decides which task is next
  assert order(mixed, seed=1, repeat=False) == order(mixed, repeat=False)


def test_other_rates_have_another_hash(docs):
  evenly = mixtures.Mixture('both', (('docs', 1.0), ('pairs', 1.0)))
  assert order(docs, mixture_or_task_name=evenly) != order(docs, mixture_or_task_name='both')


class Spy:
  """Records that note which of them are read."""

  def __init__(self, records):
    self.records, self.read = records, []

  def __len__(self):
    return len(self.records)

  def __getitem__(self, index):
    return self.records[index]

  def __getitems__(self, indices):
    self.read += indices
    return self.records.__getitems__(indices)


def arms(docs):
  """Configurations that differ in objective and features, and so in how much of a document an example takes."""
  decoder = {'features': features.DecoderOnlyFeatures(), 'task_feature_lengths': {'targets': 30}}
  sentences = features.EncoderOnlyFeatures(sentence_pairs=True)
  return {
    'spans': docs,
    'fewer spans': dataclasses.replace(docs, objective=span_corruption.SpanCorruption(noise_density=0.1)),
    'causal': dataclasses.replace(docs, objective=causal_lm.CausalLM(), **decoder),
    'split': dataclasses.replace(docs, objective=causal_lm.CausalLM(), documents='split', **decoder),
    'order': dataclasses.replace(
      docs,
      objective=sentence_pairs.SentenceOrder(masked_lm.MaskedLM()),
      features=sentences,
      task_feature_lengths={'inputs': 30},
      tokenizer=type('WithMarks', (type(docs.tokenizer),), {'cls_id': 3, 'sep_id': 4, 'mask_id': 5})(),
    ),
  }


def test_what_the_streams_of_a_run_read_is_what_is_hashed(docs):
  """Every arm's own batches read these records of the source first, in this order, in every virtual shard."""
  for name, arm in arms(docs).items():
    arm = dataclasses.replace(arm, num_virtual_shards=4)
    data = opened.open_dataset(arm)
    expected = hashes.documents_read(data, 0, 12)
    assert len(expected) == 12
    for shard in range(4):
      spy = Spy(data.parts[0].records)
      spied = dataclasses.replace(data, parts=(dataclasses.replace(data.parts[0], records=spy),))
      stream = example_streams.example_stream(spied, shard, 0)
      while stream.cursor.document < 3:
        stream.next()
      own = expected[shard::4].tolist()
      if name == 'order':  # it reads sentences of other documents in between
        in_turn = iter(spy.read)
        assert all(index in in_turn for index in own)
      else:
        assert spy.read[:3] == own, name


def test_all_arms_have_one_order_however_many_shards_and_rows_there_are(docs):
  found = {
    order(arm, num_virtual_shards=shards, batch_size=size)
    for arm in arms(docs).values()
    for shards, size in ((1, 3), (4, 8), (8, 8))
  }
  assert len(found) == 1


def test_a_source_that_gives_other_records_is_seen(docs, monkeypatch):
  """The hash is of what is read, not of what should be."""
  before = order(docs)
  dealt = documents.Order.dealt
  monkeypatch.setattr(documents.Order, 'dealt', lambda self, shard, shards: dealt(self, (shard + 1) % shards, shards))
  assert order(docs, num_virtual_shards=2) != before


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_the_first_batches_are_hashed_as_they_pass(config, processes):
  """Those of several processes together, also where two supply the same rows; and once."""
  done = []
  rows = [*np.array_split(np.arange(8), processes), np.arange(2)]
  passing = [hashes.FirstBatches(pipeline.build(config, rows=own), 3, lambda: done.append(1)) for own in rows]
  alone = pipeline.build(config, rows=rows[0])
  for _ in range(5):
    batches = [next(each) for each in passing]
    assert hashes.row_hashes(batches[0]) == hashes.row_hashes(next(alone))
  assert len(done) == len(rows)
  expected = numbers(config, 3)[-1].stream
  assert hashes.stream_hash(json.loads(json.dumps([each.own() for each in passing]))) == (3, expected)
  state = passing[0].get_state()
  passing[0].finish()
  assert len(done) == len(rows)
  fresh = hashes.FirstBatches(pipeline.build(config), 3, lambda: pytest.fail('a resumed run has no first batches'))
  fresh.set_state(pipeline.merge_states([each.get_state() for each in passing]))
  for _ in range(5):
    next(fresh)
  fresh.finish()
  assert state['batches'] == 5


def test_a_run_shorter_than_its_first_batches_has_those_that_there_were(config):
  done = []
  passing = hashes.FirstBatches(pipeline.build(config), 100, lambda: done.append(1))
  next(passing)
  next(passing)
  passing.finish()
  assert done == [1] and hashes.stream_hash([passing.own()]) == (2, numbers(config, 2)[-1].stream)


@pytest.mark.parametrize('hosts', [2, 3, 4, 8])
@pytest.mark.parametrize('repeat', [True, False])
def test_hashes_do_not_depend_on_hosts(config, hosts, repeat):
  config = dataclasses.replace(config, repeat=repeat, num_virtual_shards=4 if repeat else 1)
  alone = numbers(config, num=40 if not repeat else 6)
  assert numbers(config, len(alone), hosts) == alone
  assert len({one.batch for one in alone}) == len(alone)


@pytest.mark.parametrize('hosts', [1, 2, 4, 8])
def test_hashes_go_on_after_a_restart_on_other_hosts(config, hosts):
  alone = [one.batch for one in numbers(config)]
  before = [pipeline.build(config, rows=rows) for rows in np.array_split(np.arange(8), 4)]
  for host, _ in itertools.product(before, range(2)):
    next(host)
  state = json.loads(json.dumps(pipeline.merge_states([host.get_state() for host in before])))
  assert [one.batch for one in numbers(config, 4, hosts, state=state)] == alone[2:]


def test_the_digest_of_the_stream_is_of_all_batches_in_order(config):
  found = numbers(config)
  assert numbers(config, 3) == found[:3]
  other = numbers(dataclasses.replace(config, seed=1))
  assert not {one.batch for one in found} & {one.batch for one in other}


def test_a_batch_hash_sees_every_value_name_and_type():
  batch = {'a': np.arange(6, dtype=np.int32).reshape(2, 3), 'b': np.zeros((2, 3), np.float32)}
  assert hashes.batch_hash(dict(reversed(batch.items()))) == hashes.batch_hash(batch)
  assert hashes.batch_hash({**batch, 'a': np.asfortranarray(batch['a'])}) == hashes.batch_hash(batch)
  changed = [
    {**batch, 'a': batch['a'] + np.int32(1)},
    {**batch, 'a': batch['a'].reshape(2, 3, 1)},
    {name: array[::-1] for name, array in batch.items()},
    {**batch, 'a': batch['a'].astype(np.int64)},
    {'c': batch['a'], 'b': batch['b']},
  ]
  assert hashes.batch_hash(batch) not in {hashes.batch_hash(other) for other in changed}


@pytest.mark.parametrize('hosts', [0, 9])
def test_more_hosts_than_rows_are_refused(config, hosts):
  with pytest.raises(errors.UsageError, match=f'got {hosts} hosts for a batch size of 8, expected 1 to 8'):
    numbers(config, 1, hosts)
