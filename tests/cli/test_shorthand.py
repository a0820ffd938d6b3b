"""Flags that stand for bindings: which words they are found in, and what a misspelt one is taken for."""

import pytest

from t5x_lite.cli import arguments, shorthand
from t5x_lite.core.errors import UsageError

SHORTHANDS = [
  shorthand.Shorthand('num_beams', 'Options.num_beams', ''),
  shorthand.Shorthand('do_sample', 'Options.do_sample', '', is_bool=True),
  shorthand.Shorthand('length_penalty', 'Options.length_penalty', ''),
]


@pytest.mark.parametrize(
  ('words', 'expected'),
  [
    (['--num_beams=4'], ['--gin.Options.num_beams=4']),
    (['-num_beams=4'], ['--gin.Options.num_beams=4']),
    (['--num_beams', '4', '--x'], ['--gin.Options.num_beams=4', '--x']),
    (['--length_penalty', '-0.5'], ['--gin.Options.length_penalty=-0.5']),
    (['--do_sample', '--nodo_sample'], ['--gin.Options.do_sample=True', '--gin.Options.do_sample=False']),
    (['--output', 'num_beams', '--num_beams=word'], ['--output', 'num_beams', "--gin.Options.num_beams='word'"]),
  ],
)
def test_a_flag_is_a_binding(words, expected):
  assert shorthand.as_bindings(words, SHORTHANDS) == expected


@pytest.mark.parametrize('word', ['--num_beems=2', '--num_beam', '-num_bems=2'])
def test_a_misspelt_flag_is_taken_for_the_nearest_of_all(word):
  words = shorthand.as_bindings(['infer', '--do_sample', word], SHORTHANDS)
  with pytest.raises(UsageError, match="did you mean '--num_beams'"):
    arguments.parse(words, lambda values: shorthand.define(values, SHORTHANDS))
