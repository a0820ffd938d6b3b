"""`python -m t5x_lite.infer` on tiny published models, from its flags to its files."""

from __future__ import annotations

import csv
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import infer, pretrained, stored_models
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config
from t5x_lite.models.xlnet import Xlnet, XlnetConfig

SIZES = {'vocab_size': 320, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 12, 'scan_layers': False}


def saved(folder: pathlib.Path, module) -> pathlib.Path:
  """A model of random weights, as transformers would have saved it, with the embedded vocabulary."""
  params = jax.jit(lambda: nn.meta.unbox(module.init({'params': jax.random.key(0)}, stored_models._any_batch())))()
  config = stored_models._exported_config(module)
  stored = stored_models.StoredModel('here', module, config, None, lambda: embedded_vocabulary(size=300, extra_ids=20))
  pretrained.Pretrained(module, params['params'], stored, pretrained.Report()).save(folder)
  return folder


@pytest.fixture(scope='module')
def t5(tmp_path_factory):
  module = T5(T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1))
  return saved(tmp_path_factory.mktemp('t5') / 'hf', module)


def run(folder, tmp_path, lines, *flags, name='out.jsonl'):
  source = tmp_path / 'in.jsonl'
  source.write_text(''.join(line + '\n' for line in lines))
  output = tmp_path / name
  arguments = [f'--checkpoint={folder}', f'--input={source}', f'--output={output}', '--batch_size=8', *flags]
  code = infer.main(['infer', *arguments])
  return code, output


def test_options_are_flags_and_bad_lines_are_told(t5, tmp_path, capsys):
  lines = ['{"inputs": "one"}', 'oops', '{"inputs": "two words", "id": 3}', '{"inputs": ""}']
  flags = ('--num_beams=2', '--max_new_tokens', '3', '--num_return_sequences=2')
  code, output = run(t5, tmp_path, lines, *flags)
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  assert code == 0 and [row['line'] for row in rows] == [1, 2, 3, 4]
  assert 'not JSON' in rows[1]['error'] and 'line 2: not JSON' in capsys.readouterr().err
  for row in (rows[0], rows[2], rows[3]):
    assert len(row['predictions']) == 2 and row['prediction'] == row['predictions'][0]
    assert row['scores'] == sorted(row['scores'], reverse=True)
  assert run(t5, tmp_path, ['oops', '{'], name='bad.jsonl')[0] == 1
  # As one call from Python.
  model = pretrained.load_pretrained(t5)
  same = model.generate(['one', 'two words'], num_beams=2, max_new_tokens=3, num_return_sequences=2)
  assert same.texts == [*rows[0]['predictions'], *rows[2]['predictions']]


def test_a_smaller_model_drafts_by_a_flag(t5, tmp_path, capsys):
  smaller = saved(
    tmp_path / 'smaller', T5(T5Config(**{**SIZES, 'emb_dim': 4}, num_encoder_layers=1, num_decoder_layers=1))
  )
  lines, flags = ['{"inputs": "one"}', '{"inputs": "two words"}'], ('--max_new_tokens=7', '--output_scores')
  _, plain = run(t5, tmp_path, lines, *flags)
  drafting = (f'--assistant_model={smaller}', '--num_assistant_tokens=3')
  code, drafted = run(t5, tmp_path, lines, *flags, *drafting, name='drafted.jsonl')
  one, other = ([json.loads(line) for line in file.read_text().splitlines()] for file in (plain, drafted))
  assert code == 0 and [row['prediction'] for row in one] == [row['prediction'] for row in other]
  assert [row['score'] for row in one] == pytest.approx([row['score'] for row in other], abs=1e-4)
  for more, told in (
    (('--mode=score',), 'expected mode generate'),
    (('--num_beams=2',), 'expected greedy or sampling'),
  ):
    code, _ = run(t5, tmp_path, lines, *drafting, *more, name='not.jsonl')
    assert code == 2 and told in capsys.readouterr().err


def test_likelihoods_are_those_of_the_model(t5, tmp_path):
  code, output = run(t5, tmp_path, ['{"inputs": "one", "targets": "two words"}'], '--mode=score', name='out.csv')
  (row,) = csv.DictReader(output.read_text().splitlines())
  model = pretrained.load_pretrained(t5)
  ids = model.prompt_ids('one')
  targets = np.asarray(model.tokenizer.with_special_tokens(model.tokenizer.encode('two words'))[0])
  logits = model(input_ids=ids[None], labels=targets[None])['logits'][0].astype(np.float64)
  chosen = logits[np.arange(len(targets)), targets] - np.log(np.exp(logits).sum(-1))
  assert code == 0 and float(row['log_likelihood']) == pytest.approx(chosen.sum(), abs=1e-4)
  assert float(row['perplexity']) == pytest.approx(math.exp(-chosen.mean()), rel=1e-4)
  assert float(row['bits_per_byte']) == pytest.approx(-chosen.sum() / math.log(2) / len('two words'), abs=1e-4)


@pytest.mark.parametrize(
  ('flags', 'told'),
  [
    (('--mode=genarate',), "unknown mode 'genarate': did you mean 'generate'?"),
    (('--num_beams=0',), 'num_beams is 0: expected at least 1'),
    (('--num_beens=4',), "unknown flag '--num_beens': did you mean '--num_beams'?"),
    (('--num_beems=2',), "unknown flag '--num_beems': did you mean '--num_beams'?"),
    (('-num_beams=0',), 'num_beams is 0: expected at least 1'),
    (('--mode=fill',), 'model T5 fills no masks'),
    (('--input_format=xml',), "unknown input_format 'xml'"),
    (('--num_return_sequences=2',), 'expected do_sample=True, or num_beams of as many'),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(t5, tmp_path, capsys, flags, told):
  code, output = run(t5, tmp_path, ['{"inputs": "one"}'], *flags)
  error = capsys.readouterr().err
  assert code == 2 and told in error and not output.exists()


@pytest.mark.slow
def test_a_decoder_goes_on_scores_and_embeds(tmp_path):
  folder = saved(tmp_path / 'hf', Gpt(GptConfig(**SIZES, num_layers=1, max_length=48)))
  lines = ['{"text": "Once upon a time"}', '{"text": ""}', json.dumps({'text': 'word ' * 60})]
  _, output = run(folder, tmp_path, lines, '--do_sample', '--num_return_sequences=5', '--max_new_tokens=4')
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  assert len(rows[0]['predictions']) == 5
  assert 'is empty' in rows[1]['error'] and 'the model has positions for 48' in rows[2]['error']
  _, output = run(folder, tmp_path, lines[:1], '--mode=score', name='score.jsonl')
  (row,) = map(json.loads, output.read_text().splitlines())
  assert row['num_tokens'] == len(row['token_log_likelihoods']) and row['log_likelihood'] < 0
  # A blank between the two belongs to what is scored, on whichever side it stands.
  pairs = ['{"inputs": "once ", "targets": "upon a time"}', '{"inputs": "once", "targets": " upon a time"}']
  _, output = run(folder, tmp_path, pairs, '--mode=score', name='pairs.jsonl')
  first, second = map(json.loads, output.read_text().splitlines())
  assert first['token_log_likelihoods'] == second['token_log_likelihoods'] and first['num_tokens'] > 1
  for pooling in ('mean', 'last'):
    _, output = run(folder, tmp_path, lines[:1], '--mode=embed', f'--pooling={pooling}', name=f'{pooling}.jsonl')
    (row,) = map(json.loads, output.read_text().splitlines())
    assert len(row['embedding']) == 8
  # A text that is too long is cut at its end, so that what is behind it changes nothing.
  long = [json.dumps({'text': 'word ' * 60 + end}) for end in ('', 'and one more')]
  _, output = run(folder, tmp_path, long, '--mode=embed', '--pooling=last', name='long.jsonl')
  first, second = map(json.loads, output.read_text().splitlines())
  assert first['truncated'] and first['embedding'] == second['embedding']


@pytest.mark.slow
def test_xlnet_scores_one_token_behind_the_other(tmp_path):
  folder = saved(tmp_path / 'hf', Xlnet(XlnetConfig(**SIZES, num_layers=2)))
  lines = [json.dumps({'inputs': 'one', 'targets': ' and two words'}), json.dumps({'text': 'words'})]
  code, output = run(folder, tmp_path, lines, '--mode=score')
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  model = pretrained.load_pretrained(folder)
  start = model.generation_config.bos_token_id
  before = [model.tokenizer.eos_id if start is None else start, *model.tokenizer.encode('one')]
  whole = [before[0], *model.tokenizer.encode('one and two words')]
  # As in transformers: the context sees itself, and each target what stands before it.
  order = np.maximum(np.arange(len(whole)) - len(before) + 1, 0)
  hidden = (order[None, :] > order[:, None]) | ((order[None, :] == order[:, None]) & (order > 0)[None, :])
  mapping = np.eye(len(whole), dtype=np.float32)[len(before) :]
  ids = np.asarray([whole], np.int32)
  logits = model(input_ids=ids, perm_mask=hidden[None].astype(np.float32), target_mapping=mapping[None])['logits'][0]
  targets = whole[len(before) :]
  chosen = logits[np.arange(len(targets)), targets] - np.log(np.exp(logits.astype(np.float64)).sum(-1))
  assert code == 0 and len(targets) > 3 and rows[0]['token_log_likelihoods'] == pytest.approx(chosen, abs=1e-4)
  assert rows[1]['num_tokens'] == len(model.tokenizer.encode('words')) and rows[1]['log_likelihood'] < 0


@pytest.mark.slow
def test_an_encoder_writes_nothing(tmp_path, capsys):
  folder = saved(tmp_path / 'hf', Bert(BertConfig(**SIZES, num_layers=1)))
  code, _ = run(folder, tmp_path, ['{"inputs": "one"}'])
  assert code == 2 and 'an encoder, which reads text and writes none' in capsys.readouterr().err
