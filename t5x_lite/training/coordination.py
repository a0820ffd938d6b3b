"""A small store of texts that all processes of a run share: the one that JAX's coordination service keeps.

It lives in process 0. JAX has no public name for it; this module is the only one that uses it.
"""

from __future__ import annotations

import re
from typing import Protocol

import jax

_TIMED_OUT = re.compile(r'DEADLINE_EXCEEDED|timed out', re.IGNORECASE)

_STATUS = re.compile(r'(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ')
_OWN_STATUS = re.compile('RESOURCE_EXHAUSTED: ')


class Store(Protocol):
  """What `watch` needs of a store."""

  def put(self, key: str, text: str) -> None:
    """Writes, or overwrites."""

  def read(self, folder: str) -> dict[str, str]:
    """All keys below `folder/`, by what follows it."""

  def wait(self, key: str, seconds: float) -> str | None:
    """The text of a key as soon as somebody has written it; None if nobody has within so many seconds."""


def store() -> Store | None:
  """The store of this run; None where its only process is this one."""
  if jax.process_count() == 1:
    return None
  from jax._src import distributed

  client = distributed.global_state.client
  return None if client is None else _JaxStore(client)


class _JaxStore:
  def __init__(self, client: object):
    self._client: object = client

  def put(self, key: str, text: str) -> None:
    self._client.key_value_set(key, text, allow_overwrite=True)  # type: ignore[attr-defined]

  def read(self, folder: str) -> dict[str, str]:
    pairs = self._client.key_value_dir_get(f'{folder}/')  # type: ignore[attr-defined]
    return {key.removeprefix(f'{folder}/'): text for key, text in pairs}

  def wait(self, key: str, seconds: float) -> str | None:
    try:
      return self._client.blocking_key_value_get(key, max(1, round(1000 * seconds)))  # type: ignore[attr-defined]
    except jax.errors.JaxRuntimeError as error:
      if _TIMED_OUT.search(str(error)):
        return None
      raise


def comes_of_another(error: BaseException) -> bool:
  """Whether an error may be a collective's, whose other side is gone: JAX's own, or one that begins with its status.

  Memory that is used up is this process's own.
  """
  if jax.process_count() == 1 or _OWN_STATUS.match(str(error)):
    return False
  return isinstance(error, jax.errors.JaxRuntimeError) or bool(_STATUS.match(str(error)))
