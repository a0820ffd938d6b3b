"""`load_pretrained`: from a directory to a called, changed, saved model; and as the beginning of a run."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from jax.sharding import PartitionSpec

import t5x_lite
from t5x_lite import pretrained, stored_models
from t5x_lite.core import errors, tree
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary
from t5x_lite.interop import export
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.partitioning.mesh import MeshShape, make_mesh
from t5x_lite.pretrained import load_pretrained

GOLDEN = pathlib.Path(__file__).parent / 'golden'
SMALL = T5Config(
  vocab_size=40, emb_dim=16, num_heads=3, head_dim=4, mlp_dim=24, num_encoder_layers=2, num_decoder_layers=3
)


def model_of(config=SMALL, *, tokenizer=None, seed=0):
  """A model that was never stored."""
  module = T5(config)
  names = list(tree.named_leaves(stored_models.nn.meta.unbox(stored_models.abstract_params(module))))
  abstract = stored_models.placed(module, None)
  leaves = stored_models.fresh_params(module, abstract, seed)(names)
  params = jax.tree_util.tree_map_with_path(lambda path, _: leaves[tree.path_name(path)], abstract)
  stored = stored_models.StoredModel(
    'here', module, stored_models._exported_config(module), None, lambda: tokenizer, exported=True
  )
  return pretrained.Pretrained(module, params, stored, pretrained.Report())


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A model, and the directories of both formats."""
  folder = tmp_path_factory.mktemp('saved')
  model = model_of()
  model.save(folder / 'hf')
  model.save(folder / 'ours', 't5x_lite')
  return model, folder / 'hf', folder / 'ours'


def call(model):
  ids = np.arange(2, 14).reshape(2, 6)
  return model(input_ids=ids, attention_mask=ids != 9, decoder_input_ids=ids[:, :4])['logits']


def test_the_package_offers_it():
  assert t5x_lite.load_pretrained is load_pretrained
  with pytest.raises(AttributeError, match='load_pretrianed'):
    t5x_lite.load_pretrianed  # noqa: B018


@pytest.mark.parametrize('scan', [True, False], ids=['scanned', 'unrolled'])
@pytest.mark.parametrize('format', ['hf', 't5x_lite'])
def test_what_is_saved_is_loaded_bit_by_bit_in_either_layout(saved, format, scan):
  model, hf, ours = saved
  again = load_pretrained(hf if format == 'hf' else ours, scan_layers=scan)
  assert not again.report.lines()
  assert dataclasses.replace(again.module.config, scan_layers=True) == SMALL
  if scan:
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
  else:
    for layer in range(3):
      jax.tree.map(
        lambda one, all_of_them, layer=layer: np.testing.assert_array_equal(one, all_of_them[layer]),
        again.params['decoder']['blocks'][f'layers_{layer}'],
        model.params['decoder']['blocks']['layers'],
      )
  np.testing.assert_allclose(call(again), call(model), atol=1e-5)


def test_parameters_go_where_the_mesh_says(saved):
  model, hf, ours = saved
  mesh = make_mesh(MeshShape(data=2, fsdp=4))
  for source in (hf, ours):
    again = load_pretrained(source, mesh=mesh)
    table = again.params['token_embedder']['embedding']
    assert table.sharding.spec == PartitionSpec('tensor', 'fsdp')
    assert table.addressable_shards[0].data.shape == (40, 4)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
  np.testing.assert_allclose(call(again), call(model), atol=1e-5)


@pytest.mark.parametrize('format', [pytest.param('hf', marks=pytest.mark.slow), 't5x_lite'])
def test_another_head_is_fresh_and_listed(saved, format, caplog):
  model, hf, ours = saved
  changes = {'heads': ('classification',), 'num_labels': 3}
  source = hf if format == 'hf' else ours
  new = load_pretrained(source, **changes)
  names = {f'heads/{head}/{kind}' for head in ('classification', 'pooler') for kind in ('kernel', 'bias')}
  assert set(new.report.fresh) == names and 'newly initialised: heads/' in caplog.text
  jax.tree.map(np.testing.assert_array_equal, new.params['encoder'], model.params['encoder'])
  ids = np.array([[5, 6, 1]])
  assert new(input_ids=ids)['logits'].shape == (1, 3)
  np.testing.assert_array_equal(
    load_pretrained(source, **changes).params['heads']['pooler']['kernel'], new.params['heads']['pooler']['kernel']
  )
  other = load_pretrained(source, seed=1, **changes)
  assert not np.array_equal(other.params['heads']['pooler']['kernel'], new.params['heads']['pooler']['kernel'])


@pytest.mark.parametrize('size', [48, 32])
@pytest.mark.parametrize('format', ['hf', 't5x_lite'])
def test_the_vocabulary_is_resized_on_request(saved, format, size):
  model, hf, ours = saved
  new = load_pretrained(hf if format == 'hf' else ours, vocab_size=size)
  old, table = model.params['token_embedder']['embedding'], np.asarray(new.params['token_embedder']['embedding'])
  np.testing.assert_array_equal(table[:40], old[:size])
  assert np.all(np.std(table[40:], axis=1) > 0.1)
  (told,) = new.report.resized
  assert told.startswith(f'token_embedder/embedding: 40 tokens there, {size} here')
  assert call(new).shape == (2, 4, size)


def test_a_model_that_is_another_is_refused_by_name(saved):
  _, hf, ours = saved
  for source in (hf, ours):
    for changes, told in (
      ({'num_heads': 6}, 'num_heads is 3 there and 6 here'),
      ({'mlp_activations': ('gelu', 'linear')}, 'mlp_activations is'),
      ({'emb_dmi': 3}, "unknown field of T5Config 'emb_dmi': did you mean 'emb_dim'"),
    ):
      with pytest.raises(errors.UsageError, match=told):
        load_pretrained(source, **changes)
    with pytest.raises(errors.UsageError, match='emb_dim is 16 there and 512 here'):
      load_pretrained(source, model='models/t5_small.gin')


def test_one_head_may_stand_alone_and_lists_are_tuples(saved):
  _, hf, ours = saved
  for source in (hf, ours):
    assert load_pretrained(source, heads='span').module.config.heads == ('span',)
    assert load_pretrained(source, heads=['span'], mlp_activations=['relu']).module.config.mlp_activations == ('relu',)
    for heads, told in ((('span', 'span'), 'each of them once'), (None, 'expected names of heads'), ((3,), 'names of')):
      with pytest.raises(errors.UsageError, match=told):
        load_pretrained(source, heads=heads)


def test_a_source_that_is_none_is_refused(saved):
  _, hf, ours = saved
  for source in (None, 3, ''):
    with pytest.raises(errors.UsageError, match=r'expected a directory, or a name|no directory'):
      load_pretrained(source)
  for source in (hf, ours):
    with pytest.raises(errors.UsageError, match=r"revision is 'main', which is for names on the hub"):
      load_pretrained(source, revision='main')


def test_a_tagger_with_a_decoder_is_not_exported(saved, tmp_path):
  _, hf, _ = saved
  with pytest.raises(errors.UsageError, match='num_decoder_layers=0'):
    load_pretrained(hf, heads='tagging').save(tmp_path / 'x')
  load_pretrained(hf, heads='tagging', num_decoder_layers=0).save(tmp_path / 'x')


def test_bad_directories_are_one_line_each(tmp_path, saved):
  _, hf, _ = saved
  bad = tmp_path / 'bad'
  bad.mkdir()
  with pytest.raises(errors.UsageError, match=r'has no config\.json'):
    load_pretrained(bad)
  (bad / 'config.json').write_text((hf / 'config.json').read_text())
  with pytest.raises(errors.UsageError, match='has no weights'):
    load_pretrained(bad)
  (bad / 'pytorch_model.bin').write_bytes(b'')
  with pytest.raises(errors.UsageError, match=r'pytorch_model\.bin only, which can run code .* save_pretrained'):
    load_pretrained(bad)
  (bad / 'config.json').write_text('{')
  with pytest.raises(errors.UsageError, match=r'cannot read .*config\.json'):
    load_pretrained(bad)


def test_arguments_are_checked(saved):
  model, *_ = saved
  ids = np.zeros((1, 3), int)
  for arguments, told in (
    ({'input_ids': ids, 'token_type_ids': ids}, "unknown argument of T5 'token_type_ids'"),
    ({'attention_mask': ids}, 'input_ids is missing'),
    ({'input_ids': ids}, 'decoder_input_ids is missing'),
    ({'input_ids': ids, 'labels': ids, 'attention_mask': ids[:, :2]}, r'attention_mask is \[1, 2\], and input_ids'),
    ({'input_ids': ids[0], 'labels': ids}, r'input_ids is \[3\]: expected \[batch, length\]'),
  ):
    with pytest.raises(errors.UsageError, match=told):
      model(**arguments)


def test_a_saved_directory_is_whole_or_not_there(tmp_path, saved, monkeypatch):
  model, hf, _ = saved
  with pytest.raises(errors.UsageError, match='is there and not empty'):
    model.save(hf)
  with pytest.raises(errors.UsageError, match="unknown format 't5xlite': did you mean 't5x_lite'"):
    model.save(tmp_path / 'x', 't5xlite')
  with pytest.raises(errors.UsageError, match="size '5 apples'"):
    model.save(tmp_path / 'x', max_shard_size='5 apples')

  def fails(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pretrained.export, 'write_json', fails)
  with pytest.raises(errors.UsageError, match='No space left'):
    model.save(tmp_path / 'x')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_tokenizer_and_its_ids_go_along(tmp_path):
  tokenizer = embedded_vocabulary(size=300, extra_ids=10)
  model = model_of(dataclasses.replace(SMALL, vocab_size=320), tokenizer=tokenizer)
  text = 'The number of <extra_id_0> items.'
  model.save(tmp_path / 'hf')
  config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
  generation = json.loads((tmp_path / 'hf' / 'generation_config.json').read_text())
  assert (config['pad_token_id'], config['eos_token_id'], generation['decoder_start_token_id']) == (0, 1, 0)
  model.save(tmp_path / 'ours', 't5x_lite')
  for folder in ('hf', 'ours'):
    again = load_pretrained(tmp_path / folder)
    assert again.tokenizer.encode(text) == tokenizer.encode(text)
  again.save(tmp_path / 'back')
  names = {path.name for path in (tmp_path / 'back').iterdir()}
  assert names == {path.name for path in (tmp_path / 'hf').iterdir()} >= {'spiece.model', 'tokenizer_config.json'}


def test_what_was_read_is_kept_where_it_still_holds(tmp_path, saved):
  _, hf, _ = saved
  for name in hf.iterdir():
    (tmp_path / name.name).write_bytes(name.read_bytes())
  config = json.loads((hf / 'config.json').read_text())
  config |= {'task_specific_params': {'a': 1}, 'torch_dtype': 'bfloat16', 'd_model': 16, 'initializer_factor': 0.5}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  (tmp_path / 'generation_config.json').write_text('{"max_new_tokens": 7}')
  load_pretrained(tmp_path, vocab_size=48).save(tmp_path / 'again')
  again = json.loads((tmp_path / 'again' / 'config.json').read_text())
  assert again['task_specific_params'] == {'a': 1} and again['initializer_factor'] == 0.5
  assert again['vocab_size'] == 48 and again['dtype'] == 'float32' and 'torch_dtype' not in again
  assert json.loads((tmp_path / 'again' / 'generation_config.json').read_text()) == {'max_new_tokens': 7}


def test_a_module_that_transformers_lacks_is_not_written(tmp_path):
  model = model_of(dataclasses.replace(SMALL, positions='rotary'))
  with pytest.raises(errors.UsageError, match='rotary'):
    model.save(tmp_path / 'hf')
  model.save(tmp_path / 'ours', 't5x_lite')
  np.testing.assert_allclose(call(load_pretrained(tmp_path / 'ours')), call(model), atol=1e-5)
  assert [path.name for path in tmp_path.iterdir()] == ['ours']


def of_another_family(name, case, folder):
  """A recorded case of another family as a directory, with what it was given and what it returned."""
  with np.load(GOLDEN / f'{name}.npz') as file:
    arrays = dict(file)
  described = json.loads(str(arrays['cases']))[case]
  if 'state' in described:
    state = {key: arrays[f'tensor/{number}'] for key, number in described['state'].items()}
  else:
    state = {key.removeprefix('state/'): array for key, array in arrays.items() if key.startswith('state/')}
  folder.mkdir()
  export.write_weights(folder, state, state.items())
  export.write_json(folder / 'config.json', described['config'])
  under = {which: f'{case}/{which}/' for which in ('in', 'out')}
  return [{key.removeprefix(p): a for key, a in arrays.items() if key.startswith(p)} for p in under.values()]


OTHERS = (('bert', 'pretraining'), ('roberta', 'masked_lm'), ('gpt2', 'lm'), ('xlnet', 'memory'))


@pytest.mark.parametrize(('name', 'case'), OTHERS)
def test_the_other_families_are_loaded_called_and_saved_alike(tmp_path, name, case):
  inputs, outputs = of_another_family(name, case, tmp_path / 'model')
  model = load_pretrained(tmp_path / 'model')
  model.save(tmp_path / 'again')
  again = load_pretrained(tmp_path / 'again', scan_layers=False)
  assert not model.report.fresh and not again.report.lines()
  assert again.config['model_type'] == model.config['model_type'] == name
  one, other = model(**inputs), again(**inputs)
  real = inputs.get('attention_mask', np.ones_like(inputs['input_ids'])) > 0
  for key, expected in outputs.items():
    where = real if expected.shape[:2] == real.shape else ...
    np.testing.assert_allclose(one[key][where], expected[where], atol=1e-5, rtol=1e-5, err_msg=key)
    np.testing.assert_allclose(other[key][where], expected[where], atol=1e-5, rtol=1e-5, err_msg=key)
  if case == 'memory':
    with np.load(GOLDEN / 'xlnet.npz') as file:
      given = {key: file[f'memory/second/in/{key}'] for key in ('input_ids', 'token_type_ids')}
      following = model(**given, mems=tuple(one['mems']))
      np.testing.assert_allclose(following['logits'], file['memory/second/out/logits'], atol=1e-5, rtol=1e-5)


def test_a_t5x_checkpoint_is_loaded_called_and_handed_on(tmp_path):
  with np.load(GOLDEN / 't5x.npz') as file:
    case, described = next(iter(json.loads(str(file['cases'])).items()))
    values, logits = file[f'{case}/params'].astype(np.float32), file[f'{case}/logits']
    given = {name.removeprefix('in/'): file[name] for name in file.files if name.startswith('in/')}
  shapes = described['shapes']
  parts = np.split(values, np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1])
  target = {tuple(name.split('/')): part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
  state = {'version': 3, 'optimizer': {'target': traverse_util.unflatten_dict(target), 'state': {'step': np.int32(7)}}}
  (tmp_path / 'checkpoint_7').mkdir()
  (tmp_path / 'checkpoint_7' / 'checkpoint').write_bytes(serialization.msgpack_serialize(state))
  model = load_pretrained(tmp_path)
  arguments = {
    'input_ids': given['encoder_input_tokens'],
    'attention_mask': given['encoder_segment_ids'] > 0,
    'decoder_input_ids': given['decoder_input_tokens'],
    'decoder_attention_mask': given['decoder_segment_ids'] > 0,
  }
  # One example a row is what a call means; the recorded rows are packed where there are more segments than one.
  single = (given['encoder_segment_ids'].max(axis=1) <= 1) & (given['decoder_segment_ids'].max(axis=1) <= 1)
  assert single.any()
  model.save(tmp_path / 'hf')
  for loaded in (model, load_pretrained(tmp_path / 'hf'), load_pretrained(tmp_path / 'checkpoint_7' / 'checkpoint')):
    where = single[:, None] & (given['decoder_segment_ids'] > 0)
    np.testing.assert_allclose(loaded(**arguments)['logits'][where], logits[where], atol=1e-5, rtol=1e-5)
