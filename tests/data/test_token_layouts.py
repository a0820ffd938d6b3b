"""Frames of texts, and how they give way."""

import pytest

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import token_layouts


def one_at_a_time(first, second, room):
  """`longest_first` by its definition: the longer one loses its last id until both fit."""
  while len(first) + len(second) > room:
    if len(first) > len(second):
      first = first[:-1]
    else:
      second = second[:-1]
  return first, second


def test_the_longer_text_gives_way_first():
  for n in range(7):
    for m in range(7):
      for room in range(14):
        first, second = list(range(n)), list(range(10, 10 + m))
        made = token_layouts.truncate_longest_first(first, second, room)
        wanted = one_at_a_time(first, second, room)
        assert sum(map(len, made)) == min(n + m, room)
        assert made == (first[: len(made[0])], second[: len(made[1])])
        for ours, by_definition in zip(made, wanted, strict=True):
          assert abs(len(ours) - len(by_definition)) <= 1  # who has the odd one differs


@pytest.mark.parametrize(
  ('processor', 'expected'),
  [
    ({'type': 'BertProcessing', 'sep': ['[SEP]', 3], 'cls': ['[CLS]', 2]}, '[CLS] $A [SEP] $B:1 [SEP]:1'),
    (
      {'type': 'RobertaProcessing', 'sep': ['</s>', 2], 'cls': ['<s>', 0], 'trim_offsets': True},
      '<s> $A </s> </s> $B </s>',
    ),
    (
      {
        'type': 'Sequence',
        'processors': [
          {'type': 'ByteLevel'},
          {
            'type': 'TemplateProcessing',
            'single': [{'Sequence': {'id': 'A', 'type_id': 0}}],
            'pair': [
              {'SpecialToken': {'id': '<s>', 'type_id': 0}},
              {'Sequence': {'id': 'A', 'type_id': 0}},
              {'Sequence': {'id': 'B', 'type_id': 2}},
            ],
          },
        ],
      },
      '<s> $A $B:2',
    ),
  ],
)
def test_frames_in_tokenizer_json(processor, expected):
  _, pair = token_layouts.template_of_json(processor)
  assert pair == token_layouts.template(expected)


def test_some_processors_frame_nothing():
  assert token_layouts.template_of_json(None) is None
  assert token_layouts.template_of_json({'type': 'ByteLevel', 'trim_offsets': True}) is None


def test_special_tokens_of_all_families_are_in_their_frames():
  for layout in token_layouts.LAYOUTS.values():
    for frame in (layout.single, layout.pair):
      assert {name for name, _ in frame} <= {*layout.roles, token_layouts.FIRST, token_layouts.SECOND}
  with pytest.raises(errors.UsageError, match="unknown token layout 'xlnett': did you mean 'xlnet'"):
    token_layouts.layout('xlnett')
