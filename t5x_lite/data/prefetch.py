"""A background thread that keeps a few items of an iterator ready."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar('T')

_CLOSE_SECONDS = 5.0


class Prefetcher(Generic[T]):
  """Iterates over `source` in a background thread, at most `size` items ahead.

  An exception of `source` comes out of `__next__` in its place in the order, and so does its end. A KeyboardInterrupt
  while `__next__` waits loses no item. The thread is a daemon: it never keeps the process from ending.

  Args:
    source: only the thread touches it, and nobody after `close`.
    size: how many items are made ahead, at least 1.
  """

  def __init__(self, source: Iterator[T], size: int):
    assert size > 0
    self._source = source
    self._size = size
    self._items: collections.deque[T] = collections.deque()
    self._changed = threading.Condition()
    self._stopped = False
    self._end: BaseException | None = None
    self._thread = threading.Thread(target=self._fill, name='t5x_lite-prefetch', daemon=True)
    self._thread.start()

  def __iter__(self) -> Prefetcher[T]:
    return self

  def __next__(self) -> T:
    with self._changed:
      self._changed.wait_for(lambda: self._items or self._end is not None or self._stopped)
      if self._items:
        item = self._items.popleft()
        self._changed.notify_all()
        return item
      raise self._end if self._end is not None else StopIteration

  def close(self) -> None:
    """Ends the thread after the item it is at, and drops what is ready. Does not wait long for a source that hangs."""
    with self._changed:
      self._stopped = True
      self._items.clear()
      self._changed.notify_all()
    self._thread.join(timeout=_CLOSE_SECONDS)

  def _fill(self) -> None:
    end: BaseException | None = None
    while end is None:
      try:
        item = next(self._source)
      except BaseException as error:  # handed on to the reader, whatever it is
        end = error
      with self._changed:
        if end is not None:
          self._end = end
        elif not self._stopped:
          self._items.append(item)
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._stopped or len(self._items) < self._size)
        if self._stopped:
          return
