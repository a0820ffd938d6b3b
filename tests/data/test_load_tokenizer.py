"""Published tokenizers: ids, frames and special tokens as recorded from transformers; saved, they are the same."""

import builtins
import gzip
import json
import os
import pathlib
import pickle
import shutil

import pytest

from t5x_lite.core import errors
from t5x_lite.data.vocabularies import load_tokenizer as loading
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'tokenizers'
FAMILIES = ('t5', 'xlnet', 'albert', 'xlm-roberta', 'bert', 'roberta', 'gpt2')
NEED_THE_EXTRA = ('bert', 'roberta', 'gpt2')
PUBLISHED = {
  'bert-base-cased': ('bert', {'do_lower_case': False}),
  'bert-base-uncased': ('bert', {'do_lower_case': True}),
  'gpt2': ('gpt2', {}),
  'roberta-base': ('roberta', {}),
  'xlnet-base-cased': ('xlnet', {}),
  'albert-base': ('albert', {}),
  't5-ptt5-32k': ('t5', {}),
  't5-legal-fr-en-32k': ('t5', {}),
}


def texts():
  return json.loads((GOLDEN / 'texts.json').read_text())


def recorded(path):
  return json.loads(gzip.decompress(path.read_bytes()))


def open_family(family, folder=None):
  if family in NEED_THE_EXTRA:
    pytest.importorskip('tokenizers')
  return load_tokenizer(folder or GOLDEN / family)


def assert_as_recorded(tokenizer, expected):
  wrong = {
    text: (ids, wanted)
    for text, ids, wanted in zip(texts(), tokenizer.encode_batch(texts()), expected['ids'], strict=True)
    if ids != wanted
  }
  assert not wrong
  for first, second, limit, ids, types in expected['framed']:
    pair = None if second is None else tokenizer.encode(second)
    assert tokenizer.with_special_tokens(tokenizer.encode(first), pair, limit) == (ids, types), (first, second, limit)
  assert {role: getattr(tokenizer, f'{role}_id') for role in expected['roles']} == expected['roles']
  for name in ('vocab_size', 'padding_side'):
    assert getattr(tokenizer, name) == expected[name]


@pytest.mark.parametrize('family', FAMILIES)
def test_ids_and_frames_are_those_of_transformers(family):
  expected = recorded(GOLDEN / family / 'expected.json.gz')
  tokenizer = open_family(family)
  assert_as_recorded(tokenizer, expected)
  assert tokenizer.model_max_length == expected['model_max_length']


@pytest.mark.parametrize('family', FAMILIES)
def test_saved_tokenizers_are_the_same_again(family, tmp_path):
  expected = recorded(GOLDEN / family / 'expected.json.gz')
  open_family(family).save(tmp_path / 'a')
  again = open_family(family, tmp_path / 'a')
  assert_as_recorded(again, expected)
  again.save(tmp_path / 'b')
  for name in ('tokenizer_config.json', 'special_tokens_map.json', 'tokenizer.json'):
    assert json.loads((tmp_path / 'a' / name).read_text()) == json.loads((tmp_path / 'b' / name).read_text())


@pytest.mark.parametrize('family', FAMILIES)
def test_tokenizer_json_alone_says_it_all(family, tmp_path):
  pytest.importorskip('tokenizers')
  expected = recorded(GOLDEN / family / 'expected.json.gz')
  open_family(family).save(tmp_path)
  for path in tmp_path.iterdir():
    if path.name not in ('tokenizer.json', 'tokenizer_config.json'):
      path.unlink()
  assert_as_recorded(load_tokenizer(tmp_path), expected)


@pytest.mark.parametrize('family', FAMILIES)
def test_transformers_reads_what_is_saved(family, tmp_path):
  transformers = pytest.importorskip('transformers')
  tokenizer = open_family(family)
  tokenizer.save(tmp_path)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert type(theirs).__name__ == json.loads((GOLDEN / family / 'tokenizer_config.json').read_text())['tokenizer_class']
  assert theirs(texts(), add_special_tokens=False)['input_ids'] == tokenizer.encode_batch(texts())
  framed = theirs('a b', 'c', return_token_type_ids=True)
  ours = tokenizer.with_special_tokens(tokenizer.encode('a b'), tokenizer.encode('c'))
  assert (framed['input_ids'], framed['token_type_ids']) == ours


@pytest.mark.parametrize('family', FAMILIES)
def test_texts_come_back(family):
  tokenizer = open_family(family)
  framed, _ = tokenizer.with_special_tokens(tokenizer.encode('hello world'))
  for ids in (framed, [*framed, tokenizer.pad_id], tokenizer.encode('hello world')):
    assert tokenizer.decode(ids).strip() == 'hello world'
  assert tokenizer.decode([*tokenizer.encode('hello'), 10**6]) != tokenizer.decode(tokenizer.encode('hello'))


@pytest.mark.parametrize('family', FAMILIES)
def test_special_tokens_in_a_text_are_text_on_request(family):
  if family in NEED_THE_EXTRA:
    pytest.importorskip('tokenizers')
  markup, plain = open_family(family), load_tokenizer(GOLDEN / family, special_tokens_in_text=False)
  token = (
    next(token for token in markup.special_ids() if token != markup.family.unk) if family != 'gpt2' else '<|endoftext|>'
  )
  assert markup.encode(f'a {token} b').count(markup.token_id(token)) == 1
  assert markup.token_id(token) not in plain.encode(f'a {token} b')
  assert markup.encode('a b') == plain.encode('a b')
  assert markup.fingerprint != plain.fingerprint


@pytest.mark.parametrize('family', FAMILIES)
def test_tokenizers_travel_to_other_processes(family):
  tokenizer = open_family(family)
  fingerprint = tokenizer.fingerprint
  again = pickle.loads(pickle.dumps(tokenizer))
  assert again == tokenizer and again.fingerprint == fingerprint
  assert again.encode_batch(texts()) == tokenizer.encode_batch(texts())


@pytest.mark.parametrize('family', FAMILIES)
def test_the_family_shows_in_the_vocabulary(family, tmp_path):
  """Without tokenizer_config.json; `model_type` and config.json say the same."""
  if family in NEED_THE_EXTRA:
    pytest.importorskip('tokenizers')
  for path in (GOLDEN / family).iterdir():
    if path.name not in ('tokenizer_config.json', 'expected.json.gz'):
      shutil.copy(path, tmp_path)
  assert load_tokenizer(tmp_path).family.name == family
  assert load_tokenizer(tmp_path, model_type=family).family.name == family
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': family}))
  assert load_tokenizer(tmp_path).family.name == family


def test_what_the_files_say_goes_before_what_is_usual(tmp_path):
  shutil.copytree(GOLDEN / 'albert', tmp_path, dirs_exist_ok=True)
  config = {
    'tokenizer_class': 'AlbertTokenizer',
    'do_lower_case': False,
    'keep_accents': True,
    'model_max_length': int(1e30),
    'padding_side': 'left',
    'mask_token': {'content': '<mask>', 'lstrip': True},
    'added_tokens_decoder': {str(2): {'content': '[CLS]'}},
  }
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  tokenizer, usual = load_tokenizer(tmp_path), load_tokenizer(GOLDEN / 'albert')
  assert (tokenizer.model_max_length, tokenizer.padding_side) == (None, 'left')
  assert tokenizer.encode('hello') == usual.encode('HELLO') != tokenizer.encode('HELLO')
  assert tokenizer.mask_id == usual.vocab_size  # not in the vocabulary, hence at its end
  assert tokenizer.encode('a <mask>')[-1] == tokenizer.mask_id


@pytest.mark.parametrize('family', ['t5', 'bert'])
def test_added_tokens_have_their_ids(family, tmp_path):
  if family in NEED_THE_EXTRA:
    pytest.importorskip('tokenizers')
  shutil.copytree(GOLDEN / family, tmp_path, dirs_exist_ok=True)
  size = open_family(family).vocab_size
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'<second>': size + 1, '<first>': size}))
  tokenizer = load_tokenizer(tmp_path, special_tokens_in_text=False)
  assert tokenizer.vocab_size == size + 2
  assert tokenizer.encode('a <second> b<first>').count(size) == 1
  assert tokenizer.encode('a <second> b<first>').count(size + 1) == 1
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'<far>': size + 7}))
  with pytest.raises(errors.UsageError, match=f"added token '<far>' has id {size + 7}, expected {size}"):
    _ = load_tokenizer(tmp_path).vocab_size


def test_settings_of_the_vocabulary_are_kept(tmp_path):
  pytest.importorskip('tokenizers')
  shutil.copytree(GOLDEN / 'bert', tmp_path, dirs_exist_ok=True)
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'tokenizer_class': 'BertTokenizer', 'do_lower_case': False})
  )
  cased = load_tokenizer(tmp_path)
  assert cased.encode('HELLO') != open_family('bert').encode('HELLO') == cased.encode('hello')
  cased.save(tmp_path / 'saved')
  assert json.loads((tmp_path / 'saved' / 'tokenizer_config.json').read_text())['do_lower_case'] is False
  assert load_tokenizer(tmp_path / 'saved').encode('HELLO') == cased.encode('HELLO')


def test_padding_and_truncation_in_tokenizer_json_do_not_reach_us(tmp_path):
  pytest.importorskip('tokenizers')
  open_family('bert').save(tmp_path)
  content = json.loads((tmp_path / 'tokenizer.json').read_text())
  content['truncation'] = {'max_length': 4, 'strategy': 'LongestFirst', 'stride': 0, 'direction': 'Right'}
  content['padding'] = {
    'strategy': {'Fixed': 16}, 'direction': 'Right', 'pad_id': 0, 'pad_type_id': 0, 'pad_token': '[PAD]',
    'pad_to_multiple_of': None,
  }  # fmt: skip
  (tmp_path / 'tokenizer.json').write_text(json.dumps(content))
  assert load_tokenizer(tmp_path).encode('a b c d e f') == open_family('bert').encode('a b c d e f')


def test_missing_and_broken_files_are_one_line(tmp_path):
  def fails(match, **files):
    for path in tmp_path.iterdir():
      path.unlink()
    for name, content in files.items():
      (tmp_path / name.replace('__', '.')).write_bytes(content)
    with pytest.raises(errors.UsageError, match=match) as caught:
      _ = load_tokenizer(tmp_path).vocab_size
    assert '\n' not in str(caught.value)

  with pytest.raises(errors.UsageError, match='no such directory'):
    load_tokenizer(tmp_path / 'nowhere')
  fails('no tokenizer in .*: expected tokenizer.json, spiece.model')
  fails('no tokenizer in', vocab__json=b'{}')
  fails('spiece.model is no SentencePiece model', spiece__model=b'\xff\xff\xff')
  fails(r'tokenizer_config.json is no JSON', tokenizer_config__json=b'{')
  fails(r'got a list, expected an object', tokenizer_config__json=b'[]')
  pytest.importorskip('tokenizers')
  fails(r"vocab.txt has no '\[UNK\]'", vocab__txt=b'a\nb\n')
  fails(r'no vocabulary of this kind', tokenizer__json=b'{}')
  fails(r'no vocabulary of this kind', vocab__json=b'{"a": 0, "<|endoftext|>": 1}', merges__txt=b'#v\nx y\n')


def test_unknown_model_types_are_named():
  with pytest.raises(errors.UsageError, match="did you mean 'xlnet'"):
    load_tokenizer_without_config('xlnet', 'xlnett')


def load_tokenizer_without_config(family, model_type):
  layout = loading._layout(GOLDEN / 'nowhere', {}, model_type, ())
  raise AssertionError(f'{family} became {layout.name}')


@pytest.mark.parametrize('family', NEED_THE_EXTRA)
def test_the_missing_extra_is_named(family, monkeypatch):
  real = builtins.__import__

  def without_tokenizers(name, *args, **kwargs):
    if name == 'tokenizers':
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without_tokenizers)
  with pytest.raises(errors.UsageError, match=r"pip install 't5x_lite\[hf\]'"):
    load_tokenizer(GOLDEN / family).encode('a')


def test_sentencepiece_families_need_no_extra(monkeypatch, tmp_path):
  real = builtins.__import__

  def without_tokenizers(name, *args, **kwargs):
    if name == 'tokenizers':
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without_tokenizers)
  for family in ('t5', 'xlnet', 'albert', 'xlm-roberta'):
    tokenizer = load_tokenizer(GOLDEN / family)
    tokenizer.save(tmp_path / family)
    assert load_tokenizer(tmp_path / family).encode('hello') == tokenizer.encode('hello') != []


def test_one_tokenizer_serves_any_frame():
  with pytest.raises(errors.UsageError, match="layout 't5' has no cls token"):
    _ = open_family('t5').cls_id
  with pytest.raises(errors.UsageError, match=r'got max_length=2, but .* adds 3 special tokens'):
    open_family('xlnet').with_special_tokens([9], [9], max_length=2)


@pytest.mark.real_data
@pytest.mark.skipif('T5X_LITE_REAL_DATA' not in os.environ, reason='T5X_LITE_REAL_DATA is not set')
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_vocabularies_give_the_ids_of_transformers(name, tmp_path):
  family, config = PUBLISHED[name]
  if family in NEED_THE_EXTRA:
    pytest.importorskip('tokenizers')
  shutil.copytree(pathlib.Path(os.environ['T5X_LITE_REAL_DATA'], 'tokenizers', name), tmp_path / name)
  (tmp_path / name).chmod(0o755)
  (tmp_path / name / 'tokenizer_config.json').write_text(json.dumps(config))
  expected = recorded(GOLDEN / 'published.json.gz')[name]
  tokenizer = load_tokenizer(tmp_path / name, model_type=family)
  assert_as_recorded(tokenizer, expected)
  tokenizer.save(tmp_path / 'saved')
  assert_as_recorded(load_tokenizer(tmp_path / 'saved'), expected)
