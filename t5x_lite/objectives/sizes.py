"""How much text fits into an example: into inputs and targets of their own lengths, or into one row that has both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Sizes = Callable[[int], tuple[int, int]]  # tokens of text -> the longest inputs and targets of it, EOS included

IN_ONE_ROW = {'targets'}  # the names of the lengths of a decoder-only model whose row has inputs and targets
_KNOWN = (IN_ONE_ROW, {'inputs', 'targets'})


def are_known(feature_lengths: Mapping[str, int]) -> bool:
  """Whether these are the lengths of inputs and targets, or of one row for both."""
  return set(feature_lengths) in _KNOWN


def fits(sizes: tuple[int, int], feature_lengths: Mapping[str, int]) -> bool:
  """Whether inputs and targets of these sizes fit: each into its own length, or both into the one that there is."""
  inputs, targets = sizes
  if set(feature_lengths) == IN_ONE_ROW:
    return inputs + targets <= feature_lengths['targets']
  return inputs <= feature_lengths['inputs'] and targets <= feature_lengths['targets']


def longest_text(sizes: Sizes, feature_lengths: Mapping[str, int], shortest: int = 1) -> int:
  """The largest number of tokens that fits, with all that are smaller; `shortest - 1` if not even so many do."""
  raw = shortest - 1
  while fits(sizes(raw + 1), feature_lengths):
    raw += 1
  return raw
