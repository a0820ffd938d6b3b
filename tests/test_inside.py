"""Looking inside from the command line and from Python: attention, hidden states, attributions, probes."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import infer, pretrained, stored_models
from t5x_lite.core.errors import UsageError
from t5x_lite.data import task
from t5x_lite.data.vocabularies.load_tokenizer import load_tokenizer
from t5x_lite.inference import attributions
from t5x_lite.inference.modes import Options
from t5x_lite.inference.readings import TextReader
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig
from t5x_lite.tasks import labelled, originals

TOKENIZERS = pathlib.Path(__file__).parent / 'golden' / 'tokenizers'
TEXTS = ['ada lovelace wrote the first program', 'it was in london']
SIZES = {'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 12}
VOCABULARIES = {name: load_tokenizer(str(TOKENIZERS / name)) for name in ('bert', 't5', 'gpt2', 'xlnet')}
NAMES = {'0': 'bad', '1': 'so so', '2': 'good'}


def sizes(tokenizer):
  return {**SIZES, 'vocab_size': VOCABULARIES[tokenizer].vocab_size}


def made(module, tokenizer, **config):
  """A model of random weights, larger than fresh ones."""
  init = jax.jit(lambda: nn.meta.unbox(module.init({'params': jax.random.key(0)}, stored_models._any_batch())))
  params = jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, init()['params'])
  config = {**stored_models._exported_config(module), **config}
  stored = stored_models.StoredModel('here', module, config, None, lambda: VOCABULARIES[tokenizer])
  return pretrained.Pretrained(module, params, stored, pretrained.Report())


def bert(*heads):
  config = BertConfig(**sizes('bert'), heads=heads, num_labels=3, num_layers=2, max_length=40)
  return made(Bert(config), 'bert', id2label=NAMES)


@pytest.fixture(scope='module')
def classifier():
  return bert('classification')


@pytest.fixture(scope='module')
def folder(classifier, tmp_path_factory):
  target = tmp_path_factory.mktemp('model') / 'hf'
  classifier.save(target)
  return target


def run(folder, tmp_path, lines, *flags, output='out.jsonl', source='in.txt'):
  (tmp_path / source).write_text(''.join(f'{line}\n' for line in lines))
  paths = [f'--input={tmp_path / source}', f'--output={tmp_path / output}']
  return infer.main(['infer', f'--checkpoint={folder}', *paths, '--batch_size=8', *flags])


# --- Attention and hidden states --------------------------------------------------------------------------------------


def test_attention_has_a_map_for_each_layer_and_head_without_padding(classifier):
  rows = classifier.attention(TEXTS, batch_size=2)
  for row, text in zip(rows, TEXTS, strict=True):
    tokens, maps = row['tokens']['encoder'], row['attention']['encoder']
    ids, _ = classifier.tokenizer.with_special_tokens(classifier.tokenizer.encode(text))
    assert len(tokens) == len(ids) and (tokens[0], tokens[-1]) == ('[CLS]', '[SEP]')
    assert maps.shape == (2, 2, len(tokens), len(tokens)) and row['layers'] == {'encoder': [0, 1]}
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
  alone = classifier.attention(TEXTS[1], layers=1)[0]
  assert alone['layers'] == {'encoder': [1]}
  np.testing.assert_allclose(alone['attention']['encoder'], rows[1]['attention']['encoder'][1:], atol=1e-5)


def test_hidden_states_are_those_of_a_call(classifier):
  (row,) = classifier.hidden_states(TEXTS[0], TEXTS[1])
  ids, types = classifier.tokenizer.with_special_tokens(*map(classifier.tokenizer.encode, TEXTS))
  called = classifier(input_ids=np.array([ids]), token_type_ids=np.array([types]))
  assert row['hidden_states']['encoder'].shape == (3, len(ids), 8)
  np.testing.assert_allclose(row['hidden_states']['encoder'][-1], called['last_hidden_state'][0], atol=1e-5)


def test_pages_and_pictures_are_written_whole_or_not_at_all(folder, tmp_path, capsys):
  assert run(folder, tmp_path, TEXTS, '--mode=attention', output='page.html') == 0
  page = (tmp_path / 'page.html').read_text()
  assert 'Attention of' in page and 'lovelace' in page
  assert run(folder, tmp_path, [' ', ' '], '--mode=attention', output='page.html') == 2
  assert 'error: line 1: the text is empty: expected a text' in capsys.readouterr().err
  assert (tmp_path / 'page.html').read_text() == page and not list(tmp_path.glob('.*'))
  assert run(folder, tmp_path, [*TEXTS, ' '], '--mode=attention', output='again.html') == 0
  assert 'line 3: the text is empty: expected a text (left out)' in capsys.readouterr().err
  assert (tmp_path / 'again.html').read_text() == page
  assert run(folder, tmp_path, TEXTS, '--mode=attention', output='maps.svg') == 2
  assert 'a picture of 2 lines: expected one line' in capsys.readouterr().err
  assert run(folder, tmp_path, TEXTS[:1], '--mode=attention', '--layers=1', output='maps.svg') == 0
  assert (tmp_path / 'maps.svg').read_text().startswith('<svg ')
  assert run(folder, tmp_path, TEXTS, '--mode=attention') == 0
  rows = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
  np.testing.assert_allclose(np.sum(rows[1]['attention']['encoder'], axis=-1), 1, atol=1e-4)


@pytest.mark.parametrize(
  ('flags', 'output', 'told'),
  [
    (['--mode=attention', '--layers=2'], 'x.html', 'layers is 2: there is no layer 2, expected numbers from 0 to 1'),
    (['--mode=attention', '--layers=0,7'], 'x.html', 'there is no layer 7'),
    (['--mode=classify', '--output_format=html'], 'x', 'this mode makes no html: expected text, jsonl, csv'),
    (['--mode=attention'], 'x.pdf', 'x.pdf: nothing here writes .pdf: expected .html, .svg, .jsonl'),
    (['--mode=attributions'], 'x.svg', 'this mode makes no svg: expected html, text, jsonl, csv'),
    (['--mode=attributions', '--method=integrated'], 'x', "unknown method 'integrated': did you mean 'integrated_gra"),
    (['--mode=attributions', '--baseline=pad'], 'x', "unknown baseline 'pad': did you mean 'padding'?"),
    (['--mode=attributions', '--steps=0'], 'x', 'steps is 0: expected from 1'),
    (['--mode=attributions', '--target=goood'], 'x', "unknown target 'goood': did you mean 'good'?"),
    (['--mode=probe'], 'x', 'line 1: no label: expected a text, a tab and a label'),
    (['--mode=probe', '--task=embedded_module'], 'x', 'expected one of them'),
    (['--mode=attention', '--task=embedded_module'], 'x', 'with mode'),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(folder, tmp_path, capsys, flags, output, told):
  assert run(folder, tmp_path, TEXTS, *flags, output=output) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith('error: ') and told in error
  assert not (tmp_path / output).exists()


def test_a_text_may_be_too_long_and_a_model_may_have_nothing_to_ask(classifier):
  with pytest.raises(UsageError, match=r'a text of 62 tokens: the model has positions for 40'):
    classifier.attention(' '.join(['the'] * 60))
  with pytest.raises(UsageError, match=r'"targets" for model Bert, which writes nothing'):
    classifier.attention(TEXTS[0], targets=TEXTS[1])
  config = BertConfig(**sizes('bert'), heads=('pooler',), num_layers=1)
  with pytest.raises(UsageError, match='has the heads pooler, which say nothing that could be attributed'):
    made(Bert(config), 'bert').attributions(TEXTS[0])


# --- Attributions -----------------------------------------------------------------------------------------------------


def total(target):
  return sum(float(each.sum()) for each in target['values'].values())


def test_attributions_of_a_class_sum_to_what_the_text_adds_to_its_logit(classifier):
  rows = classifier.attributions(TEXTS, steps=48, batch_size=2)
  for row in rows:
    (target,) = row['attributions']
    ids, types = classifier.tokenizer.with_special_tokens(classifier.tokenizer.encode(row['text']))
    logits = classifier(input_ids=np.array([ids]), token_type_ids=np.array([types]))['logits'][0]
    assert target['target'] == NAMES[str(np.argmax(logits))]
    assert target['score'] == pytest.approx(np.max(logits), abs=1e-4)
    assert total(target) == pytest.approx(target['score'] - target['baseline_score'], abs=5e-3)
    assert abs(target['completeness_gap']) < 5e-3
    own = target['values']['encoder']
    assert len(own) == len(row['tokens']['encoder']) and own[0] == own[-1] == 0 and np.all(own[1:-1] != 0)
  (other,) = classifier.attributions(TEXTS[0], target='bad', method='gradients_times_input')
  assert other['attributions'][0]['target'] == 'bad' and 'baseline' not in other


@pytest.mark.slow
def test_the_mean_of_the_vocabulary_may_stand_in_the_place_of_tokens(classifier):
  rows = classifier.attributions(
    ['ada wrote the program', 'program the wrote ada'], baseline='mean', target='good', steps=48
  )
  one, other = (row['attributions'][0] for row in rows)
  assert one['score'] != other['score'] and one['baseline_score'] == pytest.approx(other['baseline_score'], abs=1e-5)
  for target in (one, other):
    assert total(target) == pytest.approx(target['score'] - target['baseline_score'], abs=5e-3)
  reader, size = TextReader(classifier, writes=False), classifier.tokenizer.vocab_size
  batch = reader.batch([reader.read({'text': TEXTS[0]}).more], 16)
  question = attributions._Question(classifier.module, 'classification', Options(), size)
  (found,) = jax.tree.leaves(question._mean_vectors(classifier.params, batch))
  (table,) = (leaf for leaf in jax.tree.leaves(classifier.params) if leaf.ndim == 2 and leaf.shape[0] >= size)
  np.testing.assert_allclose(found, np.mean(table[:size], axis=0)[None, None], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_masks_are_asked_for_one_by_one():
  model = bert('mlm')
  (row,) = model.attributions('ada [MASK] wrote the [MASK] program', steps=96, baseline='zero')
  first, second = row['attributions']
  places = [place for place, token in enumerate(row['tokens']['encoder']) if token == '[MASK]']
  assert [first['position'], second['position']] == places
  for target in (first, second):
    assert target['score'] < 0 and abs(target['completeness_gap']) < 2e-2
  with pytest.raises(UsageError, match=r'no mask to ask for: expected \[MASK\] in the text'):
    model.attributions(TEXTS[0])


# --- Other families ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_t5_shows_its_three_kinds_of_attention_and_what_each_token_written_comes_from():
  model = made(T5(T5Config(**sizes('t5'), num_encoder_layers=1, num_decoder_layers=2)), 't5')
  (row,) = model.attention('ab cd', targets='ef')
  counts = {side: len(tokens) for side, tokens in row['tokens'].items()}
  expected = {
    'encoder': ('encoder', 'encoder', 1),
    'decoder': ('decoder', 'decoder', 2),
    'cross': ('decoder', 'encoder', 2),
  }
  for name, (queries, keys, layers) in expected.items():
    assert row['attention'][name].shape == (layers, 2, counts[queries], counts[keys])
  (chosen,) = model.attention('ab cd', targets='ef', layers=1)
  assert sorted(chosen['attention']) == ['cross', 'decoder']
  assert list(model.hidden_states('ab cd')[0]['hidden_states']) == ['encoder']
  assert model.hidden_states('ab cd', targets='ef')[0]['hidden_states']['decoder'].shape == (3, counts['decoder'], 8)
  (row,) = model.attributions('ab cd', targets='ef', steps=16)
  assert len(row['attributions']) == counts['decoder']
  for place, target in enumerate(row['attributions']):
    # The root mean square of a path that passes near 0 is steep: the gap is told, and need not be small.
    total = sum(np.sum(each) for each in target['values'].values())
    gap = total - (target['score'] - target['baseline_score'])
    np.testing.assert_allclose(target['completeness_gap'], gap, rtol=1e-3, atol=1e-3)
    assert np.all(target['values']['decoder'][place + 1 :] == 0)  # what is written later
    assert np.any(target['values']['encoder'] != 0)


@pytest.mark.slow
def test_gpt_sees_what_was_before_and_xlnet_has_two_streams():
  model = made(Gpt(GptConfig(**sizes('gpt2'), num_layers=1, max_length=64)), 'gpt2')
  (row,) = model.attention('ab', targets=' cd')
  maps = row['attention']['decoder']
  assert np.all(maps[..., np.triu(np.ones(maps.shape[-2:], bool), 1)] == 0)
  (row,) = model.attributions('ab cd')
  assert len(row['attributions']) == 1 and row['attributions'][0]['position'] == len(row['tokens']['decoder']) - 1
  (row,) = model.attributions('ab', targets=' cd', steps=128)
  last = row['attributions'][-1]
  assert last['values']['decoder'][-1] == 0 and np.all(last['values']['decoder'][:2] != 0)
  model = made(Xlnet(XlnetConfig(**sizes('xlnet'), num_layers=1)), 'xlnet')
  (row,), (given,) = model.attributions('ab cd'), model.attributions('ab', targets=' cd')
  assert [each['text'] for each in (row, given)] == ['ab', 'ab'] and row['targets'] == ' cd'
  np.testing.assert_array_equal(
    row['attributions'][-1]['values']['decoder'], given['attributions'][-1]['values']['decoder']
  )
  alone, both = model.attention(['ab cd', 'ab cd'])[0], model.attention('ab cd', targets=' ef')[0]
  assert list(alone['attention']) == ['content'] and sorted(both['attention']) == ['content', 'query']
  assert np.all(alone['attention']['content'] > 0)
  count = len(both['tokens']['decoder'])
  assert both['attention']['query'].shape == (1, 2, count, count)


# --- Probes -----------------------------------------------------------------------------------------------------------


def test_probes_of_texts_and_of_words_have_a_row_for_each_layer(folder, tmp_path):
  words = ['ada', 'london', 'program', 'wrote']
  lines = [f'{words[number % 2]} {words[2 + number % 3 // 2]}\t{"ab"[number % 2]}' for number in range(24)]
  assert run(folder, tmp_path, lines, '--mode=probe') == 0
  rows = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
  assert [row['layer'] for row in rows] == [0, 1, 2] and rows[0]['accuracy'] == 1.0
  assert rows[0]['examples'] == 24 and rows[0]['held_out'] == 6
  tagged = [
    json.dumps({'words': words[: 2 + number % 3], 'tags': list('PLOV')[: 2 + number % 3]}) for number in range(8)
  ]
  flags = ('--mode=probe', '--layers=0,2')
  assert run(folder, tmp_path, tagged, *flags, output='probe.html', source='in.jsonl') == 0
  assert '<svg' in (tmp_path / 'probe.html').read_text()


@pytest.mark.slow
def test_a_task_may_be_probed_for_by_its_name(folder, tmp_path, monkeypatch, capsys):
  long = ' the' * 60  # more than the model has positions for
  records = [{'text': f'{("ada", "london")[n % 2]}{long * (n == 7)}', 'label': n % 2} for n in range(30)]
  source = originals.OriginalSource(lambda *_: records, '.', ('validation',))
  member = labelled.labelled_task('probed', source, 'bench', ['text'], labels=['a person', 'a place'])
  monkeypatch.setitem(task._registry, 'probed', member)
  target = tmp_path / 'probe.jsonl'
  flags = ['--mode=probe', '--task=probed', '--limit=24', '--batch_size=8', f'--output={target}']
  assert infer.main(['infer', f'--checkpoint={folder}', *flags]) == 0
  rows = [json.loads(line) for line in target.read_text().splitlines()]
  assert [row['layer'] for row in rows] == [0, 1, 2] and rows[0]['accuracy'] == 1.0
  left_out = [n * 30 // 24 for n in range(24)].count(7)
  assert (rows[0]['examples'], rows[0]['labels']) == (24 - left_out, 2)
  assert ('1 of 24 examples are left out' in capsys.readouterr().err) == (left_out == 1)
