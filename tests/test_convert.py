"""`python -m t5x_lite.convert`: both ways, one clear line for what is bad, nothing half-written; and what a run starts
from."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest

from t5x_lite import convert, infer, train
from t5x_lite.cli import environment
from t5x_lite.data.vocabularies.embedded_vocabulary import embedded_vocabulary
from t5x_lite.interop import export
from t5x_lite.pretrained import load_pretrained

GOLDEN = pathlib.Path(__file__).parent / 'golden'
SIZES = {'emb_dim': 8, 'num_heads': 3, 'head_dim': 4, 'mlp_dim': 10, 'num_encoder_layers': 2, 'num_decoder_layers': 1}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """The process is set up by the tests."""
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)


def write(folder, *, config=None, leave_out=(), **options):
  """The recorded T5 as transformers saved it, with a vocabulary of the embedded corpus in place of none."""
  with np.load(GOLDEN / 't5_lm.npz') as file:
    arrays = dict(file)
  state = {name.removeprefix('state/'): array for name, array in arrays.items() if name.startswith('state/')}
  state = {name: array for name, array in state.items() if name not in leave_out}
  folder.mkdir(parents=True)
  specs = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in state.items()}
  export.write_weights(folder, specs, state.items(), **options)
  export.write_json(folder / 'config.json', json.loads(str(arrays['config'])) | (config or {}))
  return folder


def run(source, target, to, *more):
  return convert.main(['convert', f'--source={source}', f'--target={target}', f'--to={to}', *more])


def test_there_and_back_is_bit_identical(tmp_path, capsys):
  source = write(tmp_path / 'hf', max_shard_size=2000)
  assert run(source, tmp_path / 'ours', 't5x_lite', '--gin.convert.scan_layers=False') == 0
  assert 'T5, ' in capsys.readouterr().out
  assert not load_pretrained(tmp_path / 'ours').module.config.scan_layers
  assert run(tmp_path / 'ours', tmp_path / 'back', 'hf') == 0
  one, other = load_pretrained(source), load_pretrained(tmp_path / 'back')
  assert one.module == other.module
  jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
  assert run(source, tmp_path / 'back', 'hf') == 2 and 'not empty' in capsys.readouterr().err
  assert run(source, tmp_path / 'back', 'hf', '--overwrite', '--gin.convert.vocab_size=20') == 0
  assert load_pretrained(tmp_path / 'back').module.config.vocab_size == 20


def damaged(folder):
  for path in folder.glob('*.safetensors'):
    path.write_bytes(path.read_bytes()[:-7])
  return folder


def without_a_shard(folder):
  sorted(folder.glob('*.safetensors'))[0].unlink()
  return folder


def pickled(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  return folder


def without_config(folder):
  (folder / 'config.json').unlink()
  return folder


BAD = {
  'shard': (lambda path: without_a_shard(write(path, max_shard_size=2000)), 'lacks 1 of'),
  'truncated': (lambda path: damaged(write(path)), 'is cut short'),
  'architecture': (lambda path: write(path, config={'architectures': ['BertModel']}), "architecture of T5 'BertModel'"),
  'another model': (lambda path: write(path, leave_out=['shared.weight']), 'lacks shared.weight: it holds'),
  'misfit': (lambda path: write(path, config={'d_ff': 11}), 'expected [11, 8]'),
  'layers': (lambda path: write(path, config={'num_layers': 1}), 'more layers than this model: encoder.block.1'),
  'model type': (lambda path: write(path, config={'model_type': 'mt6'}), "model type 'mt6': did you mean 'mt5'?"),
  'no config': (lambda path: without_config(write(path)), 'has no config.json'),
  'pickles': (lambda path: pickled(write(path)), 'pytorch_model.bin only'),
  'nothing': (lambda path: path, 'no directory'),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_a_bad_source_is_one_line_and_nothing_is_written(tmp_path, capsys, name):
  make, told = BAD[name]
  source = make(tmp_path / 'source' / 'model')
  for to in ('hf', 't5x_lite'):
    assert run(source, tmp_path / 'target', to) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and told in error and error.count('\n') == 1
  assert [path.name for path in tmp_path.iterdir()] in (['source'], [])


def test_a_bad_call_is_one_line(tmp_path, capsys):
  source = write(tmp_path / 'hf')
  (tmp_path / 'file').write_text('')
  for arguments, told in (
    ([f'--source={source}', '--to=hf'], 'no target: choose one with --target'),
    ([f'--source={source}', f'--target={tmp_path}/x', '--to=t5xlite'], "'t5xlite': did you mean 't5x_lite'?"),
    ([f'--source={source}', f'--target={tmp_path}/file', '--to=hf'], 'is a file'),
    ([f'--source={source}', f'--target={tmp_path}/file/x', '--to=hf'], 'cannot write'),
    (['--sorce=x'], "unknown flag '--sorce': did you mean '--source'?"),
  ):  # fmt: skip
    assert convert.main(['convert', *arguments]) == 2
    assert told in capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'hf']


def test_a_model_that_cannot_answer_is_told_by_its_folder(tmp_path, capsys):
  source = write(tmp_path / 'hf')
  assert run(source, tmp_path / 'ours', 't5x_lite') == 0
  assert infer.main(['infer', f'--checkpoint={tmp_path}/ours']) == 2
  assert f'{tmp_path}/ours was saved without a vocabulary' in capsys.readouterr().err
  assert run(tmp_path / 'ours', tmp_path / 'back', 'hf') == 0
  assert run(tmp_path / 'ours', tmp_path, 'hf', '--overwrite') == 2
  assert 'holds the source' in capsys.readouterr().err


# --- Runs that start from it ------------------------------------------------------------------------------------------


def train_from(path, tmp_path, *more):
  flags = {
    **{f'T5Config.{name}': value for name, value in SIZES.items()},
    'T5Config.relative_attention_num_buckets': 8,
    'T5Config.relative_attention_max_distance': 20,
    'embedded_vocabulary.size': 300,
    'embedded_vocabulary.extra_ids': 20,
    'VOCAB_SIZE': 320,
    'TASK_FEATURE_LENGTHS': "{'inputs': 16, 'targets': 8}",
    'BATCH_SIZE': 8,
    'TRAIN_STEPS': 1,
    'EVAL_STEPS': 1,
    'INITIAL_CHECKPOINT_PATH': path,
    'MODEL_DIR': tmp_path / 'run',
  }
  files = ['models/t5_tiny.gin', 'runs/pretrain.gin', 'schedules/constant.gin']
  words = [f'--gin_file={name}' for name in files] + [f'--gin.{name}={value}' for name, value in flags.items()]
  return train.main(['train', *words, *more])


@pytest.mark.slow
def test_a_run_starts_from_another_librarys_weights(tmp_path, capsys):
  source = write(tmp_path / 'hf')
  assert train_from(source, tmp_path) == 2
  assert 'shared.weight has 16 tokens, expected 320' in capsys.readouterr().err
  assert train_from(source, tmp_path, '--gin.train.resize_vocabulary=True') == 0
  told = capsys.readouterr().out
  assert f'starting from the parameters of {source}' in told
  assert 'token_embedder/embedding: 16 tokens there, 320 here: 304 rows newly initialised' in told
  assert train_from(source, tmp_path, '--gin.T5Config.num_heads=6', '--gin.MODEL_DIR=' + str(tmp_path / 'other')) == 2
  assert 'num_heads is 3 there and 6 here' in capsys.readouterr().err
  assert train_from('org/no/where', tmp_path, '--gin.MODEL_DIR=' + str(tmp_path / 'other')) == 2
  assert "no directory 'org/no/where'" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_converted_is_written_from_and_trained_on(tmp_path, capsys):
  source = write(tmp_path / 'hf')
  embedded_vocabulary(size=300, extra_ids=20).save(source)
  options = ['--gin.convert.vocab_size=320']
  assert run(source, tmp_path / 'first', 't5x_lite', *options) == 0
  (tmp_path / 'first').rename(tmp_path / 'ours')  # which it stands, with its vocabulary
  text = tmp_path / 'in.txt'
  text.write_text('one\ntwo words\n')
  lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 4}"
  output = tmp_path / 'out.jsonl'
  assert infer.main(['infer', f'--checkpoint={tmp_path}/ours', f'--input={text}', f'--output={output}', lengths]) == 0
  assert [json.loads(line)['inputs'] for line in output.read_text().splitlines()] == ['one', 'two words']
  capsys.readouterr()
  assert train_from(tmp_path / 'ours', tmp_path) == 0
  assert f'starting from the parameters in {tmp_path}/ours/checkpoint_0' in capsys.readouterr().out
  # With the scanned layers of the checkpoint in arrays of their own, and its vocabulary cut.
  other = ['--gin.SCAN_LAYERS=False', '--gin.MODEL_DIR=' + str(tmp_path / 'other')]
  assert train_from(tmp_path / 'ours', tmp_path, *other) == 0
  config = tmp_path / 'ours' / 'config.gin'
  whole = ['--gin_file=' + str(config), '--gin_file=runs/finetune.gin', '--gin_file=data/embedded.gin', lengths]
  more = {'INITIAL_CHECKPOINT_PATH': tmp_path / 'ours', 'MIXTURE_OR_TASK_NAME': 'embedded_summarize', 'TRAIN_STEPS': 1}
  more |= {'embedded_vocabulary.size': 300, 'embedded_vocabulary.extra_ids': 20, 'BATCH_SIZE': 8}
  words = [f'--gin.{name}={value}' for name, value in more.items()]
  assert train.main(['train', *whole, *words, f'--gin.MODEL_DIR={tmp_path}/tuned', '--dry_run']) == 0
