"""Literals against annotations: what is taken, what it becomes, what is refused."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from t5x_lite.cli.conform import Mismatch, check_made, conform


@dataclasses.dataclass
class Thing:
  pass


class Spoken(Protocol):
  def speak(self) -> str: ...


class Color(enum.StrEnum):
  RED = 'red'


@pytest.mark.parametrize(
  ('value', 'annotation', 'expected'),
  [
    (3, int, 3),
    (3, float, 3.0),
    (3, float | None, 3.0),
    (3, int | float, 3),
    (3.5, int | float, 3.5),
    (None, int | None, None),
    (True, bool, True),
    ('x', str | pathlib.Path, 'x'),
    ('x', pathlib.Path, 'x'),
    ('a', Literal['a', 'b'], 'a'),
    ([1, 2], tuple[int, ...], (1, 2)),
    ((1, 'a'), tuple[int, str], (1, 'a')),
    ([1, 2], Sequence[float], [1.0, 2.0]),
    ({'a': 1}, Mapping[str, float], {'a': 1.0}),
    ({'a': (1,)}, dict[str, tuple[float, ...]], {'a': (1.0,)}),
    ('bfloat16', np.dtype, 'bfloat16'),
    ('red', Color, 'red'),
    (Thing, Any, Thing),
    (0.1, float | Callable[[int], float], 0.1),
  ],
)
def test_what_suits_is_taken_as_what_the_annotation_wants(value, annotation, expected):
  result = conform(value, annotation)
  assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
  ('value', 'annotation', 'expected'),
  [
    ('3', int, 'expected int, got'),
    (3.0, int, 'expected int, got 3.0'),
    (True, int, 'expected int'),
    (True, float, 'expected float'),
    (None, int, 'expected int, got None'),
    (1, str, 'expected str'),
    (1, str | None, 'expected str or None'),
    ('true', bool, 'did you mean True'),
    ('c', Literal['a', 'b'], "expected 'a' or 'b'"),
    ((1,), tuple[int, int], r'expected tuple\[int, int\]'),
    ('abc', Sequence[str], 'expected'),
    ([1], dict[str, int], 'expected dict'),
    ({1: 1}, dict[str, int], 'expected str, got 1'),
    ('x', Thing, 'Thing'),
    ('x', Callable[[int], float], 'expected'),
    (1, Spoken | None, 'Spoken'),
  ],
)
def test_what_does_not_suit_is_refused(value, annotation, expected):
  with pytest.raises(Mismatch, match=expected):
    conform(value, annotation)


def test_what_a_reference_makes():
  check_made(Thing, True, Thing | None)
  check_made(Thing, True, Spoken)  # Whether it speaks is seen when it has to.
  check_made(lambda: Thing(), True, Thing)
  check_made(Thing, False, Callable[..., Any])
  with pytest.raises(Mismatch):
    check_made(Color, True, Thing)
  with pytest.raises(Mismatch, match=r'did you mean @Thing\(\)'):
    check_made(Thing, False, Thing)
