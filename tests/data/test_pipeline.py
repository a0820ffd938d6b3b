import dataclasses
import itertools
import json

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data import pipeline


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_same(got, expected):
  assert len(got) == len(expected)
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.keys() == theirs.keys()
    for name in theirs:
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def through_json(state):
  return json.loads(json.dumps(state))


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


@pytest.mark.parametrize('shards', [2, 4, 8])
@pytest.mark.parametrize(
  'rows_of_hosts',
  [contiguous(2), contiguous(4), contiguous(8), [[0, 2, 5], [1, 3, 4, 6, 7]]],
  ids=['2', '4', '8', 'odd'],
)
def test_the_stream_does_not_depend_on_hosts(config, rows_of_hosts, shards):
  config = dataclasses.replace(config, num_virtual_shards=shards)
  expected = take(pipeline.build(config), 5)
  got = put_together([take(host, 5) for host in hosts(config, rows_of_hosts)], rows_of_hosts)
  assert_same(got, expected)


@pytest.mark.parametrize('pack', [True, False, 'fill'])
@pytest.mark.parametrize('prefetch', [0, 2])
def test_resume_at_any_batch_is_exact(config, pack, prefetch):
  config = dataclasses.replace(config, pack=pack, prefetch=prefetch)
  iterator = pipeline.build(config)
  states, batches = [through_json(iterator.get_state())], []
  for _ in range(12):
    batches.append(next(iterator))
    states.append(through_json(iterator.get_state()))
  iterator.close()
  resumed = pipeline.build(config)
  for at in (0, 1, 2, 5, 9, 3):  # the last goes back
    resumed.set_state(states[at])
    assert resumed.get_state() == states[at]
    assert_same(take(resumed, 3), batches[at : at + 3])
    assert through_json(resumed.get_state()) == states[at + 3]
  resumed.close()


@pytest.mark.parametrize('num_hosts', [1, 4])
def test_two_hosts_resume_as_one_or_four(config, num_hosts):
  before = hosts(config, contiguous(2))
  for host in before:
    take(host, 4)
  state = through_json(pipeline.merge_states([host.get_state() for host in before]))
  after = hosts(config, contiguous(num_hosts))
  for host in after:
    host.set_state(state)
  got = put_together([take(host, 4) for host in after], contiguous(num_hosts))
  assert_same(got, take(pipeline.build(config), 8)[4:])


def test_state_is_small_and_holds_the_shards_that_are_read(config):
  host = hosts(config, contiguous(4))[1]
  take(host, 20)
  assert set(host.get_state()['shards']) == {'2', '3'}
  assert len(json.dumps(host.get_state())) < 3000


def test_a_state_that_was_taken_stays_as_it_is(config):
  iterator = pipeline.build(config)
  kept = [iterator.get_state()]
  written = [through_json(kept[0])]
  for _ in range(3):
    next(iterator)
    kept.append(iterator.get_state())
    written.append(through_json(kept[-1]))
  iterator.set_state(kept[1])
  next(iterator)
  assert kept == written


def test_a_state_without_the_shards_is_refused(config):
  first, second = hosts(config, contiguous(2))
  with pytest.raises(errors.UsageError, match='lacks the virtual shards 4, 5, 6, 7'):
    second.set_state(first.get_state())


def test_a_state_of_other_data_is_refused_by_name(config):
  state = pipeline.build(config).get_state()
  other = pipeline.build(dataclasses.replace(config, seed=1, shuffle=False))
  with pytest.raises(errors.UsageError, match='seed was 0, is 1; shuffle was True, is False'):
    other.set_state(state)
  with pytest.raises(errors.UsageError, match='version'):
    other.set_state({**state, 'version': 0})


def test_seeds_differ_and_decide(config):
  def tokens(seed):
    return take(pipeline.build(dataclasses.replace(config, seed=seed)), 2)[1]['encoder_input_tokens']

  np.testing.assert_array_equal(tokens(3), tokens(3))
  assert not np.array_equal(tokens(3), tokens(4))


def test_every_epoch_has_all_examples_in_a_new_order(config):
  """With a row for each shard and no packing, batch after batch shows the global order."""
  config = dataclasses.replace(config, mixture_or_task_name='pairs', pack=False)
  shown = sequences(take(pipeline.build(config), 9), 'encoder')
  epochs = [[tuple(ids) for ids in shown[start : start + 23]] for start in (0, 23, 46)]
  assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
  assert len({tuple(epoch) for epoch in epochs}) == 3
  unshuffled = sequences(take(pipeline.build(dataclasses.replace(config, shuffle=False)), 6), 'encoder')
  assert unshuffled[:23] == unshuffled[23:46]
  assert sorted(map(tuple, unshuffled[:23])) == sorted(epochs[0])


def test_shares_converge_to_the_rates_and_dry_parts_repeat(config):
  iterator = pipeline.build(config)
  take(iterator, 300)
  statistics = iterator.statistics()
  count = sum(statistics['examples_per_task'].values())
  assert statistics['examples_per_task']['pairs'] > 23 * 10
  tolerance = 4 * np.sqrt(0.75 * 0.25 / count) + 0.01  # 0.01: what still waits in open rows
  assert abs(statistics['share_per_task']['pairs'] - 0.75) < tolerance
  assert statistics['share_per_task']['pairs'] + statistics['share_per_task']['docs'] == pytest.approx(1.0)


def test_statistics_count_what_was_returned(config):
  iterator = pipeline.build(config)
  batches = take(iterator, 7)
  useful = sum(int((b[f'{side}_segment_ids'] > 0).sum()) for b in batches for side in ('encoder', 'decoder'))
  statistics = iterator.statistics()
  assert statistics['useful_tokens'] == useful
  assert statistics['total_tokens'] == 7 * 8 * 32
  assert sum(statistics['examples_per_task'].values()) == len(sequences(batches))
  assert 0 < statistics['truncated_per_task']['pairs'] < statistics['examples_per_task']['pairs']
  assert statistics['truncated_per_task']['docs'] == 0
  resumed = pipeline.build(config)
  resumed.set_state(through_json(iterator.get_state()))
  assert resumed.statistics() == statistics


def test_spec_is_of_the_global_batch(config):
  host = hosts(config, contiguous(4))[0]
  batch = next(host)
  assert {name: (8, *array.shape[1:]) for name, array in batch.items()} == {n: s.shape for n, s in host.spec.items()}
  assert {name: array.dtype for name, array in batch.items()} == {n: s.dtype for n, s in host.spec.items()}


def test_every_example_has_spans_of_its_own(config, add_text_task):
  """The same text over and over: each time, and in each shard, other spans are asked for."""
  add_text_task('one', [range(100, 100 + config.objective.raw_length(config.task_feature_lengths))])
  shown = sequences(take(pipeline.build(dataclasses.replace(config, mixture_or_task_name='one')), 5), 'encoder')
  assert len(shown) == 40
  assert len(set(map(tuple, shown))) >= 38
