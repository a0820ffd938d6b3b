"""Packing that fills: rows are full, no token is lost, and the stream is what it is on any hosts, after any restart."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from t5x_lite.core import errors
from t5x_lite.data import features, filling, hashes, opened, packing, pipeline
from t5x_lite.data.features import DecoderOnlyFeatures, EncoderDecoderFeatures
from t5x_lite.objectives.denoising import Denoising
from t5x_lite.objectives.prefix_lm import PrefixLM
from t5x_lite.objectives.span_corruption import SpanCorruption
from t5x_lite.objectives.ul2 import UL2

LENGTHS = {'encoder': 60, 'decoder': 40}
CONVERTER = EncoderDecoderFeatures()


def entry(inputs, targets, number=0, *, text=0, shorten=None, stream=0):
  arrays = {'inputs': np.full(inputs, number, np.int32), 'targets': np.full(targets, number, np.int32)}
  example = CONVERTER(arrays)
  return packing.Entry(example, number, stream=stream, number=number, text=text, shorten=shorten)


class Texts:
  """A text of many tokens as a shard would hand it out: an example of n tokens has about n times its rates, and EOS."""

  def __init__(self, seed, whole=30):
    self.rng, self.whole = np.random.default_rng(seed), whole
    self.number, self.used = 0, []

  def make(self, rates, number, text):
    sizes = [1 + int(rate * text) for rate in rates]
    return entry(*sizes, number, text=text)

  def next(self):
    rates, number = self.rng.uniform(0.2, 1.0, 2) * (0.9, 0.6), self.number
    self.number += 1
    self.used.append(self.whole)

    def shorten(whole, rooms, least):
      made = filling.longest(whole, rooms, least, lambda text: self.make(rates, number, text))
      if made is not None:
        self.used[-1] = made.text
        return dataclasses.replace(made, text=0)
      return None

    return dataclasses.replace(self.make(rates, number, self.whole), shorten=shorten)


# First fit fills 0.941 and 0.909 of the first two. Texts of 90 tokens have to be cut for an empty row.
@pytest.mark.parametrize(('whole', 'least'), [(10, 0.95), (30, 0.93), (90, 0.8)])
@pytest.mark.parametrize('seed', range(2))
def test_rows_hold_every_example_once_and_are_full(seed, whole, least):
  texts, packer = Texts(seed, whole), filling.FillingPacker(LENGTHS, 16)
  rows = []
  for _ in range(1500):
    rows.append(packer.add(texts.next()))
    assert len(packer.open) <= 16
  rows = [row for row in rows if row is not None]
  assert sum(sum(row.used.values()) for row in rows) / (len(rows) * sum(LENGTHS.values())) > least
  while packer.open:
    rows.append(packer.pop_fullest())
  assert packer.pop_fullest() is None
  assert sorted(own.address for row in rows for own in row.entries) == list(range(1500))
  for row in rows:
    assert all(row.used[side] == sum(own.length(side) for own in row.entries) <= LENGTHS[side] for side in LENGTHS)


def test_examples_that_cannot_be_cut_stay_whole():
  rng, packer = np.random.default_rng(0), filling.FillingPacker(LENGTHS, 4)
  sizes = [(int(a), int(b)) for a, b in zip(rng.integers(1, 61, 300), rng.integers(1, 41, 300), strict=True)]
  rows = [packer.add(entry(*size, number)) for number, size in enumerate(sizes)]
  while packer.open:
    rows.append(packer.pop_fullest())
  found = {own.number: (own.length('encoder'), own.length('decoder')) for row in rows if row for own in row.entries}
  assert found == dict(enumerate(sizes))


def test_nothing_waits_for_ever():
  """An odd example, whose room on the other side nothing fits, is returned while others come and go."""
  packer = filling.FillingPacker(LENGTHS, 4)
  assert packer.add(entry(58, 1, 0)) is None
  for number in range(1, 1000):
    row = packer.add(entry(30, 20, number))
    if row is not None and row.entries[0].number == 0:
      return
  pytest.fail('the first row is still open after 1000 examples')


def test_groups_keep_to_themselves():
  packer = filling.FillingPacker(LENGTHS, 4)
  rows = [packer.add(dataclasses.replace(entry(7, 5, number), group=number % 2)) for number in range(200)]
  assert all(len({own.group for own in row.entries}) == 1 for row in rows if row)
  assert sum(row is not None for row in rows) > 10


def test_an_example_that_never_fits_is_refused():
  texts = Texts(0)
  never = dataclasses.replace(
    entry(70, 10, text=50),
    shorten=lambda whole, rooms, least: filling.longest(whole, rooms, least, lambda text: entry(61, 1, text=text)),
  )
  with pytest.raises(errors.UsageError, match='70 tokens of the encoder and 10 tokens of the decoder'):
    filling.FillingPacker(LENGTHS).add(never)
  assert filling.FillingPacker(LENGTHS).add(texts.next()) is None


@settings(max_examples=100, deadline=None)
@given(
  text=st.integers(1, 600),
  rates=st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 1.5)),
  noise=st.integers(0, 9),
  rooms=st.tuples(st.integers(1, 400), st.integers(1, 400)),
  least=st.integers(1, 40),
)
def test_the_longest_text_that_fits_is_found(text, rates, noise, rooms, least):
  rooms = dict(zip(LENGTHS, rooms, strict=True))

  def make(tokens):
    bump = noise * (tokens % 7) // 7  # sizes need not grow with the text
    return entry(*(1 + int(rate * tokens) + bump for rate in rates), text=tokens)

  whole = make(text)
  assume(any(whole.length(side) > room for side, room in rooms.items()))
  made = filling.longest(whole, rooms, least, make)
  if made is None:
    assert noise or least >= text or any(make(least).length(side) > room for side, room in rooms.items())
    return
  assert least <= made.text < text
  assert all(made.length(side) <= room for side, room in rooms.items())
  if not noise:  # what another token of text adds on some side is more than there is room for
    left = [room - made.length(side) for side, room in rooms.items()]
    assert any(room <= rate + 1 for room, rate in zip(left, rates, strict=True))


def filled(config, name, **changes):
  return dataclasses.replace(config, mixture_or_task_name=name, pack='fill', text_length=14, **changes)


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def same(got, expected):
  assert len(got) == len(expected)
  for ours, theirs in zip(got, expected, strict=True):
    for name in theirs:
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


OBJECTIVES = [PrefixLM(), Denoising(noise_density=0.3), UL2((('', 2.0, 0.2, 1.0), ('', None, 0.5, 1.0)), 0)]


@pytest.mark.parametrize('unit', ['examples', 'tokens'])
@pytest.mark.parametrize('objective', OBJECTIVES, ids=lambda own: type(own).__name__)
def test_it_is_resumed_anywhere(config, registry, objective, unit):
  registry.register(registry_mixture('counted', unit))
  config = filled(config, 'counted', objective=objective)
  iterator = pipeline.build(config)
  states, batches = [json.dumps(iterator.get_state())], []
  for _ in range(10):
    batches.append(next(iterator))
    states.append(json.dumps(iterator.get_state()))
  resumed = pipeline.build(config)
  for at in (0, 1, 4, 7, 2):
    resumed.set_state(json.loads(states[at]))
    same(take(resumed, 3), batches[at : at + 3])
    assert json.dumps(resumed.get_state()) == states[at + 3]


@pytest.mark.parametrize('name', ['docs', 'both'])
def test_one_pass_is_resumed_anywhere(config, name):
  config = filled(config, name, objective=PrefixLM(), repeat=False, num_virtual_shards=2)
  iterator = pipeline.build(config)
  states = [json.dumps(iterator.get_state())]
  batches = [(batch, states.append(json.dumps(iterator.get_state())))[0] for batch in iterator]
  assert len(batches) > 3
  for at in range(len(batches)):
    resumed = pipeline.build(config)
    resumed.set_state(json.loads(states[at]))
    same(list(resumed), batches[at:])
    assert json.dumps(resumed.get_state()) == states[-1]
    assert resumed.statistics() == iterator.statistics()


def registry_mixture(name, unit):
  from t5x_lite.data.mixtures import Mixture

  return Mixture(name, (('docs', 3.0), ('pairs', 1.0)), unit=unit)


@pytest.mark.parametrize('hosts', [2, 8])
def test_it_is_the_same_on_any_number_of_hosts(config, hosts):
  config = filled(config, 'both', objective=PrefixLM(), num_virtual_shards=4)
  assert [own.batch for own in hashes.batch_hashes(config, 6, hosts)] == [
    own.batch for own in hashes.batch_hashes(config, 6, 1)
  ]


@pytest.mark.parametrize('objective', OBJECTIVES, ids=lambda own: type(own).__name__)
@pytest.mark.parametrize('decoder', [False, True])
def test_no_token_is_lost(config, objective, decoder):
  """One pass: the tokens of the documents are those of the examples, each once, and the sums say so."""
  given = {'features': DecoderOnlyFeatures(), 'task_feature_lengths': {'targets': 32}} if decoder else {}
  config = filled(config, 'docs', objective=objective, repeat=False, shuffle=False, num_virtual_shards=1, **given)
  iterator = pipeline.build(config)
  batches = list(iterator)
  found = np.concatenate([batch[name].ravel() for batch in batches for name in batch if name.endswith('input_tokens')])
  targets = np.concatenate([batch['decoder_target_tokens'].ravel() for batch in batches])
  seen = targets if decoder else np.concatenate([found, targets])
  text = np.unique(seen[(seen >= 100) & (seen < 4000)])
  np.testing.assert_array_equal(text, 100 + np.arange(len(text)))
  of_documents = sum(len(record['doc'].split()) for record in iterator.data.parts[0].records)
  assert len(text) == of_documents
  statistics = iterator.statistics()
  assert statistics['truncated_per_task'] == {'docs': 0}
  assert statistics['dropped_per_task'] == {'docs': sum(not record['doc'] for record in iterator.data.parts[0].records)}
  segments = sum(batch['decoder_segment_ids'].max(axis=1).sum() for batch in batches)
  assert statistics['examples_per_task'] == {'docs': segments}


def test_arms_that_differ_in_the_objective_read_the_same_documents_in_the_same_order(config):
  arms = [filled(config, 'docs', objective=objective) for objective in OBJECTIVES]
  arms.append(dataclasses.replace(config, mixture_or_task_name='docs'))
  assert len({hashes.order_hash(opened.open_dataset(arm)) for arm in arms}) == 1


def test_the_new_values_belong_to_the_stream(config):
  state = pipeline.build(filled(config, 'docs')).get_state()
  with pytest.raises(errors.UsageError, match=r"pack was 'fill', is 'first_fit'; text_length was 14, is None"):
    pipeline.build(dataclasses.replace(config, mixture_or_task_name='docs')).set_state(state)


def test_an_older_state_that_knows_no_text_length_is_still_good(config):
  iterator = pipeline.build(config)
  batches = take(iterator, 3)
  state = json.loads(json.dumps(iterator.get_state()))
  del state['fingerprint']['text_length']
  expected = take(iterator, 2)
  resumed = pipeline.build(config)
  resumed.set_state(state)
  same(take(resumed, 2), expected)
  assert len(batches) == 3


def test_a_shorter_text_goes_with_any_packing(config):
  config = dataclasses.replace(config, mixture_or_task_name='docs', text_length=9)
  assert pipeline.build(config).data.raw_length == 9
  for batch in take(pipeline.build(config), 2):
    ids = batch['encoder_segment_ids']
    longest = SpanCorruption(0.25, 2.0).example_lengths(9)[0]
    assert max((ids == n).sum(1).max() for n in range(1, ids.max() + 1)) == longest


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'text_length': 0}, 'text_length: got 0, expected an int of at least 1'),
    ({'text_length': 1.5}, 'text_length: got 1.5, expected an int'),
    (
      {'text_length': 50},
      r"got text_length 50 .* expected at most \d+; more goes with pack='fill' and joined documents$",
    ),
    ({'pack': 'fil'}, "'fil'.*'fill'"),
  ],
)
def test_bad_values_are_told(config, changes, message):
  with pytest.raises(errors.UsageError, match=message):
    pipeline.build(dataclasses.replace(config, mixture_or_task_name='docs', **changes))


def test_text_that_is_not_joined_is_not_cut(config, registry, add_text_task):
  add_text_task('apart', [range(100, 130), range(200, 209)])
  registry._registry['apart'] = dataclasses.replace(registry._registry['apart'], documents='split')
  fitting = dataclasses.replace(config, mixture_or_task_name='apart', pack='fill')
  next(pipeline.build(fitting))
  with pytest.raises(errors.UsageError, match="joined documents, which those of 'apart' are not"):
    pipeline.build(dataclasses.replace(fitting, text_length=90))


def test_the_sides_of_a_batch_are_those_of_other_packing(config):
  batch = next(pipeline.build(filled(config, 'docs')))
  spec = features.batch_spec(config.features, config.task_feature_lengths, config.batch_size)
  assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
    name: (leaf.shape, leaf.dtype) for name, leaf in spec.items()
  }
