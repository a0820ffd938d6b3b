"""Texts that end a row, found while ids are written, however they are spread over tokens.

All texts are one automaton (Aho and Corasick 1975) over bytes. A token moves it by all its bytes at once, which is
looked up in a table that is made before the program runs; a row carries one number.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
from flax import struct


class StopTable(struct.PyTreeNode):
  """The automaton by tokens.

  Attributes:
    following: int32 `[S, V]`, the state after a token.
    hits: bool `[S, V]`, whether a text is complete within it.
  """

  following: np.ndarray
  hits: np.ndarray


def stop_table(stop_strings: Sequence[str], tokens: Sequence[bytes]) -> StopTable:
  """The table of some texts, none of them empty, for a vocabulary given by the bytes of its tokens."""
  following, final = _automaton([text.encode() for text in stop_strings])
  longest = max(map(len, tokens), default=0)
  padded = np.full((len(tokens), longest), 256, np.int32)
  for number, token in enumerate(tokens):
    padded[number, : len(token)] = np.frombuffer(token, np.uint8)
  # Byte 256 is none: the state stays, and nothing is completed.
  stay = np.arange(len(following), dtype=np.int32)[:, None]
  steps = np.concatenate([following, stay], axis=1)
  states = np.broadcast_to(stay, (len(following), len(tokens))).copy()
  hits = np.zeros(states.shape, bool)
  for place in range(longest):
    byte = padded[:, place]
    states = steps[states, byte[None]]
    hits |= final[states] & (byte < 256)
  return StopTable(states.astype(np.int32), hits)


def _automaton(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
  """The state after each byte, int32 `[S, 256]`, and whether a text ends in a state, bool `[S]`."""
  children: list[dict[int, int]] = [{}]
  final = [False]
  for text in texts:
    state = 0
    for byte in text:
      if byte not in children[state]:
        children[state][byte] = len(children)
        children.append({})
        final.append(False)
      state = children[state][byte]
    final[state] = True
  following = np.zeros((len(children), 256), np.int32)
  queue = collections.deque([0])
  fallback = [0] * len(children)
  while queue:
    state = queue.popleft()
    if state:
      following[state] = following[fallback[state]]
      final[state] |= final[fallback[state]]
    for byte, child in children[state].items():
      fallback[child] = int(following[state, byte]) if state else 0
      following[state, byte] = child
      queue.append(child)
  return following, np.asarray(final)
