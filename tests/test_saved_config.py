"""What a saved model still says of what was read: through both formats, after changes, after a move."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from t5x_lite.core import errors
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary
from t5x_lite.interop import export
from t5x_lite.pretrained import load_pretrained

GOLDEN = pathlib.Path(__file__).parent / 'golden'
NAMES = {'id2label': {'0': 'no', '1': 'yes'}, 'label2id': {'no': 0, 'yes': 1}}
RATES = {'hidden_dropout_prob': 0.2, 'attention_probs_dropout_prob': 0.3, 'classifier_dropout': 0.4}


def read(folder, name='config.json'):
  return json.loads((folder / name).read_text())


def write(folder, fields, *, without=(), name='config.json'):
  kept = {key: value for key, value in read(folder).items() if key not in without} if name == 'config.json' else {}
  (folder / name).write_text(json.dumps(kept | fields))
  return folder


def write_recorded(folder, name, case=None):
  """A recorded model as transformers saved it."""
  with np.load(GOLDEN / f'{name}.npz') as file:
    config = json.loads(str(file['config'])) if case is None else json.loads(str(file['cases']))[case]['config']
    state = {key.removeprefix('state/'): file[key] for key in file.files if key.startswith('state/')}
    if not state:
      tensors = json.loads(str(file['cases']))[case]['state']
      state = {key: file[f'tensor/{number}'] for key, number in tensors.items()}
  folder.mkdir()
  export.write_weights(folder, state, state.items())
  export.write_json(folder / 'config.json', config)
  return folder


@pytest.fixture
def bert(tmp_path):
  """A BERT of both its objectives."""
  return write_recorded(tmp_path / 'bert', 'bert', 'pretraining')


@pytest.fixture
def t5(tmp_path):
  """A T5."""
  return write_recorded(tmp_path / 't5', 't5_lm')


def test_a_model_dir_keeps_what_config_gin_cannot_say(tmp_path, bert):
  write(bert, NAMES | {'problem_type': 'multi_label_classification', 'task_specific_params': {'a': 1}})
  model = load_pretrained(bert, heads='classification')
  model.save(tmp_path / 'ours', 't5x_lite')
  again = load_pretrained(tmp_path / 'ours')
  assert {name: again.config[name] for name in NAMES} == NAMES
  ids, labels = np.array([[2, 3, 4]]), np.array([[1.0, 0.0]], np.float32)
  np.testing.assert_allclose(again(input_ids=ids, labels=labels)['loss'], model(input_ids=ids, labels=labels)['loss'])
  model.save(tmp_path / 'one')
  again.save(tmp_path / 'other')
  assert read(tmp_path / 'one') == read(tmp_path / 'other')
  load_pretrained(tmp_path / 'ours' / 'checkpoint_0', heads='tagging', num_labels=3).save(tmp_path / 'three')
  assert len(read(tmp_path / 'three')['id2label']) == 3 and read(tmp_path / 'three')['task_specific_params'] == {'a': 1}


def test_a_model_dir_keeps_how_to_generate(tmp_path, t5):
  write(t5, {'max_new_tokens': 7}, name='generation_config.json')
  load_pretrained(t5).save(tmp_path / 'ours', 't5x_lite')
  load_pretrained(tmp_path / 'ours').save(tmp_path / 'back')
  assert read(tmp_path / 'back', 'generation_config.json') == {'max_new_tokens': 7}


def test_a_model_that_transformers_lacks_keeps_what_it_said(tmp_path, bert):
  write(bert, NAMES | {'problem_type': 'regression'})
  for count in (2, 3):
    model = load_pretrained(bert, heads=('classification', 'tagging'), num_labels=count)
    model.save(tmp_path / f'{count}', 't5x_lite')
    config = load_pretrained(tmp_path / f'{count}').config
    assert config['problem_type'] == 'regression' and config.get('id2label') == (
      NAMES['id2label'] if count == 2 else None
    )


def test_a_model_dir_without_these_files_is_as_before(tmp_path, t5):
  model = load_pretrained(t5)
  model.save(tmp_path / 'ours', 't5x_lite')
  for name in ('config.json', 'generation_config.json'):
    (tmp_path / 'ours' / name).unlink()
  again = load_pretrained(tmp_path / 'ours')
  ids = np.array([[3, 4, 1]])
  one, other = (each(input_ids=ids, decoder_input_ids=ids)['logits'] for each in (again, model))
  np.testing.assert_array_equal(one, other)
  again.save(tmp_path / 'hf')
  assert read(tmp_path / 'hf')['pad_token_id'] == 0


def test_a_config_of_another_model_beside_config_gin_is_told(tmp_path, bert, t5):
  load_pretrained(t5).save(tmp_path / 'ours', 't5x_lite')
  (tmp_path / 'ours' / 'config.json').write_text((bert / 'config.json').read_text())
  with pytest.raises(errors.UsageError, match=r'config\.json is of a Bert, and config\.gin of a T5'):
    load_pretrained(tmp_path / 'ours')


@pytest.mark.parametrize('through', ['hf', 't5x_lite'])
def test_rates_of_dropout_that_are_not_modelled_are_kept(tmp_path, bert, through):
  write(bert, RATES)
  load_pretrained(bert).save(tmp_path / 'first', through)
  load_pretrained(tmp_path / 'first').save(tmp_path / 'kept')
  assert {name: read(tmp_path / 'kept')[name] for name in RATES} == RATES
  load_pretrained(tmp_path / 'first', dropout_rate=0.0).save(tmp_path / 'changed')
  changed = {'hidden_dropout_prob': 0.0, 'attention_probs_dropout_prob': 0.0, 'classifier_dropout': None}
  assert {name: read(tmp_path / 'changed')[name] for name in RATES} == changed


def test_a_rate_that_was_left_to_its_default_stays_so(tmp_path, bert):
  write(bert, {'hidden_dropout_prob': 0.2}, without=('attention_probs_dropout_prob', 'classifier_dropout'))
  load_pretrained(bert).save(tmp_path / 'kept')
  assert not {'attention_probs_dropout_prob', 'classifier_dropout'} & read(tmp_path / 'kept').keys()


def test_an_old_name_does_not_stay_beside_the_new_one(tmp_path):
  write_recorded(tmp_path / 'xlnet', 'xlnet', 'memory')
  size = read(tmp_path / 'xlnet')['vocab_size']
  write(tmp_path / 'xlnet', {'n_token': size}, without=('vocab_size',))
  load_pretrained(tmp_path / 'xlnet', vocab_size=size + 8).save(tmp_path / 'again')
  assert read(tmp_path / 'again')['vocab_size'] == size + 8 and 'n_token' not in read(tmp_path / 'again')


def test_a_model_dir_that_is_moved_takes_its_vocabulary_along(tmp_path, t5, monkeypatch):
  tokenizer = embedded_vocabulary(size=300, extra_ids=10)
  tokenizer.save(t5)
  load_pretrained(t5, vocab_size=320).save(tmp_path / 'old', 't5x_lite')
  (tmp_path / 'old').rename(tmp_path / 'new')
  text = 'The number of <extra_id_0> items.'
  moved = load_pretrained(tmp_path / 'new')
  assert moved.tokenizer.encode(text) == tokenizer.encode(text)
  moved.save(tmp_path / 'old', 't5x_lite')
  moved.save(tmp_path / 'hf')
  (tmp_path / 'new').rename(tmp_path / 'newest')
  monkeypatch.chdir(tmp_path)
  for name in ('old', 'hf', 'newest', 'newest/checkpoint_0'):
    assert load_pretrained(name).tokenizer.encode(text) == tokenizer.encode(text)
