import itertools

import numpy as np
import pytest

from t5x_lite.data import documents, task


def places(order, count, shards=1):
  """The first indices of an order, put together from what is dealt to the shards."""
  dealt = [order.dealt(shard, shards) for shard in range(shards)]
  return [dealt[place % shards](place // shards) for place in range(count)]


@pytest.mark.parametrize('count', [1, 3, 23, 2**16 + 1, 2**16 + 2])  # the last two are Grain's to shuffle
def test_every_epoch_is_a_permutation_of_its_own(count):
  order = documents.Order(count, seed=(7, 0), repeat=True)
  first, second = np.split(np.array(places(order, 2 * count)), 2)
  np.testing.assert_array_equal(np.sort(first), np.arange(count))
  if count < 2**16:
    np.testing.assert_array_equal(np.sort(second), np.arange(count))
  if count > 3:
    assert not np.array_equal(first, second)
    assert abs(np.corrcoef(first, np.arange(count))[0, 1]) < 0.5


@pytest.mark.parametrize('count', [23, 2**16 + 1])
def test_seed_and_part_decide_the_order(count):
  def order(seed):
    return places(documents.Order(count, seed, repeat=True), 20)

  assert order((1, 0)) == order((1, 0))
  assert order((1, 0)) != order((2, 0))
  assert order((1, 0)) != order((1, 1))


@pytest.mark.parametrize('shards', [2, 5, 40])
@pytest.mark.parametrize('seed', [None, (0, 0)])
def test_dealing_out_keeps_the_order(seed, shards):
  order = documents.Order(23, seed, repeat=True)
  assert places(order, 100, shards) == places(order, 100)


@pytest.mark.parametrize('shards', [1, 2, 5, 40])
@pytest.mark.parametrize('seed', [None, (0, 0)])
def test_a_finite_order_ends(seed, shards):
  order = documents.Order(23, seed, repeat=False)
  found = places(order, 200, shards)
  assert sorted(found[:23]) == list(range(23))
  assert set(found[23:]) == {None}


class Counting(list):
  """Records that count how often they are read."""

  reads = 0

  def __getitems__(self, indices):
    self.reads += 1
    return [self[index] for index in indices]


def reader(texts, tokenizer, repeat=True):
  records = Counting({'text': text} for text in texts)
  order = documents.Order(len(records), None, repeat)
  tokenise = documents.tokenise_text(task.Task('t', None, lambda record: record), tokenizer)
  return documents.DocumentReader('t', records, order.dealt(0, 1), tokenise), records


def test_documents_by_any_number_in_any_order(number_tokenizer):
  documents_of, _ = reader([str(10 + i) for i in range(50)], number_tokenizer)
  rng = np.random.default_rng(0)
  for number in itertools.chain(range(120), rng.integers(0, 200, 60).tolist()):
    assert documents_of.get(number).tolist() == [10 + number % 50]


def test_reading_ahead_starts_small_and_grows(number_tokenizer):
  documents_of, records = reader([str(10 + i) for i in range(50)], number_tokenizer)
  assert documents_of.get(0).tolist() == [10]
  assert documents_of.get(1000) is not None
  before = records.reads
  for number in range(1001, 1400):
    documents_of.get(number)
  assert records.reads - before < 20


def test_long_documents_are_not_read_ahead_by_the_dozen(number_tokenizer):
  documents_of, records = reader(['7 ' * 20000] * 50, number_tokenizer)
  for number in range(12):
    assert len(documents_of.get(number)) == 20000
  assert records.reads >= 6


def test_empty_documents_are_passed_over(number_tokenizer):
  documents_of, _ = reader(['', '', '5 6', '', '7', ''], number_tokenizer, repeat=False)
  number, tokens, dropped = documents_of.next_filled(0)
  assert (number, tokens.tolist(), dropped) == (2, [5, 6], 2)
  number, tokens, dropped = documents_of.next_filled(3)
  assert (number, tokens.tolist(), dropped) == (4, [7], 1)
  assert documents_of.next_filled(5) == (6, None, 1)  # the end, and what was left out on the way to it
  assert documents_of.next_filled(6) == (6, None, 0)
