"""lm-evaluation-harness over tiny models, on tasks of a folder: no network."""

from __future__ import annotations

import json
import types

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import harness, pretrained, stored_models
from t5x_lite.core import errors
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.models.gpt import Gpt, GptConfig
from t5x_lite.models.t5 import T5, T5Config

SIZES = {'vocab_size': 320, 'emb_dim': 8, 'num_heads': 2, 'head_dim': 4, 'mlp_dim': 12, 'scan_layers': False}
MODELS = {
  'gpt': Gpt(GptConfig(**SIZES, num_layers=1, max_length=48)),
  't5': T5(T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1)),
}


def model_of(module):
  """A model of random weights, far from uniform, as transformers would have saved it, with the embedded vocabulary."""
  params = jax.jit(lambda: nn.meta.unbox(module.init({'params': jax.random.key(0)}, stored_models._any_batch())))()
  params = jax.tree.map(lambda leaf: 4 * leaf, params['params'])
  config = stored_models._exported_config(module)
  stored = stored_models.StoredModel('here', module, config, None, lambda: embedded_vocabulary(size=300, extra_ids=20))
  return pretrained.Pretrained(module, params, stored, pretrained.Report())


def requests(*arguments):
  return [types.SimpleNamespace(args=each) for each in arguments]


def test_without_the_package_the_command_says_what_to_install(capsys, monkeypatch):
  import sys

  monkeypatch.setitem(sys.modules, 'lm_eval', None)
  monkeypatch.setitem(sys.modules, 'lm_eval.api', None)
  assert harness.main(['harness', '--tasks=none']) == 2
  assert "pip install '.[lm_eval]'" in capsys.readouterr().err


@pytest.fixture(scope='module', params=list(MODELS))
def model(request):
  pytest.importorskip('lm_eval')
  return model_of(MODELS[request.param])


def by_hand(model, before, own):
  """Logits of all positions in one call, as transformers has them."""
  if hasattr(model.module, 'encode'):
    logits = model(input_ids=np.array([before]), labels=np.array([own]))['logits'][0]
  else:
    logits = model(input_ids=np.array([before + own]))['logits'][0, len(before) - 1 : -1]
  logits = logits.astype(np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return log_probs[np.arange(len(own)), own].sum(), (log_probs.argmax(-1) == own).all()


def ids_of(model, before, own):
  tokenizer = model.tokenizer
  if hasattr(model.module, 'encode'):
    return tokenizer.with_special_tokens(tokenizer.encode(before))[0], tokenizer.encode(own)
  whole = tokenizer.encode(before + own)
  return whole[: len(tokenizer.encode(before))], whole[len(tokenizer.encode(before)) :]


def test_requests_are_answered_in_their_order_as_the_model_says(model):
  from t5x_lite.inference.harness_model import HarnessModel

  asked = [('The first', ' thing'), ('A longer context that stands before', ' it'), ('Yes', ', and more words follow')]
  answers = HarnessModel(model, batch_size=2).loglikelihood(requests(*asked))
  for (before, own), (total, greedy) in zip(asked, answers, strict=True):
    expected, same = by_hand(model, *ids_of(model, before, own))
    assert total == pytest.approx(expected, abs=1e-3) and greedy == same
  # A space at the end of a context is of what follows; and what greedy decoding writes is greedy.
  if not hasattr(model.module, 'encode'):
    spaced = HarnessModel(model, batch_size=1).loglikelihood(requests(('The first ', 'thing')))
    assert spaced[0][0] == pytest.approx(answers[0][0], abs=1e-3)


def test_long_texts_are_windows_of_which_every_token_is_in_one(model):
  from t5x_lite.inference.harness_model import HarnessModel

  text = 'many words of a text that is longer than a window of sixteen tokens and goes on for a while'
  ids = model.tokenizer.encode(text)
  wrapped = HarnessModel(model, batch_size=4, max_length=16)
  assert len(ids) > 32 and wrapped._longest == 16
  (total,) = wrapped.loglikelihood_rolling(requests((text,)))
  start = model.tokenizer.eos_id if hasattr(model.module, 'encode') else wrapped._likelihood.start
  expected, begin = 0.0, 0
  while begin < len(ids):
    end = min(begin + 16, len(ids))
    first = max(end - 16, 0)  # the last window is a full one, too
    before = [start] if begin == 0 else ids[first - 1 : begin]
    expected += by_hand(model, before, ids[begin:end])[0]
    begin = end
  assert total == pytest.approx(expected, abs=1e-2)


def test_texts_end_before_the_first_string_that_ends_them(model):
  from t5x_lite.inference.harness_model import HarnessModel

  contexts = ['The first', 'Another one that is longer']
  wrapped = HarnessModel(model, batch_size=4)
  whole = model.generate(contexts, max_new_tokens=12).texts
  stop = next(character for character in whole[0][len(whole[0]) // 2 :] + whole[0] if character.strip())
  options = {'until': [stop], 'max_gen_toks': 12, 'do_sample': False, 'temperature': 0.0}
  got = wrapped.generate_until(requests(*((context, options) for context in contexts)))
  assert got == [text.split(stop)[0] for text in whole]
  with pytest.raises(errors.UsageError, match="unknown option of generate 'num_beens': did you mean 'num_beams'"):
    wrapped.generate_until(requests(('The first', {'num_beens': 2})))


TASKS = {
  'which': """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
""",
  'rolling': """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
  'written': """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{question}}"
generation_kwargs: {until: ["."], max_gen_toks: 5}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


@pytest.mark.slow
def test_the_command_runs_tasks_of_a_folder(tmp_path, monkeypatch):
  pytest.importorskip('lm_eval')
  for name in ('HF_DATASETS_OFFLINE', 'HF_HUB_OFFLINE'):
    monkeypatch.setenv(name, '1')
  monkeypatch.setenv('HF_HOME', str(tmp_path / 'home'))
  model = model_of(MODELS['gpt'])
  model.save(tmp_path / 'model')
  rows = [{'question': f'Is {n} even?', 'answer': n % 2} for n in range(5)]
  (tmp_path / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (tmp_path / 'tasks').mkdir()
  source = f'dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\ntest_split: test\n'
  for name, text in TASKS.items():
    (tmp_path / 'tasks' / f'{name}.yaml').write_text(f'task: own_{name}\n{source}{text}')
  words = ['--model_args', f'pretrained={tmp_path}/model', '--include_path', f'{tmp_path}/tasks', '--batch_size', '4']
  words += ['--tasks', ','.join(f'own_{name}' for name in TASKS), '--output_path', f'{tmp_path}/out']
  assert harness.main(['harness', *words]) == 0
  (written,) = (tmp_path / 'out').rglob('*.json')
  results = json.loads(written.read_text())['results']
  scores = [
    [by_hand(model, *ids_of(model, row['question'], f' {choice}'))[0] for choice in ('yes', 'no')] for row in rows
  ]
  right = np.mean([int(np.argmax(each)) == row['answer'] for each, row in zip(scores, rows, strict=True)])
  assert results['own_which']['acc,none'] == pytest.approx(right)
  start = model.generation_config.bos_token_id or model.tokenizer.eos_id
  total = sum(by_hand(model, [start], model.tokenizer.encode(row['question']))[0] for row in rows)
  size = sum(len(row['question'].encode()) for row in rows)
  assert results['own_rolling']['bits_per_byte,none'] == pytest.approx(-total / np.log(2) / size, rel=1e-4)
  assert results['own_written']['exact_match,none'] == 0.0


def test_what_cannot_answer_is_refused():
  pytest.importorskip('lm_eval')
  from t5x_lite.inference.harness_model import HarnessModel

  encoder = model_of(Bert(BertConfig(**SIZES, num_layers=1, max_length=16)))
  with pytest.raises(errors.UsageError, match='an encoder, which reads text and writes none'):
    HarnessModel(encoder)
