"""Offsets of pieces in the text, and which pieces go on with a word, for every family of vocabularies."""

import json
import os
import pathlib
import shutil
import unicodedata

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sentencepiece

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import offsets, sentencepiece_layout, token_layouts, word_marks
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import SentencePieceTokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'tokenizers'
FAMILIES = ('t5', 'xlnet', 'albert', 'xlm-roberta', 'bert', 'roberta', 'gpt2')
SENTENCEPIECE = FAMILIES[:4]
PUBLISHED = {
  'bert-base-cased': 'bert',
  'bert-base-uncased': 'bert',
  'gpt2': 'gpt2',
  'roberta-base': 'roberta',
  'xlnet-base-cased': 'xlnet',
  'albert-base': 'albert',
  't5-ptt5-32k': 't5',
}
SENTENCE = 'The  cat sat \u2014 on the mat,\twith 12,345 others; na\xefve caf\xe9s?\n'
ODD = st.text(max_size=24) | st.text(
  st.sampled_from("ab A\xe9\u0301\u02da\u0353\uac00\u1100\u1161`'\t\ufb01\u65e5<s>"), max_size=24
)


def open_family(family):
  if family in ('bert', 'roberta', 'gpt2'):
    pytest.importorskip('tokenizers')
  return load_tokenizer(GOLDEN / family)


@pytest.fixture(params=FAMILIES)
def tokenizer(request):
  return open_family(request.param)


def spelling(tokenizer, token_id):
  """What a piece spells, without the marks of the vocabulary."""
  if isinstance(tokenizer, SentencePieceTokenizer):
    return tokenizer._processor.id_to_piece(token_id).replace('\u2581', '')
  if tokenizer.family.name == 'bert':
    return tokenizer._backend.id_to_token(token_id).removeprefix('##')
  return tokenizer._backend.decode([token_id], skip_special_tokens=False).strip()


def normal(tokenizer, text):
  """A text as its pieces spell it."""
  if isinstance(tokenizer, SentencePieceTokenizer):
    text = sentencepiece_layout.clean(text, tokenizer.family.cleaning)
    return tokenizer._processor.normalize(text).replace('\u2581', '')
  return tokenizer._backend.normalizer.normalize_str(text) if tokenizer.family.name == 'bert' else text


def assert_in_order(text, spans):
  last = (0, 0)
  for start, end in spans:
    assert 0 <= start <= end <= len(text) and start >= last[0] and end >= last[1], (text, spans)
    assert text[start:end] == text[start:end].strip()
    last = start, end


@pytest.mark.parametrize('family', FAMILIES)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(text=ODD)
def test_ids_are_those_of_encode_and_spans_are_in_order(family, text):
  hypothesis.assume(not any(unicodedata.category(c) == 'Cs' for c in text))
  tokenizer = open_family(family)
  ids, spans = tokenizer.encode_with_offsets(text)
  assert ids == tokenizer.encode(text) and len(spans) == len(ids)
  assert_in_order(text, spans)


def test_recorded_texts_too(tokenizer):
  for text in json.loads((GOLDEN / 'texts.json').read_text()):
    ids, spans = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)
    assert_in_order(text, spans)


def test_a_piece_spells_the_text_at_its_place(tokenizer):
  ids, spans = tokenizer.encode_with_offsets(SENTENCE)
  checked = 0
  for token_id, (start, end) in zip(ids, spans, strict=True):
    spelt = spelling(tokenizer, token_id)
    if token_id != tokenizer.unk_id and spelt.isascii():  # bytes of one character spell nothing by themselves
      assert normal(tokenizer, SENTENCE[start:end]) == spelt
      checked += 1
  assert checked > len(ids) // 2
  held = {index for start, end in spans for index in range(start, end)}
  assert {index for index, character in enumerate(SENTENCE) if not character.isspace()} <= held


@pytest.mark.parametrize('family', SENTENCEPIECE)
@pytest.mark.parametrize(
  ('text', 'span'),
  [
    ("a ``b'' c", (2, 4)),
    ('\xe9\xe9 \u00bd \ufb01x', (3, 4)),
    ('e\u0301e\u0301 12 x', (5, 7)),
    ('\U0001f468 ok', (2, 4)),
  ],
)
def test_offsets_survive_what_is_done_to_a_text(family, text, span):
  """The span is a word, of which a piece begins where it does and one ends where it does."""
  _, spans = open_family(family).encode_with_offsets(text)
  assert any(start == span[0] for start, end in spans if start < end)
  assert any(end == span[1] for start, end in spans if start < end)


@pytest.mark.parametrize(
  'cleaning', [None, token_layouts.Cleaning(), token_layouts.Cleaning(True), token_layouts.Cleaning(True, True)]
)
@hypothesis.given(text=ODD)
def test_units_together_are_the_cleaned_text(cleaning, text):
  units = list(offsets.cleaned_units(text, cleaning))
  assert ''.join(was for was, _ in units) == text
  assert ''.join(becomes for _, becomes in units) == sentencepiece_layout.clean(text, cleaning)


def test_origins_know_where_they_come_from():
  text = offsets.Origins('a``bc').changed([('a', 'A'), ('``', '"'), ('b', ''), ('c', 'xyz')])
  assert text.text == 'A"xyz'
  assert [text.span(i, i + 1) for i in range(5)] == [(0, 1), (1, 3), (4, 5), (4, 5), (4, 5)]
  assert text.span(0, 2) == (0, 3) and text.span(1, 1) == (1, 1) and text.span(5, 5) == (5, 5)
  again = text.changed([('A"', '-'), ('xyz', 'z')])
  assert [again.span(i, i + 1) for i in range(2)] == [(0, 3), (4, 5)]


def test_bytes_become_characters():
  text = 'a\xe9\U0001f468b'
  assert offsets.in_characters(text, [(0, 1), (1, 3), (3, 7), (7, 8), (8, 8)]) == [
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 4),
    (4, 4),
  ]
  assert offsets.in_characters('ab', [(1, 2)]) == [(1, 2)]


def test_tokens_in_a_text_stand_where_they_are():
  ids, spans = open_family('t5').encode_with_offsets('ab <extra_id_1> c')
  at = ids.index(open_family('t5').sentinel_id(1))
  assert spans[at] == (3, 15) and spans[-1] == (16, 17)


def test_pieces_that_go_on_with_a_word(tokenizer):
  continues = tokenizer.piece_continues
  assert continues.dtype == bool and continues.shape == (tokenizer.vocab_size,) and not continues.flags.writeable
  special = [*tokenizer.special_ids().values(), tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id]
  assert not continues[[*special, *(tokenizer.sentinel_id(i) for i in range(tokenizer.num_sentinels))]].any()
  found = [tokenizer.encode(f'x {word}')[len(tokenizer.encode('x')) :] for word in ('house', 'weather', 'thermometer')]
  of_several = [ids for ids in found if len(ids) > 1]
  assert of_several and all(not continues[ids[0]] and continues[ids[1:]].all() for ids in of_several)
  assert np.count_nonzero(continues) > 20


def test_byte_pieces_continue_and_user_defined_symbols_go_by_their_text(tmp_path):
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['a b c d e f g']), model_prefix=str(tmp_path / 'm'), vocab_size=280, byte_fallback=True,
    user_defined_symbols=['(', '\u2581-'], minloglevel=2, hard_vocab_limit=False, pad_id=3,
  )  # fmt: skip
  tokenizer = SentencePieceTokenizer(str(tmp_path / 'm.model'))
  continues = tokenizer.piece_continues
  assert all(continues[tokenizer.token_id(f'<0x{byte:02X}>')] for byte in range(256))
  assert continues[tokenizer.token_id('(')] and not continues[tokenizer.token_id('\u2581-')]
  ids, spans = tokenizer.encode_with_offsets('a \u65e5b')
  assert spans[-1] == (3, 4) and spans[-2] == (2, 3) and len(ids) == len(spans) > 4


@pytest.mark.parametrize('family', ['t5', 'bert', 'gpt2'])
def test_tokenizer_json_tells_the_same(family, tmp_path):
  pytest.importorskip('tokenizers')
  tokenizer = open_family(family)
  tokenizer.save(tmp_path)
  for path in tmp_path.iterdir():
    if path.name not in ('tokenizer.json', 'tokenizer_config.json'):
      path.unlink()
  again = load_tokenizer(tmp_path)
  np.testing.assert_array_equal(again.piece_continues, tokenizer.piece_continues)
  (ids, spans), (own_ids, own_spans) = (t.encode_with_offsets('The cat, 12 \xe9\xe9.') for t in (again, tokenizer))
  assert ids == own_ids
  # To the package the mark of a space, where it is a piece by itself, stands where the next piece does.
  assert all(own in (span, (span[0], span[0])) for span, own in zip(spans, own_spans, strict=True))


def test_words_that_end_in_a_mark_do_not_tell():
  model = {'type': 'BPE', 'end_of_word_suffix': '</w>', 'continuing_subword_prefix': ''}
  with pytest.raises(errors.UsageError, match=r"tell where words end \(by '</w>'\)"):
    word_marks.of_json(['a</w>'], {'model': model})
  parts = {'type': 'Sequence', 'pretokenizers': [{'type': 'Split'}, {'type': 'ByteLevel'}]}
  found = word_marks.of_json(['\u0120a', 'a', '\u2581a'], {'model': {'type': 'BPE'}, 'pre_tokenizer': parts})
  assert found.tolist() == [False, True, True]
  assert word_marks.of_json(['a', 'b'], {'model': {'type': 'WordLevel'}}).tolist() == [False, False]


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_vocabularies_spell_real_text_at_its_place(name, tmp_path):
  root = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'])
  shutil.copytree(root / 'tokenizers' / name, tmp_path / name)
  (tmp_path / name).chmod(0o755)
  cased = name != 'bert-base-uncased'
  (tmp_path / name / 'tokenizer_config.json').write_text(json.dumps({'do_lower_case': not cased}))
  tokenizer = load_tokenizer(tmp_path / name, model_type=PUBLISHED[name])
  for text in (root / 'text' / 'bert-sample' / 'sample_text.txt').read_text().splitlines():
    ids, spans = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)
    assert_in_order(text, spans)
    if tokenizer.unk_id not in ids or PUBLISHED[name] == 'gpt2':
      held = ''.join(text[start:end] for start, end in dict.fromkeys(spans))
      assert held == ''.join(text.split())
