"""Vectors of texts, trained, evaluated and computed as a user does it, from a checkpoint without a head."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import evaluate, infer, model_dir, stored_models, train
from t5x_lite.data import features, packing, task
from t5x_lite.data.encoder.examples import tokenise_labelled
from t5x_lite.data.encoder.features import EncoderTaskFeatures
from t5x_lite.metrics import classification
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.pretrained import load_pretrained

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'tokenizers' / 'bert'
WORDS = ('the', 'cat', 'was', 'on', 'mat', 'in', 'of', 'it')


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """A checkpoint of a tiny BERT, its vocabulary beside it, and a file of pairs of words that have nothing in common."""
  pytest.importorskip('tokenizers')
  folder = tmp_path_factory.mktemp('start')
  vocabulary = (GOLDEN / 'vocab.txt').read_text(encoding='utf-8').splitlines()
  sizes = {'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32, 'num_layers': 2, 'max_length': 32}
  module = Bert(BertConfig(vocab_size=len(vocabulary), heads=('mlm',), dropout_rate=0.0, **sizes))
  (folder / 'model').mkdir()
  params = nn.unbox(jax.jit(module.init)({'params': jax.random.key(0)}, stored_models._any_batch()))['params']
  model_dir.write(folder / 'model', module, params, with_vocabulary=True)
  for file in GOLDEN.glob('[tv]*'):
    shutil.copy(file, folder / 'model')
  others = WORDS[3:] + WORDS[:3]
  pairs = [
    {'text': word, 'pair': f'unbelievable {other}', 'grade': 1} for word, other in zip(WORDS, others, strict=True)
  ]
  unlike = [{'text': pairs[i]['text'], 'pair': pairs[i - 1]['pair'], 'grade': 0} for i in range(len(WORDS))]
  for name, rows in (('train', pairs * 4), ('graded', pairs + unlike)):
    (folder / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  return folder


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def arguments(start, run, **overrides):
  bindings = {
    'FILES': {'train': str(start / 'train.jsonl'), 'validation': str(start / 'graded.jsonl')},
    'VALIDATION_SHARE': 0.0,
    'INITIAL_CHECKPOINT_PATH': str(start / 'model'),
    'MODEL_DIR': str(run),
    'MAX_LENGTH': 32,
    'BATCH_SIZE': 8,
    'NUM_EPOCHS': 20,
    'EVAL_PERIOD': 40,
    'PEAK_LEARNING_RATE': 1e-2,
    'text_pairs.grade_field': 'grade',
    'BEST_BY': 'score',
    'LoopConfig.eval_at_start': True,
    **overrides,
  }
  return ['train', '--gin_file=recipes/embeddings.gin', *(f'--gin.{name}={v!r}' for name, v in bindings.items())]


def by_the_head(model, texts):
  """The vectors `[texts, D]` that training compares: each text beside another in one row, padded."""
  encoder = task.EncoderTask('embedding', lambda record: record)
  tokenise = tokenise_labelled(task.Task('t', None, None, encoder=encoder), model.tokenizer, 32)
  converter = EncoderTaskFeatures('embedding')
  spec = features.batch_spec(converter, {'inputs': 32}, len(texts))
  batch = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items()}
  made = tokenise([{'text': text, 'pair': other} for text, other in zip(texts, texts[1:] + texts[:1], strict=True)])
  for index, ((example,),) in enumerate(zip(made, strict=True)):
    row = packing.Row.of([packing.Entry(converter(example.features))], {'encoder': None})
    packing.write_row(row, batch, index, converter)
  vectors = jax.jit(lambda params: model.module.apply({'params': params}, batch, method='label_logits'))
  return np.asarray(vectors(model.params))[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize('pooling', ['mean', 'cls'])
def test_a_run_learns_is_scored_and_gives_the_vectors_that_it_was_trained_with(start, tmp_path, pooling):
  run, texts = tmp_path / 'run', [row['text'] for row in rows(start / 'graded.jsonl')[: len(WORDS)]]
  assert train.main(arguments(start, run, POOLING=pooling)) == 0
  evaluated = [row for row in rows(run / 'metrics.jsonl') if row['split'] == 'validation']
  assert evaluated[0]['accuracy'] < 0.4 and evaluated[-1]['accuracy'] > 0.6  # 1 of 8 by chance
  # Which of 8 pairs are alike is all that there is to know of 16, so ranks are halves at best: 0.867 for no ties.
  assert evaluated[-1]['score'] == evaluated[-1]['score/spearman_corrcoef'] > 80
  (tmp_path / 'in.txt').write_text('\n'.join(texts))
  flags = [
    f'--checkpoint={run}',
    '--mode=embed',
    f'--input={tmp_path / "in.txt"}',
    f'--output={tmp_path / "out.jsonl"}',
  ]
  assert infer.main(['infer', *flags]) == 0
  written = np.array([row['embedding'] for row in rows(tmp_path / 'out.jsonl')])
  model = load_pretrained(run)
  assert model.module.config.heads == ('embedding',) and model.module.config.pooling == pooling
  np.testing.assert_allclose(np.linalg.norm(written, axis=1), 1.0, atol=1e-5)
  np.testing.assert_allclose(model.embed(texts), written, atol=1e-6)
  np.testing.assert_allclose(by_the_head(model, texts), written, atol=1e-5)
  # As sentence-transformers keeps it, and back.
  model.save(tmp_path / 'hf')
  modules = json.loads((tmp_path / 'hf' / 'modules.json').read_text())
  assert [module['type'].rpartition('.')[2] for module in modules] == ['Transformer', 'Pooling', 'Normalize']
  assert all((tmp_path / 'hf' / module['path']).is_dir() for module in modules)
  np.testing.assert_allclose(load_pretrained(tmp_path / 'hf').embed(texts), written, atol=1e-5)
  # The score is that of the vectors.
  assert evaluate.main(['evaluate', f'--checkpoint={run}', f'--output={tmp_path / "eval"}']) == 0
  (row,) = rows(tmp_path / 'eval' / 'metrics.jsonl')
  graded = rows(start / 'graded.jsonl')
  left, right = (model.embed([each[field] for each in graded]) for field in ('text', 'pair'))
  grades = [each['grade'] for each in graded]
  expected = classification.spearman_corrcoef(grades, np.sum(left * right, axis=1))['spearman_corrcoef']
  assert row['score/spearman_corrcoef'] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ({'PACK': True}, 'expected PACK = False'),
    ({'POOLING': 'last'}, "pooling of BertConfig 'last'"),
    ({'text_pairs.pair_field': 'pear'}, "'pear'"),
    ({'HEADS': ('classification',)}, "its task is for 'embedding'"),
    ({'SIMILARITY_SCALE': -1.0}, 'similarity_scale=-1.0: expected more than 0'),
  ],
)
def test_what_does_not_go_together_is_one_line(start, tmp_path, capsys, flags, words):
  assert train.main(arguments(start, tmp_path / 'run', **flags)) == 2
  error = capsys.readouterr().err
  assert words in error and len(error.splitlines()) == 1
