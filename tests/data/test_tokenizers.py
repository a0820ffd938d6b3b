"""Tokenizers: T5's layout, sentinels in text, decoding of anything, and vocabularies that are the same every time."""

import os
import pathlib
import pickle
import re

import numpy as np
import pytest

from t5x_lite.core import errors, paths
from t5x_lite.data import embedded, sources, tokenizers

SIZE = 4000


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.embedded_vocabulary(size=SIZE)


@pytest.fixture(scope='module')
def documents():
  records = sources.EmbeddedSource('text').random_access('validation')
  return [record['text'] for record in records.__getitems__(range(len(records)))]


def test_layout_is_t5s(tokenizer):
  assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
  assert tokenizer.vocab_size == SIZE + 100
  assert [tokenizer.sentinel_id(i) for i in range(tokenizer.num_sentinels)] == list(range(SIZE + 99, SIZE - 1, -1))
  assert tokenizers.embedded_vocabulary(size=SIZE, extra_ids=3).sentinel_id(0) == SIZE + 2


def test_text_comes_back(tokenizer, documents):
  for document in documents:
    ids = tokenizer.encode(document)
    assert not {tokenizer.pad_id, tokenizer.eos_id} & set(ids) and max(ids) < SIZE
    if document.isascii():
      assert tokenizer.decode(ids) == ' '.join(document.split())


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


def test_unknown_characters_are_unknown(tokenizer):
  assert tokenizer.unk_id in tokenizer.encode('\u65e5')


def test_a_sentinel_too_many_says_so(tokenizer):
  with pytest.raises(errors.UsageError, match='100 sentinels'):
    tokenizer.sentinel_id(100)


def test_training_is_deterministic(tokenizer, tmp_path):
  models = []
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    tokenizers._train(SIZE, tmp_path / name)
    models.append((tmp_path / name / tokenizers.MODEL_FILE).read_bytes())
  assert models[0] == models[1] == pathlib.Path(tokenizer.path).read_bytes()


def test_vocabulary_is_trained_once_and_keyed_by_size(tokenizer, monkeypatch):
  other = tokenizers.embedded_vocabulary(size=SIZE - 100)
  assert other.path != tokenizer.path and other.fingerprint != tokenizer.fingerprint

  def train(size, folder):
    raise AssertionError('trained again')

  monkeypatch.setattr(tokenizers, '_train', train)
  assert tokenizers.embedded_vocabulary(size=SIZE).fingerprint == tokenizer.fingerprint
  monkeypatch.setattr(embedded, 'fingerprint', lambda: 'another corpus')
  with pytest.raises(AssertionError, match='trained again'):
    tokenizers.embedded_vocabulary(size=SIZE)


def test_validation_documents_are_not_trained_on():
  lines = set(tokenizers._training_lines())
  records = sources.EmbeddedSource('text').random_access('validation')
  long_lines = [line for i in range(len(records)) for line in records[i]['text'].splitlines() if len(line) > 60]
  assert sum(line in lines for line in long_lines) < 0.05 * len(long_lines)


@pytest.mark.parametrize(('size', 'reason'), [(10**6, 'too high'), (10, 'smaller than')])
def test_impossible_sizes_are_one_line(size, reason):
  with pytest.raises(errors.UsageError, match=f'cannot train a vocabulary of {size} pieces.*{reason}') as caught:
    tokenizers.embedded_vocabulary(size=size)
  assert '\n' not in str(caught.value) and '.cc' not in str(caught.value)
  assert not list((paths.cache_dir() / 'vocabularies').glob('.*.building-*'))


def test_bad_model_files_are_one_line(tmp_path):
  with pytest.raises(errors.UsageError, match=r'cannot read .*nowhere.model: No such file'):
    _ = tokenizers.SentencePieceTokenizer(str(tmp_path / 'nowhere.model')).vocab_size
  for content in (b'', b'not a model'):
    (tmp_path / 'bad.model').write_bytes(content)
    with pytest.raises(errors.UsageError, match='is no SentencePiece model'):
      _ = tokenizers.SentencePieceTokenizer(str(tmp_path / 'bad.model')).vocab_size


def test_a_model_with_sentinels_is_used_as_it_is(tokenizer, tmp_path):
  model = tokenizers.with_sentinels(pathlib.Path(tokenizer.path).read_bytes(), 5)
  (tmp_path / 'spiece.model').write_bytes(model)
  other = tokenizers.SentencePieceTokenizer(str(tmp_path / 'spiece.model'))
  assert (other.vocab_size, other.num_sentinels, other.sentinel_id(0)) == (SIZE + 5, 5, SIZE + 4)


def test_fingerprint_covers_the_sentinels(tokenizer):
  assert tokenizers.embedded_vocabulary(size=SIZE, extra_ids=99).fingerprint != tokenizer.fingerprint
  assert re.fullmatch('[0-9a-f]{64}', tokenizer.fingerprint)


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
  real = tokenizers.SentencePieceTokenizer(str(path))
  assert (real.vocab_size, real.sentinel_id(0), real.sentinel_id(99)) == (32100, 32099, 32000)
  assert (real.pad_id, real.eos_id, real.unk_id) == (0, 1, 2)
  assert real.encode(text) == expected
  assert real.decode(expected) == text
  assert real.encode(f'{text} <extra_id_1>') == [*expected, 32098]
