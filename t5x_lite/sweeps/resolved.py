"""How gin files become values, and what these amount to: `sweeps` knows neither gin nor models, and is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from t5x_lite.sweeps.budget import Cost
from t5x_lite.sweeps.spec import Settings


class Variant(Protocol):
  """Gin files and bindings, resolved; see `cli.variants`."""

  values: Mapping[str, str]
  text: str

  def values_below(self, parameter: str) -> dict[str, str]:
    """The values that one argument of the call is made of, or an argument of an argument: `dataset.tokenizer`."""


class Resolver(Protocol):
  """How gin files become values, and what these amount to: `sweeps` knows neither gin nor models."""

  def run(self, settings: Settings, *, strict: bool = True) -> Variant:
    """The configuration of a training run; raises UsageError for what training would refuse."""

  def evaluation(self, run: Variant, settings: Settings) -> Variant:
    """The configuration of an evaluation of a run that has ended."""

  def cost(self, variant: Variant) -> Cost:
    """What a run takes."""

  def order(self, variant: Variant) -> str | None:
    """The hash of the documents that a run reads, in their order; None where they are not on this machine."""

  def tasks(self, variant: Variant, parameter: str) -> Sequence[str]:
    """The tasks of an evaluation set, or of choices, the argument called `parameter`; none where it is None."""


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
  """`name: old -> new` for each resolved value that differs; one that several scopes share is named once."""
  found: dict[str, None] = {}
  for key in sorted(old.keys() | new.keys(), key=lambda key: key.rpartition('/')[2]):
    before, after = old.get(key, 'not set'), new.get(key, 'not set')
    if before != after:
      found[f'{key.rpartition("/")[2]}: {before} -> {after}'] = None
  return tuple(found)
