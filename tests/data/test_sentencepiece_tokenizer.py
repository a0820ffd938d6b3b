"""SentencePiece models: sentinels in a text, decoding of anything, bad files, and the bytes of a model."""

import os
import pathlib
import pickle

import numpy as np
import pytest
import sentencepiece

from t5x_lite.core import errors
from t5x_lite.data import sources
from t5x_lite.data.vocabularies import sentencepiece_layout, sentencepiece_model, token_layouts
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import SentencePieceTokenizer

SIZE = 4000


@pytest.fixture(scope='module')
def tokenizer():
  return embedded_vocabulary(size=SIZE)


@pytest.fixture(scope='module')
def documents():
  records = sources.EmbeddedSource('text').random_access('validation')
  return [record['text'] for record in records.__getitems__(range(len(records)))]


def test_batch_encoding_is_encoding(tokenizer, documents):
  texts = [*documents, '', 'a <extra_id_7> b', ' ']
  assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
  assert tokenizer.encode_batch([]) == []


def test_every_sentinel_in_text_is_its_id(tokenizer):
  for index in (0, 3, 99):
    text = f'the first<extra_id_{index}> the last'
    ids = tokenizer.encode(text)
    assert ids.count(tokenizer.sentinel_id(index)) == 1
    assert tokenizer.decode(ids) == text
  assert tokenizer.encode('<extra_id_100>')[-1] < SIZE


def test_typed_sentinels_give_what_span_corruption_makes(tokenizer):
  # The masked word takes its space with it.
  source = tokenizer.encode('Return the name of the module.')
  masked = tokenizer.encode('the')
  start = source.index(masked[0])
  corrupted = [*source[:start], tokenizer.sentinel_id(0), *source[start + len(masked) :]]
  assert tokenizer.encode('Return <extra_id_0> name of the module.') == corrupted
  assert tokenizer.encode('<extra_id_0> the') == [tokenizer.sentinel_id(0), *masked]
  assert tokenizer.encode(tokenizer.decode(corrupted)) == corrupted


def test_decoding_takes_anything(tokenizer):
  ids = tokenizer.encode('a module')
  assert tokenizer.decode(np.array(ids, np.int32)) == 'a module'
  assert tokenizer.decode([*ids, tokenizer.eos_id, *ids]) == 'a module'
  assert tokenizer.decode([*ids, 0, 0, 0]) == 'a module'
  unknown = tokenizer.decode([*ids, tokenizer.unk_id])
  assert unknown.startswith('a module') and unknown != 'a module'
  for beyond in (tokenizer.vocab_size, 32127, 2**31 - 1, -1):
    assert tokenizer.decode([*ids, beyond]) == unknown
  assert tokenizer.decode([]) == ''


def test_a_sentinel_too_many_says_so(tokenizer):
  with pytest.raises(errors.UsageError, match='100 sentinels'):
    tokenizer.sentinel_id(100)


def test_bad_model_files_are_one_line(tmp_path):
  with pytest.raises(errors.UsageError, match=r'cannot read .*nowhere.model: No such file'):
    _ = SentencePieceTokenizer(str(tmp_path / 'nowhere.model')).vocab_size
  for content in (b'', b'not a model'):
    (tmp_path / 'bad.model').write_bytes(content)
    with pytest.raises(errors.UsageError, match='is no SentencePiece model'):
      _ = SentencePieceTokenizer(str(tmp_path / 'bad.model')).vocab_size


def test_a_model_with_sentinels_is_used_as_it_is(tokenizer, tmp_path):
  model = sentencepiece_layout.with_sentinels(pathlib.Path(tokenizer.path).read_bytes(), 5)
  (tmp_path / 'spiece.model').write_bytes(model)
  other = SentencePieceTokenizer(str(tmp_path / 'spiece.model'))
  assert (other.vocab_size, other.num_sentinels, other.sentinel_id(0)) == (SIZE + 5, 5, SIZE + 4)


def test_tokenizers_travel_to_other_processes(tokenizer):
  other = pickle.loads(pickle.dumps(tokenizer))
  assert other == tokenizer and other.encode('a <extra_id_2>') == tokenizer.encode('a <extra_id_2>')


PORTUGUESE = 'O Brasil é um país da América do Sul.'
FRENCH = 'La Commission européenne a adopté le règlement no 1/2003.'


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
@pytest.mark.parametrize(
  ('name', 'text', 'expected'),
  [  # ids of Hugging Face's T5Tokenizer (transformers 5.23) with the same pieces
    ('t5-ptt5-32k', PORTUGUESE, [28, 112, 21, 16, 221, 11, 556, 10, 267, 5]),
    ('t5-legal-fr-en-32k', PORTUGUESE, [443, 21463, 1327, 290, 1623, 174, 16658, 207, 178, 1331, 4]),
    ('t5-legal-fr-en-32k', FRENCH, [107, 80, 282, 10, 4755, 30, 315, 102, 83, 1026, 4]),
  ],
)
def test_real_t5_models_give_the_ids_of_hugging_face(name, text, expected):
  path = pathlib.Path(os.environ['T5X_LITE_REAL_DATA'], 'tokenizers', name, 'spiece.model')
  real = SentencePieceTokenizer(str(path))
  assert (real.vocab_size, real.sentinel_id(0), real.sentinel_id(99)) == (32100, 32099, 32000)
  assert (real.pad_id, real.eos_id, real.unk_id) == (0, 1, 2)
  assert real.encode(text) == expected
  assert real.decode(expected) == text
  assert real.encode(f'{text} <extra_id_1>') == [*expected, 32098]


def test_what_follows_a_sentinel_begins_a_word(tokenizer):
  assert tokenizer.encode('a<extra_id_0>module') == tokenizer.encode('a <extra_id_0> module')
  assert tokenizer.encode('<extra_id_0><extra_id_1>') == [tokenizer.sentinel_id(0), tokenizer.sentinel_id(1)]


def test_models_in_another_layout_are_refused(tmp_path):
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['a b c d e f g']), model_prefix=str(tmp_path / 'm'), vocab_size=11, minloglevel=2
  )
  with pytest.raises(errors.UsageError, match='no pad_id: expected one in the layout of T5'):
    _ = SentencePieceTokenizer(str(tmp_path / 'm.model')).vocab_size
  other = SentencePieceTokenizer(str(tmp_path / 'm.model'), layout='xlnet')
  assert other.pad_id == other.token_id('<pad>') >= 11


def test_pieces_of_a_model_are_what_sentencepiece_says(tokenizer):
  model = tokenizer._processor.serialized_model_proto()
  pieces = sentencepiece_model.pieces_of(model)
  processor = tokenizer._processor
  assert [piece.text for piece in pieces] == [processor.id_to_piece(i) for i in range(len(processor))]
  assert [piece.score for piece in pieces] == [processor.get_score(i) for i in range(len(processor))]
  assert sentencepiece_model.is_unigram(model) and len(sentencepiece_model.charsmap_of(model)) > 10**5
  again = sentencepiece.SentencePieceProcessor()
  again.load_from_serialized_proto(sentencepiece_model.with_pieces(model, lambda pieces: pieces))
  assert again.serialized_model_proto() == model


def test_models_without_a_charsmap_take_texts_as_they_are(tokenizer):
  plain = sentencepiece.SentencePieceProcessor()
  plain.load_from_serialized_proto(sentencepiece_model.without_charsmap(tokenizer._processor.serialized_model_proto()))
  assert plain.encode('a  module ') == tokenizer.encode('a module')
  assert plain.encode('\uff41') != tokenizer.encode('\uff41') == tokenizer.encode('a')


def test_rules_of_hugging_face_matter_for_odd_texts_only(tokenizer, documents):
  other = SentencePieceTokenizer(tokenizer.path, hugging_face_rules=True)
  assert other.encode_batch(documents) == tokenizer.encode_batch(documents)
  assert other.fingerprint != tokenizer.fingerprint
  assert other._charsmap.normalise('\uff41e\u0301\u200b') == 'a\xe9 '
  assert other._charsmap.normalise('\u1112\u1161\u11ab') == '\u1112\u1161\u11ab'  # SentencePiece composes it
  assert other._charsmap.normalise('\u2079\u030a') == '9'  # and keeps the ring


@pytest.mark.parametrize(
  ('do_lower_case', 'keep_accents', 'expected'),
  [
    (False, False, '"A" E\u03a3 fi'),
    (True, False, '"a" e\u03c3 fi'),
    (True, True, '"a" \xe9\u03c3 \ufb01'),
    (False, True, '"A" \xc9\u03a3 \ufb01'),
  ],
)
def test_cleaning(do_lower_case, keep_accents, expected):
  cleaning = token_layouts.Cleaning(do_lower_case, keep_accents)
  assert sentencepiece_layout.clean("``A'' \xc9\u03a3 \ufb01", cleaning) == expected
  assert sentencepiece_layout.clean("``A''", None) == "``A''"


def test_commas_after_digits_are_pieces_of_their_own():
  pieces = [sentencepiece_model.Piece(text, -5.0) for text in ('1,', '\u2581a,', ',', '12', '\u258120,')]
  assert [p.score for p in sentencepiece_layout.without_number_commas(pieces)] == [-105, -5, -5, -5, -105]
