"""Who is found lost, who is told, and what it is told, with a store in memory and a clock that only the test moves."""

from __future__ import annotations

import threading
import time

import jax
import pytest

from t5x_lite.training import coordination, signs, watch
from t5x_lite.training.signs import Judge, Sign


class MemoryStore:
  """What the coordination service does, within this process; `gone` makes it fail as after the death of process 0."""

  def __init__(self):
    self.texts, self.changed, self.gone = {}, threading.Condition(), False

  def put(self, key, text):
    with self.changed:
      if self.gone:
        raise OSError('unavailable')
      self.texts[key] = text
      self.changed.notify_all()

  def read(self, folder):
    with self.changed:
      start = f'{folder}/'
      return {key.removeprefix(start): text for key, text in self.texts.items() if key.startswith(start)}

  def wait(self, key, seconds):
    with self.changed:
      if self.gone:
        raise OSError('unavailable')
      self.changed.wait_for(lambda: key in self.texts or self.gone, seconds)
      return self.texts.get(key)


def sign(beat, **fields):
  return Sign(beat, 'host a, pid 7', **fields)


def test_a_silent_process_is_named_with_what_it_did_last_and_one_that_has_ended_is_not():
  judge = Judge([1, 2, 3], 10.0, 0.0)
  still = sign(1, step=40, doing=signs.DATA)
  assert judge.look({1: sign(1), 2: still, 3: sign(1, ended=True)}, 4.0) is None
  assert judge.look({1: sign(2), 2: still, 3: sign(1, ended=True)}, 8.0) is None
  assert judge.look({1: sign(3), 2: still, 3: sign(1, ended=True)}, 12.0) is None
  lost = judge.look({1: sign(4), 2: still, 3: sign(1, ended=True)}, 16.0)
  assert lost == 'process 2 (host a, pid 7) has been silent for 12 s: it was at step 40, reading data'


def test_a_process_that_never_gave_a_sign_is_lost_too():
  judge = Judge([1], 10.0, 0.0)
  assert judge.look({}, 4.0) is None and judge.look({}, 8.0) is None
  assert judge.look({}, 12.0) == 'process 1 has been silent for 12 s: it never gave a sign'


def test_a_judge_that_was_stopped_itself_blames_nobody():
  judge = Judge([1], 10.0, 0.0)
  judge.look({1: sign(1)}, 1.0)
  assert judge.look({1: sign(1)}, 500.0) is None
  assert judge.look({1: sign(2)}, 502.0) is None


def test_those_who_do_not_wait_for_the_device_are_behind():
  judge = Judge([1, 2], 10.0, 0.0)
  judge.look({1: sign(1, step=7, doing=signs.DEVICE), 2: sign(1, step=7, doing=signs.DATA)}, 1.0)
  own = sign(1, step=7, doing=signs.DEVICE)
  assert judge.behind(own) == 'process 2 (host a, pid 7) is at step 7, reading data'


@pytest.fixture
def processes(monkeypatch):
  """Makes the watches of several processes that share one store; what ends them is kept instead of ending the test."""
  store, ended, made = MemoryStore(), {}, []

  def make(count, timeout=1.0):
    monkeypatch.setattr(jax, 'process_count', lambda: count)
    for process in range(count):
      monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
      one = watch.Watch(timeout, store, lambda text, stacks, process=process: ended.setdefault(process, (text, stacks)))
      one._folder = 'test'  # In processes of their own they would have the same number.
      made.append(one)
    return made, ended, store

  yield make
  for one in made:
    one.close()


def until(condition):
  deadline = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_all_processes_are_told_of_the_one_that_falls_silent(processes):
  watches, ended, _ = processes(3)
  for one in watches[:2]:
    one.start()
  watches[1].at(3, signs.DEVICE)
  until(lambda: {0, 1} <= ended.keys())
  assert ended[0][0] == ended[1][0] and ended[0][0].startswith('process 2 has been silent')
  assert 2 not in ended


def test_others_notice_that_process_0_no_longer_answers(processes):
  watches, ended, store = processes(2)
  watches[1].start()
  watches[1].at(3, signs.DEVICE)
  with store.changed:
    store.gone = True
    store.changed.notify_all()
  until(lambda: 1 in ended)
  assert ended[1][0].startswith('process 0 (the coordinator) has not answered')
  store.gone = False


def test_a_process_that_fails_tells_why_unless_the_others_end_on_their_own(processes, monkeypatch):
  monkeypatch.setattr(watch, '_GRACE_SECONDS', 0.3)
  watches, ended, _ = processes(3, timeout=30.0)
  for one in watches:
    one.start()
  watches[2].close()
  watches[1].fail('UsageError: no such file')
  until(lambda: 0 in ended)
  text, stacks = ended[0]
  assert text.startswith('process 1 (host ') and text.endswith('failed: UsageError: no such file') and not stacks
  assert ended.keys() == {0}


def test_a_step_without_progress_ends_the_run_with_the_stacks_but_not_outside_of_training():
  ended = []
  alone = watch.Watch(end=lambda text, stacks: ended.append((text, stacks)))
  alone.arm(0.2)
  with alone.paused():
    time.sleep(1.0)
    assert not ended
  alone.at(12, signs.DATA)
  until(lambda: ended)
  alone.close()
  text, stacks = ended[0]
  assert (
    text.startswith('no progress for ')
    and ': process 0 (host ' in text
    and text.endswith('is at step 12, reading data')
  )
  assert stacks


def test_what_is_no_step_has_a_limit_of_its_own_which_progress_renews():
  ended = []
  alone = watch.Watch(end=lambda text, stacks: ended.append((text, stacks)))
  alone.arm(0, 0.4)
  for _ in range(8):  # as the batches of an evaluation do
    time.sleep(0.1)
    alone.progress()
  assert not ended
  until(lambda: ended)  # before the first step
  assert ended[0][0].endswith('is before its first step') and ended[0][1]
  alone.close()
  ended.clear()
  later = watch.Watch(end=lambda text, stacks: ended.append((text, stacks)))
  later.arm(0, 0.4)
  later.at(3, signs.DEVICE)
  time.sleep(1.0)
  assert not ended  # a step may take for ever here
  with later.paused():
    until(lambda: ended)
  assert ended[0][0].endswith('is at step 3, not training')
  later.close()


def test_one_process_alone_starts_no_thread():
  before = threading.active_count()
  alone = watch.Watch()
  alone.start()
  alone.arm(0)
  assert threading.active_count() == before
  alone.close()


@pytest.mark.parametrize(
  ('error', 'of_another'),
  [
    (jax.errors.JaxRuntimeError('UNKNOWN: Gloo all-reduce failed: Connection closed by peer'), True),
    (ValueError('INTERNAL: Gloo context initialization failed'), True),
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes.'), False),
    (ValueError('12 is no multiple of 8'), False),
  ],
)
def test_memory_that_is_used_up_is_no_fault_of_another_process(error, of_another, monkeypatch):
  assert not coordination.comes_of_another(error)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  assert coordination.comes_of_another(error) == of_another
