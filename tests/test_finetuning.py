"""Encoders with heads, fine-tuned and evaluated as a user does it, from a checkpoint that has no head."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn

from t5x_lite import evaluate, infer, model_dir, stored_models, train
from t5x_lite.core import checkpoint_names, errors, tree
from t5x_lite.models.bert import Bert, BertConfig
from t5x_lite.pretrained import load_pretrained
from t5x_lite.runs import finetuning, located

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'tokenizers' / 'bert'
GOOD, BAD = ('a good film', 'good', 'it was good', 'the good one'), ('a bad film', 'bad', 'it was bad', 'the bad one')


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """A checkpoint of a tiny BERT without a head for classes, its vocabulary beside it, and the files of SST-2."""
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
  for name, repeats in (('train', 8), ('dev', 2)):
    rows = [f'{text}\t{label}' for label, texts in enumerate((BAD, GOOD)) for text in texts] * repeats
    (folder / f'{name}.tsv').write_text('\n'.join(['sentence\tlabel', *rows, '']))
  return folder


def arguments(start, run, *flags, **overrides):
  bindings = {
    'TASK_NAME': 'glue_sst2',
    'TASK_DIRECTORY': str(start),
    'INITIAL_CHECKPOINT_PATH': str(start / 'model'),
    'MODEL_DIR': str(run),
    'MAX_LENGTH': 16,
    'BATCH_SIZE': 16,
    'NUM_EPOCHS': 4,
    'PEAK_LEARNING_RATE': 1e-2,
    **overrides,
  }
  files = ('models/published.gin', 'runs/finetune_encoder.gin', 'data/glue.gin', 'data/original_files.gin')
  return [
    'train', *(f'--gin_file={file}' for file in files), *flags, *(f'--gin.{name}={v!r}' for name, v in bindings.items())
  ]  # fmt: skip


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_learns_is_scored_and_its_best_checkpoint_is_evaluated(start, tmp_path, capsys):
  run = tmp_path / 'run'
  assert train.main(arguments(start, run)) == 0
  evaluated = [row for row in rows(run / 'metrics.jsonl') if row['split'] == 'validation']
  assert [row['step'] for row in evaluated] == [4, 8, 12, 16]  # 64 examples are 4 steps of 16, for 4 epochs
  assert evaluated[-1]['score/accuracy'] == evaluated[-1]['score'] == 100.0
  # What is counted position by position in batches is what is scored example by example.
  for row in evaluated:
    assert row['accuracy'] == pytest.approx(row['score'] / 100) and row['target_tokens'] == 16
  best = max(evaluated, key=lambda row: row['score'])['step']
  assert located.best_step(run) == best
  assert located.path_of(f'{run}@best') == str(run / f'checkpoint_{best}')
  capsys.readouterr()
  assert evaluate.main(['evaluate', f'--checkpoint={run}@best', f'--output={tmp_path / "out"}', '--report']) == 0
  assert 'glue_sst2' in capsys.readouterr().out
  (row,) = rows(tmp_path / 'out' / 'metrics.jsonl')
  assert row['score/accuracy'] == 100.0 and row['examples'] == 16 and row['checkpoint'] == str(best)
  predicted = rows(tmp_path / 'out' / 'predictions' / str(best) / 'glue_sst2-validation.jsonl')
  assert [each['prediction'] for each in predicted] == [each['reference'] for each in predicted]
  lines = (tmp_path / 'out' / 'submissions' / str(best) / 'SST-2.tsv').read_text().splitlines()
  assert lines[0] == 'index\tprediction' and len(lines) == 17
  page = (tmp_path / 'out' / 'predictions' / str(best) / 'glue_sst2-validation.html').read_text()
  assert 'Confusion matrix' in page and 'Expected calibration error' in page and '<td>positive</td>' in page
  # New texts have the labels of the task, and the probabilities that the evaluation has.
  source, output = tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'
  source.write_text('\n'.join([json.dumps({'text': text}) for text in (*BAD, *GOOD)] + ['oops', '']))
  flags = [f'--checkpoint={run / f"checkpoint_{best}"}', '--mode=classify', '--batch_size=8']
  assert infer.main(['infer', *flags, f'--input={source}', f'--output={output}']) == 0
  *found, bad = rows(output)
  assert [row['prediction'] for row in found] == ['negative'] * 4 + ['positive'] * 4 and 'not JSON' in bad['error']
  for row, own in zip(found, predicted, strict=False):
    assert [*row['probabilities'].values()] == pytest.approx(own['details']['probabilities'], abs=2e-6)
  assert load_pretrained(run / f'checkpoint_{best}').classify(GOOD[0])[0]['prediction'] == 'positive'


@pytest.mark.slow
def test_low_rank_updates_leave_the_rest_alone_and_are_merged_when_loaded(start, tmp_path):
  run = tmp_path / 'run'
  flags = arguments(start, run, '--gin.LORA=@Lora()', '--gin.Lora.rank=2', NUM_EPOCHS=2)
  assert train.main(flags) == 0
  from t5x_lite.training import adaptation, checkpoints, orbax_store

  folder = checkpoints.locate(run)
  shapes = orbax_store.read_shapes(folder)
  names = [name for name in shapes if adaptation.is_update(name) and name.startswith('params/')]
  assert sorted({name.rpartition('/')[2] for name in names}) == sorted(adaptation.LEAVES)
  # The optimiser has moments of what is trained alone.
  moments = [name for name in shapes if name.startswith('opt_state/') and '/mu/' in name]
  assert moments and all('lora_' in name or '/heads/' in name for name in moments)
  before, after = load_pretrained(start / 'model'), load_pretrained(run)
  old, new = tree.named_leaves(before.params), tree.named_leaves(after.params)
  changed = {name for name in set(old) & set(new) if not np.array_equal(old[name], new[name])}
  attention = 'blocks/layers/self_attention'
  assert changed == {f'{attention}/query/kernel', f'{attention}/value/kernel'}
  assert evaluate.main(['evaluate', f'--checkpoint={run}', f'--output={tmp_path / "out"}']) == 0
  (own,) = rows(tmp_path / 'out' / 'metrics.jsonl')
  last = [row for row in rows(run / 'metrics.jsonl') if row['split'] == 'validation'][-1]
  assert own['score/accuracy'] == last['score/accuracy']


@pytest.mark.slow
def test_adapters_are_saved_loaded_and_evaluated(start, tmp_path):
  run = tmp_path / 'run'
  flags = arguments(start, run, '--gin_file=adaptation/adapters.gin', '--gin.ADAPTER_DIM=4', NUM_EPOCHS=2)
  assert train.main(flags) == 0
  before, after = load_pretrained(start / 'model'), load_pretrained(run)
  assert after.module.config.adapter_dim == 4
  old, new = tree.named_leaves(before.params), tree.named_leaves(after.params)
  for name in set(old) & set(new):
    np.testing.assert_array_equal(old[name], new[name])
  added = {name for name in new if name not in old and not name.startswith('heads/')}
  assert added and all('_adapter/' in name for name in added)
  assert all(np.abs(new[name]).max() > 0 for name in added)
  assert evaluate.main(['evaluate', f'--checkpoint={run}', f'--output={tmp_path / "out"}']) == 0
  (own,) = rows(tmp_path / 'out' / 'metrics.jsonl')
  last = [row for row in rows(run / 'metrics.jsonl') if row['split'] == 'validation'][-1]
  assert own['score/accuracy'] == last['score/accuracy']


TINY = {'emb_dim': 16, 'mlp_dim': 32, 'num_heads': 2, 'head_dim': 8}
SHORT = ['--gin.TRAIN_STEPS=2', '--gin.BATCH_SIZE=8', '--gin.EVAL_PERIOD=0', '--gin.CHECKPOINT_PERIOD=0']
SHORT += ['--gin.VOCABULARY=@embedded_vocabulary()', '--gin.embedded_vocabulary.size=1000', '--gin.VOCAB_SIZE=1104']


T5_SIZES = {**TINY, 'num_encoder_layers': 1, 'num_decoder_layers': 1}
WRITER = [
  *(f'--gin.T5Config.{name}={size}' for name, size in T5_SIZES.items()),
  *SHORT,
  '--gin.TASK_NAME=glue_sst2',
  "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
]
DATA = ['--gin_file=data/glue.gin', '--gin_file=data/original_files.gin']


@pytest.fixture(scope='module')
def writer(start, tmp_path_factory):
  """The run of a tiny T5 that writes the labels of SST-2, scored by what it writes."""
  run = tmp_path_factory.mktemp('writer') / 'run'
  files = ['--gin_file=models/t5_tiny.gin', '--gin_file=runs/pretrain.gin', *DATA]
  flags = [f'--gin.TASK_DIRECTORY={start}', f'--gin.MODEL_DIR={run}', '--gin.EVAL_METRICS=True']
  assert train.main(['train', *files, *WRITER, *flags]) == 0
  return run


@pytest.mark.slow
def test_a_model_that_writes_is_scored_by_what_it_writes_and_by_ranks(writer):
  run = writer
  last = [row for row in rows(run / 'metrics.jsonl') if row['split'] == 'validation'][-1]
  assert 0 <= last['score/accuracy'] <= 100
  assert evaluate.main(['evaluate', f'--checkpoint={run}']) == 0
  assert evaluate.main(['evaluate', f'--checkpoint={run}', '--rank_classification', '--limit=8']) == 0
  written, ranked = rows(run / 'eval' / 'metrics.jsonl')
  assert written['score/accuracy'] == last['score/accuracy'] and written['examples'] == 16
  assert ranked['score/accuracy'] in (0.0, 12.5, 25.0, 37.5, 50.0, 62.5, 75.0, 87.5, 100.0) and ranked['examples'] == 8
  predicted = rows(run / 'eval' / 'predictions' / '2' / 'glue_sst2-validation.jsonl')
  for each in predicted:  # a model that has learned nothing chooses some label all the same
    scores = each['details']['log_likelihoods']
    assert each['prediction'] == int(np.argmax(scores)) and max(scores) < 0


@pytest.mark.slow
def test_a_prompt_is_tuned_saved_evaluated_and_written_behind(start, writer, tmp_path, capsys):
  whole, run = writer, tmp_path / 'run'
  files = ['--gin_file=models/t5_tiny.gin', '--gin_file=runs/finetune.gin', *DATA]
  tuned = [*files, '--gin_file=adaptation/prompt_tuning.gin', *WRITER, f'--gin.TASK_DIRECTORY={start}']
  tuned += ['--gin.TRAIN_STEPS=6', '--gin.PROMPT_LENGTH=5']
  tuned += [f'--gin.INITIAL_CHECKPOINT_PATH={whole}', f'--gin.MODEL_DIR={run}']
  tuned += ['--gin.create_learning_rate_scheduler.base_learning_rate=0.3']
  assert train.main(['train', *tuned]) == 0
  before, after = load_pretrained(whole), load_pretrained(run)
  old, new = tree.named_leaves(before.params), tree.named_leaves(after.params)
  assert set(new) - set(old) == {'soft_prompt/vectors'} and new['soft_prompt/vectors'].shape == (5, TINY['emb_dim'])
  for name in old:
    np.testing.assert_array_equal(old[name], new[name])
  # The whole model takes the same prompt, and writes the same behind it.
  grown = load_pretrained(whole, prompt_length=5)
  grown.params = {**grown.params, 'soft_prompt': after.params['soft_prompt']}
  texts, options = ['it was good', 'bad'], {'max_new_tokens': 6}
  np.testing.assert_array_equal(after.generate(texts, **options).ids, grown.generate(texts, **options).ids)
  assert evaluate.main(['evaluate', f'--checkpoint={run}']) == 0
  (row,) = rows(run / 'eval' / 'metrics.jsonl')
  assert row['examples'] == 16
  # Rows of several examples would show the prompt to the first of them alone.
  capsys.readouterr()
  assert train.main(['train', *tuned, '--gin.DatasetConfig.pack=True', f'--gin.MODEL_DIR={tmp_path / "no"}']) == 2
  assert 'expected DatasetConfig.pack = False' in capsys.readouterr().err
  # And transformers has no such model.
  with pytest.raises(errors.UsageError, match='soft_prompt/vectors'):
    after.save(tmp_path / 'hf')


@pytest.mark.slow
def test_a_language_model_is_measured_in_bits_per_byte(tmp_path):
  text = [f'{n} straße and {n * n} more words' for n in range(40)]
  for name, lines in (('train', text), ('validation', text[:10])):
    (tmp_path / f'{name}.txt').write_text('\n\n'.join(lines), encoding='utf-8')
  run = tmp_path / 'run'
  paths = {name: str(tmp_path / f'{name}.txt') for name in ('train', 'validation')}
  sizes = {**TINY, 'num_layers': 1}
  flags = [
    '--gin_file=gpt2_tiny.gin',
    '--gin_file=data/files.gin',
    *(f'--gin.GptConfig.{name}={n}' for name, n in sizes.items()),
    *SHORT,
  ]
  flags += [
    f'--gin.files.path={paths!r}',
    f'--gin.MODEL_DIR={run}',
    "--gin.TASK_FEATURE_LENGTHS={'targets': 32}",
    '--gin.WARMUP_STEPS=1',
  ]
  assert train.main(['train', *flags]) == 0
  assert evaluate.main(['evaluate', f'--checkpoint={run}']) == 0
  (row,) = rows(run / 'eval' / 'metrics.jsonl')
  size = len(''.join(text[:10]).encode('utf-8'))
  assert row['bits_per_byte'] == pytest.approx(row['nll'] * row['target_tokens'] / np.log(2) / size, rel=0.02)
  assert row['perplexity'] == pytest.approx(np.exp(row['nll'])) and row['byte_perplexity'] == pytest.approx(
    2 ** row['bits_per_byte']
  )


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ({'NUM_LABELS': 3}, "num_labels 3, and task 'glue_sst2' has 2 labels: expected NUM_LABELS = 2"),
    ({'HEADS': ('span',)}, "heads span, and its task is for 'classification'"),
    ({'TASK_NAME': 'squad', 'HEADS': ('span',)}, 'train-v1.1.json'),
    ({'EVAL_METRICS': False}, "expected EVAL_METRICS = True, or BEST_BY = 'loss'"),
    ({'NUM_EPOCHS': 0.0}, 'NUM_EPOCHS=0.0: expected more than 0'),
    ({'FROZEN': ('(',)}, "'(' is no regular expression"),
    ({'VOCABULARY_PATH': '/nowhere/spiece.model'}, '/nowhere/spiece.model'),
  ],
)
def test_what_does_not_go_together_is_one_line(start, tmp_path, capsys, flags, words):
  assert train.main(arguments(start, tmp_path / 'run', **flags)) == 2
  error = capsys.readouterr().err
  assert words in error and len(error.splitlines()) == 1
  assert not (tmp_path / 'run').exists()


def test_a_checkpoint_without_a_head_is_not_evaluated(start, tmp_path, capsys):
  flags = arguments(start, tmp_path / 'run')[1:]
  assert evaluate.main(['evaluate', f'--checkpoint={start / "model"}', *flags]) == 2
  assert 'has no head' in capsys.readouterr().err


def test_checkpoints_by_name(tmp_path):
  assert checkpoint_names.split_checkpoint('runs/a@best') == ('runs/a', 'best')
  assert checkpoint_names.split_checkpoint('runs/a@12') == ('runs/a', '12')
  assert checkpoint_names.split_checkpoint('runs/a@b') == ('runs/a@b', 'latest')
  (tmp_path / 'a@best').mkdir()
  assert checkpoint_names.split_checkpoint(str(tmp_path / 'a@best')) == (str(tmp_path / 'a@best'), 'latest')
  with pytest.raises(errors.UsageError, match='no run there'):
    list(located.locate(f'{tmp_path}@all'))
  assert located.path_of('org/name') == 'org/name'
  with pytest.raises(errors.UsageError, match='expected one checkpoint'):
    located.path_of(f'{tmp_path}@all')


def test_heads_and_labels_follow_from_the_task():
  found = {
    name: (finetuning.heads_of_task(name), finetuning.num_labels_of_task(name))
    for name in ('glue_mnli', 'glue_stsb', 'squad', 'race_middle', 'wnut17', 'banking77')
  }
  assert found == {
    'glue_mnli': (('classification',), 3),
    'glue_stsb': (('classification',), 1),
    'squad': (('span',), 1),
    'race_middle': (('multiple_choice',), 1),
    'wnut17': (('tagging',), 13),
    'banking77': (('classification',), 77),
  }
  with pytest.raises(errors.UsageError, match='no examples for a head'):
    finetuning.head_of_task('cnn_dailymail')
  with pytest.raises(errors.UsageError, match='are for different heads'):
    finetuning.head_of_task('super_glue_v102_proportional')


@pytest.mark.parametrize(
  ('rows_', 'batch', 'epochs', 'steps'), [(64, 16, 3.0, 12), (65, 16, 1.0, 5), (10, 32, 0.5, 1), (33, 32, 2.0, 3)]
)
def test_steps_of_epochs(rows_, batch, epochs, steps):
  assert finetuning.steps_of_epochs(rows_, batch, epochs) == steps


@pytest.mark.parametrize(('total', 'share', 'steps'), [(100, 0.1, 10), (11, 0.1, 2), (5, 0.0, 0), (1, 0.5, 0)])
def test_warm_up_is_a_share(total, share, steps):
  assert finetuning.warmup_of(total, share) == steps
