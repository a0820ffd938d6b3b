import dataclasses
import itertools
import signal
import threading

import numpy as np
import pytest

from t5x_lite.data import pipeline


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_same(got, expected):
  assert len(got) == len(expected)
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.keys() == theirs.keys()
    for name in theirs:
      np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize('prefetch', [1, 3])
def test_prefetch_changes_nothing(config, prefetch):
  iterator = pipeline.build(dataclasses.replace(config, prefetch=prefetch))
  plain = pipeline.build(config)
  for _ in range(6):
    assert_same([next(iterator)], [next(plain)])
    assert iterator.get_state() == plain.get_state()
    assert iterator.statistics() == plain.statistics()
  iterator.close()


class Failing:
  """A tokenizer whose n-th call raises, once."""

  def __init__(self, tokenizer, error, at):
    self._tokenizer, self._error, self._left = tokenizer, error, at

  def __getattr__(self, name):
    return getattr(self._tokenizer, name)

  def encode_batch(self, texts):
    self._count()
    return self._tokenizer.encode_batch(texts)

  def encode_arrays(self, texts):
    self._count()
    return self._tokenizer.encode_arrays(texts)

  def _count(self):
    self._left -= 1
    if self._left == 0:
      self._at_last()

  def _at_last(self):
    raise self._error


@pytest.mark.parametrize('prefetch', [0, 2])
@pytest.mark.parametrize('error', [RuntimeError('bad record'), KeyboardInterrupt()])
def test_errors_surface_and_lose_nothing(config, number_tokenizer, prefetch, error):
  expected = take(pipeline.build(config), 12)
  iterator = pipeline.build(
    dataclasses.replace(config, prefetch=prefetch, tokenizer=Failing(number_tokenizer, error, 40))
  )
  batches = []
  with pytest.raises(type(error)):
    while True:
      batches.append(next(iterator))
  assert 0 < len(batches) < 12
  assert_same([*batches, *take(iterator, 12 - len(batches))], expected)
  iterator.close()


class Waiting(Failing):
  """A tokenizer that waits in its n-th call until it is released."""

  def _at_last(self):
    self._error.wait()


def test_control_c_while_waiting_loses_nothing(config, number_tokenizer):
  expected = take(pipeline.build(config), 8)
  release = threading.Event()
  tokenizer = Waiting(number_tokenizer, release, 25)
  iterator = pipeline.build(dataclasses.replace(config, prefetch=2, tokenizer=tokenizer))

  def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    release.set()

  timer = threading.Timer(0.3, interrupt)
  timer.start()
  batches = []
  with pytest.raises(KeyboardInterrupt):
    while True:  # faster than the timer up to the batch that waits
      batches.append(next(iterator))
  timer.join()
  assert len(batches) < 8
  assert_same([*batches, *take(iterator, 8 - len(batches))], expected)
  iterator.close()


def prefetch_threads():
  return [thread for thread in threading.enumerate() if thread.name == 't5x_lite-prefetch']


def test_close_ends_the_thread_and_keeps_the_position(config):
  expected = take(pipeline.build(config), 6)
  iterator = pipeline.build(dataclasses.replace(config, prefetch=3))
  assert not prefetch_threads()  # nothing runs before the first batch is asked for
  batches = take(iterator, 3)
  assert len(prefetch_threads()) == 1
  iterator.close()
  assert not prefetch_threads()
  assert_same([*batches, *take(iterator, 3)], expected)
  iterator.close()
