"""Tasks that a schedule ends: with rows of one task each, what they have in open rows is delivered all the same."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from t5x_lite.data import features, hashes, mixtures, pipeline
from t5x_lite.objectives.causal_lm import CausalLM

BOTH, DOCS, PAIRS = (('docs', 1.0), ('pairs', 1.0)), (('docs', 1.0),), (('pairs', 1.0),)
PACKERS = pytest.mark.parametrize('pack', ['first_fit', 'fill'])


def scheduled(config, rates, *schedule, unit='examples', pack='first_fit', shards=4):
  mixture = mixtures.Mixture('scheduled', rates, unit, schedule)
  return dataclasses.replace(
    config,
    mixture_or_task_name=mixture,
    pack_across_tasks=False,
    pack=pack,
    text_length=7,  # a fraction of a row
    num_virtual_shards=shards,
  )


def hashed(iterator, count):
  return [hashes.batch_hash(batch) for batch in itertools.islice(iterator, count)]


def held(iterator):
  """The parts of the mixture that have an example in an open row, and how many examples of each part were drawn."""
  shards = iterator.get_state()['shards'].values()
  parts = {place[0] for shard in shards for row in shard['open'] for place in row}
  return parts, np.sum([[cursor[2] for cursor in shard['cursors']] for shard in shards], axis=0).tolist()


def delivered(iterator, what='examples_per_task'):
  return np.array(list(iterator.statistics()[what].values()))


@PACKERS
def test_all_that_was_drawn_of_an_ended_task_is_delivered(config, pack):
  iterator = pipeline.build(scheduled(config, BOTH, (2, PAIRS), (40, DOCS), pack=pack))
  for last_step, ended in ((2, None), (40, 0), (80, 1)):
    while iterator.get_state()['batches'] < last_step:
      next(iterator)
    open_parts, drawn = held(iterator)
    if ended is None:
      assert open_parts == {0, 1}
    else:
      assert open_parts == {1 - ended} and delivered(iterator)[ended] == drawn[ended] > 0


def test_a_cut_example_of_an_ended_task_is_delivered_to_its_end(config, add_text_task):
  others = add_text_task('others', [range(4000 + 50 * n, 4000 + 50 * n + 3 * n) for n in range(1, 12)])
  config = dataclasses.replace(
    scheduled(config, DOCS, (2, ((others.name, 1.0),)), pack='split'),
    objective=CausalLM(),
    features=features.DecoderOnlyFeatures(),
    task_feature_lengths={'targets': 16},
    text_length=11,
  )
  iterator = pipeline.build(config)
  for _ in itertools.islice(iterator, 2):
    pass
  assert held(iterator)[0] == {0}
  for _ in itertools.islice(iterator, 4):
    pass
  open_parts, drawn = held(iterator)
  assert open_parts == {1} and delivered(iterator)[0] == drawn[0] > 0


@PACKERS
def test_rows_of_an_ended_task_are_at_most_every_second(config, pack):
  iterator = pipeline.build(scheduled(config, DOCS, (3, PAIRS), pack=pack, shards=1))
  for _ in itertools.islice(iterator, 3):
    pass
  waiting = len(iterator.get_state()['shards']['0']['open'])
  is_old = []
  for batch in itertools.islice(iterator, 12):
    is_old += [bool((row >= 4900).any()) for row in batch['encoder_input_tokens']]  # sentinels: of text alone
  assert waiting > 2 and is_old == [n % 2 == 1 and n < 2 * waiting for n in range(96)]


@PACKERS
@pytest.mark.parametrize('unit', ['examples', 'tokens'])
def test_it_is_resumed_at_every_step_on_any_number_of_hosts(config, pack, unit):
  chosen = scheduled(config, BOTH, (2, PAIRS), (5, DOCS), (6, BOTH), unit=unit, pack=pack)
  alone = pipeline.build(chosen)
  expected, state, found = hashed(alone, 9), '', []
  for hosts in itertools.islice(itertools.cycle((1, 2, 4)), 9):
    parts = [pipeline.build(chosen, rows=rows) for rows in np.split(np.arange(8), hosts)]
    if state:
      for part in parts:
        part.set_state(json.loads(state))
    batches = [next(part) for part in parts]
    found.append(hashes.batch_hash({name: np.concatenate([b[name] for b in batches]) for name in batches[0]}))
    state = json.dumps(pipeline.merge_states([part.get_state() for part in parts]))
  assert found == expected and json.loads(state) == alone.get_state()


@PACKERS
@pytest.mark.parametrize(('unit', 'shares'), [('examples', 'examples_per_task'), ('tokens', 'tokens_per_task')])
def test_the_shares_of_a_stage_are_those_of_its_own_tasks(config, add_text_task, pack, unit, shares):
  add_text_task('old', [range(100, 140)])
  rates = (('docs', 1.0), ('pairs', 3.0))
  iterator = pipeline.build(scheduled(config, (('old', 1.0),), (3, rates), unit=unit, pack=pack, shards=1))
  for _ in itertools.islice(iterator, 150):
    pass
  old, docs, pairs = delivered(iterator, shares)
  assert iterator.task_names == ('old', 'docs', 'pairs') and old > 0
  assert pairs / (docs + pairs) == pytest.approx(0.75, abs=0.03)


@PACKERS
def test_no_task_is_starved_by_stages_of_one_step(config, pack):
  """Where tasks take turns at every step, each has rows though the other's are open."""
  turns = [(step, PAIRS if step % 2 else DOCS) for step in range(1, 20)]
  config = dataclasses.replace(scheduled(config, DOCS, *turns, pack=pack, shards=2), batch_size=2)
  iterator = pipeline.build(config)
  for _ in itertools.islice(iterator, 20):
    pass
  assert (delivered(iterator) > 20).all()
  for _ in itertools.islice(iterator, 70):
    pass
  open_parts, drawn = held(iterator)
  assert open_parts == {1} and delivered(iterator)[0] == drawn[0]


@PACKERS
def test_a_schedule_that_ends_no_task_changes_nothing(config, pack):
  plain, same = (scheduled(config, BOTH, *stages, pack=pack, shards=8) for stages in ((), ((3, BOTH),)))
  assert hashed(pipeline.build(plain), 12) == hashed(pipeline.build(same), 12)
