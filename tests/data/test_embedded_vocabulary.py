"""The vocabulary of the embedded corpus: the same every time, and fit for every family."""

import os
import pathlib
import re

import numpy as np
import pytest

from t5x_lite.core import errors, paths
from t5x_lite.data import embedded, sources
from t5x_lite.data.vocabularies import embedded_vocabulary, readable, token_layouts
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary as vocabulary
from t5x_lite.data.vocabularies.sentencepiece_tokenizer import MODEL_FILE

SIZE = 4000


@pytest.fixture(scope='module')
def tokenizer():
  return vocabulary(size=SIZE)


@pytest.fixture(scope='module')
def documents():
  records = sources.EmbeddedSource('text').random_access('validation')
  return [record['text'] for record in records.__getitems__(range(len(records)))]


def test_layout_is_t5s(tokenizer):
  assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
  assert tokenizer.vocab_size == SIZE + 100
  assert [tokenizer.sentinel_id(i) for i in range(tokenizer.num_sentinels)] == list(range(SIZE + 99, SIZE - 1, -1))
  assert vocabulary(size=SIZE, extra_ids=3).sentinel_id(0) == SIZE + 2


def test_special_tokens_are_shown_by_their_names():
  bert = vocabulary(layout='bert', size=SIZE)
  hello, there = bert.encode('hello'), bert.encode('there')
  ids = np.array([bert.cls_id, *hello, bert.mask_id, *there, bert.sep_id], np.int32)
  assert readable.text(bert, ids) == '[CLS] hello [MASK] there [SEP]'


def test_what_ends_a_text_is_shown_where_it_is_not_the_last(tokenizer):
  hello, eos = tokenizer.encode('hello'), tokenizer.eos_id
  assert readable.text(tokenizer, np.array([*hello, eos, *hello, eos], np.int32)) == 'hello <eos> hello'
  assert readable.text(tokenizer, np.array([tokenizer.pad_id, *hello], np.int32)) == '<pad> hello'


def test_text_comes_back(tokenizer, documents):
  for document in documents:
    ids = tokenizer.encode(document)
    assert not {tokenizer.pad_id, tokenizer.eos_id} & set(ids) and max(ids) < SIZE
    if document.isascii():
      assert tokenizer.decode(ids) == ' '.join(document.split())


def test_unknown_characters_are_unknown(tokenizer):
  assert tokenizer.unk_id in tokenizer.encode('\u65e5')


def test_training_is_deterministic(tokenizer, tmp_path):
  models = []
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    embedded_vocabulary._train(SIZE, tmp_path / name)
    models.append((tmp_path / name / MODEL_FILE).read_bytes())
  assert models[0] == models[1] == pathlib.Path(tokenizer.path).read_bytes()


def test_vocabulary_is_trained_once_and_keyed_by_size(tokenizer, monkeypatch):
  other = vocabulary(size=SIZE - 100)
  assert os.fspath(other.path) != os.fspath(tokenizer.path) and other.fingerprint != tokenizer.fingerprint

  def train(size, folder):
    raise AssertionError('trained again')

  monkeypatch.setattr(embedded_vocabulary, '_train', train)
  assert vocabulary(size=SIZE).fingerprint == tokenizer.fingerprint
  monkeypatch.setattr(embedded, 'fingerprint', lambda: 'another corpus')
  with pytest.raises(AssertionError, match='trained again'):
    _ = vocabulary(size=SIZE).vocab_size


def test_nothing_is_made_before_it_is_read(monkeypatch, tmp_path):
  monkeypatch.setenv('T5X_LITE_CACHE', str(tmp_path))
  made = vocabulary(size=SIZE, layout='bert')
  assert made == vocabulary(size=SIZE, layout='bert') != vocabulary(size=SIZE + 1, layout='bert')
  assert 'embedded vocabulary of 4000 pieces' in str(made) and not list(tmp_path.iterdir())


def test_validation_documents_are_not_trained_on():
  lines = set(embedded_vocabulary._training_lines())
  records = sources.EmbeddedSource('text').random_access('validation')
  long_lines = [line for i in range(len(records)) for line in records[i]['text'].splitlines() if len(line) > 60]
  assert sum(line in lines for line in long_lines) < 0.05 * len(long_lines)


@pytest.mark.parametrize(('size', 'reason'), [(10**6, 'too high'), (10, 'smaller than')])
def test_impossible_sizes_are_one_line(size, reason):
  with pytest.raises(errors.UsageError, match=f'cannot train a vocabulary of {size} pieces.*{reason}') as caught:
    vocabulary(size=size).encode('a')
  assert '\n' not in str(caught.value) and '.cc' not in str(caught.value)
  assert not list((paths.cache_dir() / 'vocabularies').glob('.*.building-*'))


def test_fingerprint_covers_the_sentinels(tokenizer):
  assert vocabulary(size=SIZE, extra_ids=99).fingerprint != tokenizer.fingerprint
  assert re.fullmatch('[0-9a-f]{64}', tokenizer.fingerprint)


@pytest.mark.parametrize(
  ('layout', 'added'),
  [
    ('t5', []),
    ('bert', ['[SEP]', '[CLS]', '[MASK]']),
    ('roberta', ['<s>', '<mask>']),
    ('xlnet', ['<s>', '<sep>', '<cls>', '<mask>']),
    ('albert', ['[CLS]', '[MASK]']),
    ('gpt2', []),
  ],
)
def test_every_family_has_its_special_tokens_after_the_pieces(tokenizer, documents, layout, added):
  dressed = vocabulary(size=SIZE, layout=layout, extra_ids=2)
  ids = [dressed.token_id(token) for token in added]
  assert sorted(ids) == list(range(SIZE, SIZE + len(added)))
  assert [dressed.sentinel_id(1), dressed.sentinel_id(0)] == [dressed.vocab_size - 2, dressed.vocab_size - 1]
  assert dressed.vocab_size == SIZE + len(added) + 2
  assert (dressed.pad_id, dressed.unk_id) == (tokenizer.pad_id, tokenizer.unk_id)
  roles = [role for role in token_layouts.LAYOUTS[layout].roles if role != 'unk']
  assert all(0 <= getattr(dressed, f'{role}_id') < dressed.vocab_size for role in roles)
  assert dressed.unk_id not in {getattr(dressed, f'{role}_id') for role in roles}
  if layout not in ('xlnet', 'albert'):  # which clean their texts
    assert dressed.encode_batch(documents) == tokenizer.encode_batch(documents)
  framed, types = dressed.with_special_tokens(dressed.encode('a module'), dressed.encode('a name'))
  assert len(framed) == len(types) and dressed.unk_id not in framed
  assert framed == dressed.with_special_tokens(tokenizer.encode('a module'), tokenizer.encode('a name'))[0]


def test_special_tokens_in_the_corpus_are_text():
  dressed = vocabulary(size=SIZE, layout='bert')
  assert dressed.num_sentinels == 0
  assert not {dressed.mask_id, dressed.cls_id, dressed.sep_id} & set(dressed.encode('[MASK] [CLS] [SEP] </s> <pad>'))
  assert dressed.decode(dressed.encode('a [MASK] b')) == 'a [MASK] b'
  assert dressed.decode([dressed.cls_id, *dressed.encode('a module'), dressed.sep_id]) == 'a module'


def test_frames_of_bert(tokenizer):
  dressed = vocabulary(size=SIZE, layout='bert')
  cls, sep = dressed.cls_id, dressed.sep_id
  assert dressed.with_special_tokens([5, 6]) == ([cls, 5, 6, sep], [0, 0, 0, 0])
  assert dressed.with_special_tokens([5, 6], [7]) == ([cls, 5, 6, sep, 7, sep], [0, 0, 0, 0, 1, 1])
  assert dressed.with_special_tokens([5, 6, 7], [8], max_length=6) == ([cls, 5, 6, sep, 8, sep], [0, 0, 0, 0, 1, 1])
  assert dressed.fingerprint != tokenizer.fingerprint != vocabulary(size=SIZE, layout='roberta').fingerprint


@pytest.mark.parametrize('layout', ['bert', 'roberta', 'gpt2', 'xlnet', 't5'])
def test_saved_with_its_layout(layout, tmp_path, documents):
  from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

  dressed = vocabulary(size=SIZE, layout=layout, extra_ids=3)
  dressed.save(tmp_path)
  again = load_tokenizer(tmp_path, special_tokens_in_text=False)
  assert (again.family.name, again.vocab_size, again.num_sentinels) == (layout, dressed.vocab_size, 3)
  assert again.encode_batch(documents) == dressed.encode_batch(documents)
  assert again.with_special_tokens([5], [6]) == dressed.with_special_tokens([5], [6])


def test_unknown_layouts_are_named():
  with pytest.raises(errors.UsageError, match="unknown token layout 'brt': did you mean 'bert'"):
    vocabulary(size=SIZE, layout='brt')
