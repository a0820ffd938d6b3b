"""The packaged gin files: each composes to a run, says what it is, and has the sizes that were published."""

from __future__ import annotations

import itertools
import math
import pathlib
import re
import shlex
from typing import Any

import jax
import numpy as np
import pytest

from t5x_lite import train
from t5x_lite.cli import calls, command, environment, ginfiles
from t5x_lite.core import tree
from t5x_lite.partitioning import mesh as mesh_lib

FOLDER = ginfiles.packaged_folder()
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob('*.gin'))
RUNS = [name for name in FILES if '/' not in name]
RECIPES = [name for name in FILES if name.startswith('recipes/')]
SIZES = [name for name in FILES if re.fullmatch(r'models/t5_.*(tiny|small|base|large|3b|11b|xl)\.gin', name)]

# d_model, d_ff, layers a stack, heads, d_kv (Raffel et al. 2020; Shazeer 2020), and parameters as counted in the
# published checkpoints.
PUBLISHED = {
  't5_small': (512, 2048, 6, 8, 64, 60_506_624),
  't5_base': (768, 3072, 12, 12, 64, 222_903_552),
  't5_large': (1024, 4096, 24, 16, 64, 737_668_096),
  't5_3b': (1024, 16384, 24, 32, 128, 2_851_598_336),
  't5_11b': (1024, 65536, 24, 128, 128, 11_307_321_344),
  't5_1_1_small': (512, 1024, 8, 6, 64, 76_961_152),
  't5_1_1_base': (768, 2048, 12, 12, 64, 247_577_856),
  't5_1_1_large': (1024, 2816, 24, 16, 64, 783_150_080),
  't5_1_1_xl': (2048, 5120, 24, 32, 64, 2_849_757_184),
  't5_1_1_xxl': (4096, 10240, 24, 64, 64, 11_135_332_352),
}


@pytest.fixture
def configure(tmp_path, monkeypatch):
  """Reads and checks a configuration as `train` does, and builds nothing: `configure('t5_tiny.gin', '--gin.X=1')`."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda values: None)
  monkeypatch.setattr(environment, 'start', lambda values, joins: None)

  def configure(
    *arguments: str, target: str = 'runs.train.train', given: tuple[str, ...] = ('config', 'dry_run')
  ) -> Any:
    sessions: list[command.Session] = []
    words = [word if word.startswith('--') else f'--gin_file={word}' for word in arguments]
    code = command.run(['prog', *words], target, usage='', work=sessions.append, given=given)
    assert code == 0
    return sessions[0]

  return configure


def build(session: command.Session, name: str) -> Any:
  """The object of the class called `name`, made as the run would make it."""
  call = next(call for call in calls.walk(session._call) if call.target.endswith(f'.{name}'))
  return calls.build(call, session._configuration.names.load)


@pytest.mark.parametrize('name', RUNS)
def test_a_run_file_is_a_whole_run_and_its_config_repeats_it(configure, name):
  session = configure(name)
  values = session.record.values
  assert values['train.model_dir'] == repr(f'runs/{name.removesuffix(".gin")}')
  task = 'embedded_mixture' if name.startswith('flan') else 'embedded_text'
  assert values['train/DatasetConfig.mixture_or_task_name'] == repr(task)
  session.record.write('kept')
  assert configure('kept/config.gin').record.values == values


@pytest.mark.parametrize('name', [name for name in RUNS if re.match('t5_.*(base|large|3b|11b|xl)', name)])
def test_large_runs_have_the_published_batch_and_lengths(configure, name):
  values = configure(name).record.values
  assert values['train/DatasetConfig.batch_size'] == '128'
  assert values['train/DatasetConfig.task_feature_lengths'] == "{'inputs': 512, 'targets': 114}"


@pytest.mark.parametrize('name', FILES)
def test_a_file_says_what_it_is_and_its_commands_name_files_that_exist(name):
  text = (FOLDER / name).read_text()
  header = re.match(r'(?:#.*\n)+', text)
  assert header is not None
  for other in re.findall(r'--gin_file=(\S+\.gin)', text):
    assert (FOLDER / other).is_file(), other
  if '/' not in name:
    assert f'python -m t5x_lite.train --gin_file={name}' in header[0] and 'Hardware' in header[0]
  assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize('name', SIZES)
def test_a_size_file_has_nothing_but_sizes(name):
  text = (FOLDER / name).read_text()
  bound = {statement.parameter for statement in ginfiles._parse(text, name) if isinstance(statement, ginfiles.Binding)}
  sizes = {'emb_dim', 'mlp_dim', 'num_heads', 'head_dim', 'num_encoder_layers', 'num_decoder_layers'}
  assert bound <= sizes | ({'VOCAB_SIZE', 'SCAN_LAYERS'} if 'tiny' in name else set())


@pytest.mark.parametrize('name', PUBLISHED)
def test_sizes_are_the_published_ones(configure, name):
  module = build(configure(f'models/{name}.gin', 'runs/pretrain.gin'), 'T5')
  config = module.config
  layers = {config.num_encoder_layers, config.num_decoder_layers}
  got = (config.emb_dim, config.mlp_dim, *layers, config.num_heads, config.head_dim)
  assert got == PUBLISHED[name][:-1]
  newer = '1_1' in name
  assert config.mlp_activations == (('gelu', 'linear') if newer else ('relu',))
  assert config.logits_via_embedding is not newer
  assert config.dropout_rate == (0.0 if newer else 0.1)
  batch = {
    f'{side}_{key}': np.zeros((1, 2), np.int32)
    for side in ('encoder', 'decoder')
    for key in ('input_tokens', 'target_tokens', 'segment_ids', 'positions')
  }
  shapes = jax.eval_shape(module.init, {'params': jax.random.key(0)}, batch)
  assert tree.count_parameters(shapes['params']) == PUBLISHED[name][-1]


def test_every_published_size_has_both_files():
  assert {f'{name}.gin' for name in PUBLISHED} <= set(RUNS)
  assert {f'models/{name}.gin' for name in PUBLISHED} <= set(FILES)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_is_a_whole_run_with_what_its_command_gives(configure, name):
  header = re.match(r'(?:#.*\n)+', (FOLDER / name).read_text())[0]
  words = shlex.split(header.rpartition('python -m t5x_lite.train')[2].replace('\n#', '').replace('\\', ''))
  assert words[0] == f'--gin_file={name}'
  values = configure(*words).record.values
  assert values['train.model_dir'] == repr(f'runs/{pathlib.PurePath(name).stem}')
  for i, word in enumerate(words):
    if word.startswith('--gin.') and 'VOCABULARY_PATH' not in word:  # all that the command gives is needed
      with pytest.raises(AssertionError):
        configure(*words[:i], *words[i + 1 :])


@pytest.mark.parametrize('name', [name for name in FILES if name.startswith('optimizers/')])
@pytest.mark.parametrize('size', ['t5_tiny.gin', 't5_small.gin', 't5_base.gin'])
def test_optimizers_fit_every_run(configure, name, size):
  session = configure(size, name)
  learner = session.record.values['Learner.optimizer']
  assert learner == f'@{pathlib.PurePath(name).stem}()'
  call = next(call for call in calls.walk(session._call) if call.target.endswith(f'optimizers.{learner[1:-2]}'))
  assert callable(calls.build(call, session._configuration.names.load).update)


# Devices and slices, and the sizes of data, fsdp, tensor, sequence and expert there.
MESHES = {
  'data_parallel': (8, 1, (8, 1, 1, 1, 1)),
  'expert': (8, 1, (1, 2, 1, 1, 4)),
  'fsdp': (8, 1, (1, 8, 1, 1, 1)),
  'fsdp_tensor': (8, 1, (1, 2, 4, 1, 1)),
  'gpu_1': (1, 1, (1, 1, 1, 1, 1)),
  'gpu_8': (8, 1, (1, 8, 1, 1, 1)),
  'gpu_8_tensor': (8, 1, (1, 2, 4, 1, 1)),
  'gpu_nodes': (32, 1, (4, 8, 1, 1, 1)),
  'multislice': (512, 2, (2, 256, 1, 1, 1)),
  'multislice_tensor': (512, 2, (2, 64, 4, 1, 1)),
  'sequence': (8, 1, (1, 2, 1, 4, 1)),
  'tensor': (8, 1, (4, 1, 2, 1, 1)),
  'v4_2x2x1': (4, 1, (1, 4, 1, 1, 1)),
  'v4_2x2x2': (8, 1, (1, 8, 1, 1, 1)),
  'v4_2x2x4': (16, 1, (1, 16, 1, 1, 1)),
  'v4_4x4x4': (64, 1, (1, 16, 4, 1, 1)),
  'v5p_2x2x1': (4, 1, (1, 4, 1, 1, 1)),
  'v5p_2x2x2': (8, 1, (1, 8, 1, 1, 1)),
  'v5p_2x2x4': (16, 1, (1, 16, 1, 1, 1)),
  'v5p_4x4x4': (64, 1, (1, 16, 4, 1, 1)),
  'v5e_2x4': (8, 1, (1, 8, 1, 1, 1)),
  'v5e_4x4': (16, 1, (1, 16, 1, 1, 1)),
  'v5e_8x8': (64, 1, (1, 16, 4, 1, 1)),
  'v5e_16x16': (512, 2, (2, 64, 4, 1, 1)),
  'v6e_2x4': (8, 1, (1, 8, 1, 1, 1)),
  'v6e_4x4': (16, 1, (1, 16, 1, 1, 1)),
  'v6e_8x8': (64, 1, (1, 16, 4, 1, 1)),
  'v6e_16x16': (256, 1, (1, 64, 4, 1, 1)),
}


@pytest.mark.parametrize('name', [name for name in FILES if name.startswith('meshes/')])
def test_meshes_also_after_another_mesh(configure, name):
  devices, slices, sizes = MESHES[pathlib.PurePath(name).stem]
  for others in ((), ('meshes/sequence.gin', 'meshes/multislice_tensor.gin')):
    mesh = build(configure('t5_tiny.gin', *others, name), 'MeshShape')
    assert mesh.sizes(devices, slices) == sizes


@pytest.mark.parametrize('name', [name for name in FILES if re.match('meshes/v[0-9]', name)])
def test_the_mesh_of_a_slice_lies_along_its_links(configure, tpu_devices, name):
  """All devices are there once, and those of a tensor axis are neighbours of each other."""
  kind, slice_shape = pathlib.PurePath(name).stem.split('_')
  devices = tpu_devices(f'{kind}:{slice_shape}')
  made = mesh_lib.make_mesh(build(configure('t5_tiny.gin', name), 'MeshShape'), devices)
  assert made.size == math.prod(map(int, slice_shape.split('x')))
  assert set(made.devices.flat) == set(devices)
  for line in made.devices.reshape(-1, made.shape['tensor']):
    coordinates = [np.asarray(device.coords) for device in line]
    assert all(np.abs(b - a).sum() == 1 for a, b in itertools.pairwise(coordinates))


def test_pretraining_is_that_of_t5(configure):
  session = configure('t5_base.gin')
  schedule = build(session, 'create_learning_rate_scheduler')
  assert float(schedule(0)) == pytest.approx(0.01) and float(schedule(40_000)) == pytest.approx(0.005)
  values = session.record.values
  assert values['Learner.z_loss'] == '0.0001' and values['Learner.loss_normalizing_factor'] == 'None'
  assert build(session, 'SpanCorruption').fitted_lengths(512) == (568, 114)


def test_fine_tuning_is_that_of_t5_and_wants_what_it_cannot_know(configure, capsys):
  files = ('--gin_file=models/t5_1_1_small.gin', '--gin_file=runs/finetune.gin')
  given = {
    'INITIAL_CHECKPOINT_PATH': '/from',
    'MIXTURE_OR_TASK_NAME': 'embedded_summarize',
    'TRAIN_STEPS': '1_020_000',
    'TASK_FEATURE_LENGTHS': "{'inputs': 512, 'targets': 64}",
  }
  flags = {name: f'--gin.{name}={value}' for name, value in given.items()}
  session = configure(*files, *flags.values())
  values = session.record.values
  assert float(build(session, 'create_learning_rate_scheduler')(1_000_000)) == pytest.approx(1e-3)
  assert values['train.initial_checkpoint_path'] == "'/from'" and values['LoopConfig.total_steps'] == '1020000'
  assert values['train.eval_steps'] == '20' and values['LoopConfig.eval_period'] == '1000'
  assert build(session, 'T5').config.dropout_rate == 0.1
  for name in given:
    rest = [flag for other, flag in flags.items() if other != name]
    assert train.main(['prog', *files, *rest]) == 2
    assert f'--gin.{name}=VALUE' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'task'), [('c4', 'c4_en'), ('wikipedia', 'wikipedia_en')])
def test_real_corpora_bind_their_task_and_the_vocabulary_of_t5(configure, name, task):
  session = configure('t5_small.gin', f'data/{name}.gin', '--gin.VOCABULARY_PATH=/v/spiece.model')
  values = session.record.values
  assert values['train/DatasetConfig.mixture_or_task_name'] == repr(task)
  assert values['VOCABULARY/task_vocabulary.path'] == "'/v/spiece.model'"
  assert build(session, 'T5Config').vocab_size == 32128


def test_inference_and_inspection_are_configured_by_the_config_of_a_run(configure):
  configure('t5_tiny.gin').record.write('kept')
  inferred = configure(
    'kept/config.gin', 'runs/infer.gin', target='runs.infer.infer', given=('checkpoint', 'input', 'output')
  ).record.values
  assert inferred['infer.task_feature_lengths'] == "{'inputs': 512, 'targets': 114}"
  for file in ('kept/config.gin', 't5_tiny.gin'):
    inspected = configure(file, target='runs.inspect_data.inspect_data', given=('num',)).record.values
    assert inspected['train/DatasetConfig.split'] == "'train'"


@pytest.mark.parametrize(
  ('target', 'file', 'given'),
  [
    ('runs.infer.infer', 'runs/infer.gin', ('checkpoint', 'input', 'output')),
    ('runs.evaluate.evaluate', 'runs/evaluate.gin', ('checkpoint',)),
  ],
)
def test_the_mesh_of_inference_and_evaluation_is_that_of_a_mesh_file_and_not_that_of_training(
  configure, target, file, given
):
  configure('t5_tiny.gin', 'meshes/tensor.gin').record.write('kept')
  for mesh, sizes in (((), (8, 1, 1, 1, 1)), (('meshes/fsdp.gin',), (1, 8, 1, 1, 1))):
    session = configure('kept/config.gin', file, *mesh, target=target, given=given)
    assert [value for key, value in session.record.values.items() if key.endswith('.mesh')] == ['@MeshShape()']
    assert build(session, 'MeshShape').sizes(8, 1) == sizes


def test_the_macros_of_t5x_are_all_there(configure):
  macros = {
    *('MIXTURE_OR_TASK_NAME', 'TASK_FEATURE_LENGTHS', 'TRAIN_STEPS', 'MODEL_DIR', 'BATCH_SIZE', 'DROPOUT_RATE'),
    *('SHUFFLE_TRAIN_EXAMPLES', 'RANDOM_SEED', 'LABEL_SMOOTHING', 'Z_LOSS', 'LOSS_NORMALIZING_FACTOR', 'VOCABULARY'),
    *('OPTIMIZER', 'MODEL', 'OBJECTIVE', 'MESH', 'INITIAL_CHECKPOINT_PATH', 'EVAL_STEPS', 'EVAL_PERIOD'),
    *('CHECKPOINT_PERIOD', 'LOG_PERIOD', 'ACTIVATION_DTYPE', 'SCAN_LAYERS', 'REMAT_POLICY', 'NUM_MICROBATCHES'),
  }
  assert macros <= set(configure('t5_small.gin')._configuration.macros)
