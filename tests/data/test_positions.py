"""A stream that takes over the position of another one: the same, or the documents behind those that were read."""

import dataclasses
import itertools

import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.data import pipeline, positions
from t5x_lite.objectives import span_corruption

FIRST, SIZE, COUNT = 100, 20, 200


@pytest.fixture
def numbered(config, add_text_task):
  """Documents of 20 tokens each, of which every token tells the document."""
  documents = np.arange(FIRST, FIRST + SIZE * COUNT).reshape(COUNT, SIZE)
  add_text_task('numbered', documents, validation=documents[:9])
  return dataclasses.replace(config, mixture_or_task_name='numbered')


def _documents(batches):
  """The documents that batches are made of."""
  tokens = np.concatenate(
    [batch[f'{side}_input_tokens'].ravel() for batch in batches for side in ('encoder', 'decoder')]
  )
  return set(((tokens[(tokens >= FIRST) & (tokens < FIRST + SIZE * COUNT)] - FIRST) // SIZE).tolist())


def _read(config, batches, state=None):
  iterator = pipeline.build(config)
  if state is not None:
    iterator.set_state(state)
  return list(itertools.islice(iterator, batches)), iterator


def test_the_same_stream_goes_on_where_it_was(numbered):
  made, _ = _read(numbered, 5)
  _, iterator = _read(numbered, 3)
  state, how = positions.taken_over(iterator.data, iterator.get_state(), None)
  assert how == positions.CONTINUED
  again, _ = _read(numbered, 2, state)
  for ours, theirs in zip(again, made[3:], strict=True):
    for name, values in theirs.items():
      np.testing.assert_array_equal(ours[name], values)


@pytest.mark.parametrize(
  'change',
  [
    {'objective': span_corruption.SpanCorruption(noise_density=0.15, mean_noise_span_length=2.0)},
    {'task_feature_lengths': {'inputs': 40, 'targets': 24}},
    {'pack': False},
  ],
)
def test_other_examples_are_made_of_documents_that_were_not_read(numbered, change):
  before, iterator = _read(numbered, 4)
  other = dataclasses.replace(numbered, **change)
  state, how = positions.taken_over(pipeline.build(other).data, iterator.get_state(), positions.CONTINUE)
  assert how == positions.DOCUMENTS
  after, continued = _read(other, 4, state)
  assert _documents(before) and _documents(after) and not _documents(before) & _documents(after)
  assert _documents(_read(other, 4)[0]) & _documents(before)  # which from the beginning they would not be
  assert continued.get_state()['batches'] == 4
  _read(other, 1, continued.get_state())  # and is a position like any other


@pytest.mark.parametrize('change', [{'seed': 3}, {'shuffle': False}, {'mixture_or_task_name': 'docs'}])
def test_other_documents_begin_at_their_beginning_and_never_silently(numbered, change):
  _, iterator = _read(dataclasses.replace(numbered, shuffle=True), 2)
  data = pipeline.build(dataclasses.replace(numbered, shuffle=True) if 'seed' in change else numbered).data
  data = pipeline.build(dataclasses.replace(data.config, **change)).data
  assert positions.taken_over(data, iterator.get_state(), None) == (None, positions.RESTARTED)
  with pytest.raises(UsageError, match='expected --branch_data=restart'):
    positions.taken_over(data, iterator.get_state(), positions.CONTINUE)


def test_a_restart_is_one(numbered):
  _, iterator = _read(numbered, 2)
  assert positions.taken_over(iterator.data, iterator.get_state(), 'restart') == (None, positions.RESTARTED)
  with pytest.raises(UsageError, match="did you mean 'restart'"):
    positions.taken_over(iterator.data, iterator.get_state(), 'restar')


def test_a_checkpoint_without_data_has_no_position(numbered):
  data = pipeline.build(numbered).data
  assert positions.taken_over(data, {}, None) == (None, positions.RESTARTED)
