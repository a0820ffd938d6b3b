"""The command: what a user types and gets, one line where it cannot be, and nothing written."""

from __future__ import annotations

import json
import os

import jax
import pytest

from t5x_lite import plan, train
from t5x_lite.cli import environment
from t5x_lite.planning import chips
from t5x_lite.runs import plan as runs_plan
from t5x_lite.runs import train as runs_train

TINY = {
  'T5Config.emb_dim': 32,
  'T5Config.mlp_dim': 64,
  'T5Config.num_heads': 2,
  'T5Config.head_dim': 8,
  'T5Config.num_encoder_layers': 1,
  'T5Config.num_decoder_layers': 1,
  'VOCAB_SIZE': 128,
  'TASK_FEATURE_LENGTHS': "{'inputs': 32, 'targets': 16}",
  'BATCH_SIZE': 8,
}


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
  """Runs the command in an empty folder with an empty cache; returns `(exit code, stdout, stderr)`."""
  jax.devices()  # From now on there are the eight of all tests, whatever a topology asks for.
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('T5X_LITE_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(environment, 'prepare', lambda flags: None)

  def run(*arguments):
    bindings = [f'--gin.{name}={value}' for name, value in TINY.items()]
    code = plan.main(['plan', '--gin_file=t5_tiny.gin', *bindings, *arguments])
    assert os.listdir(tmp_path) == []  # no MODEL_DIR, no vocabulary, no corpus
    return code, *capsys.readouterr()

  return run


def test_a_plan_as_json_has_all_that_a_machine_asks_for(run):
  code, out, err = run('--topology=cpu:4', '--json', '--gin_file=meshes/fsdp.gin')
  assert (code, err) == (0, '')
  found = json.loads(out)
  assert found['mesh'] == {'data': 1, 'fsdp': 4, 'tensor': 1, 'sequence': 1, 'expert': 1}
  kinds = found['memory']
  assert kinds['total_bytes'] == sum(
    kinds[f'{name}_bytes'] for name in ('parameters', 'optimizer', 'activations', 'temporaries')
  )
  assert kinds['limit_bytes'] > kinds['total_bytes'] and found['fits'] is True
  assert kinds['parameters_bytes'] < found['parameters'] * 4 / 3
  assert 0 < found['mfu'] <= 1 and found['step_seconds'] > 0 and found['compile_seconds'] > 0
  assert found['flops_per_step'] > 6 * 8 * 16 * 32 * 128
  assert {'kind', 'axes', 'count', 'bytes', 'async'} == set(found['collectives'][0])
  assert found['days'] == pytest.approx(150 * found['step_seconds'] / 86_400)
  assert found['chip_hours'] == pytest.approx(found['days'] * 24 * 4)


@pytest.mark.slow
def test_a_masked_lm_is_planned_with_the_logits_that_its_run_computes(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(environment, 'prepare', lambda flags: None)
  built = []

  class Stop(Exception):
    pass

  def planner(learner, *rest, **options):
    built.append((learner.max_predictions, options))
    raise Stop

  def trainer(learner, *rest, **options):
    built.append((learner.max_predictions, options))
    raise Stop

  monkeypatch.setattr(runs_plan, 'Planner', planner)
  monkeypatch.setattr(runs_train, 'Trainer', trainer)
  words = ['--gin_file=bert_tiny.gin', '--gin.OFFLOAD_OPTIMIZER=True']
  for module in (plan, train):
    with pytest.raises(Stop):
      module.main(['prog', *words])
  (planned, of_plan), (trained, of_run) = built
  assert planned == trained and 0 < planned < 128
  assert of_plan['offload_optimizer'] is True and of_run['offload_optimizer'] is True


def test_a_search_prints_a_table_and_the_flags_of_the_best(run):
  code, out, err = run('--topology=cpu:2', '--search', '--search_compile=1')
  assert code == 0 and 'compiling' in err
  assert '1 ' in out and 'yes (compiled)' in out and '(estimated)' in out
  assert 'for the first: --gin.MeshShape.data=' in out


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--topology=v5f:4x4'], "error: --topology=v5f:4x4: unknown chip 'v5f': did you mean 'v5"),
    (['--topology=v5e:4x4x4'], 'v5e is a torus of 2 axes'),
    (['--topology=cpu:800'], 'there are 8 devices here'),
    (['--topology=gpu'], 'there is no GPU here'),
    (['--topology=cpu:3'], 'batch of 8 rows does not divide over data=3'),
    (['--step=trian'], 'trian'),
    (['--search', '--step=eval', '--topology=cpu:2'], '--search ranks training steps'),
    (['--topolgy=cpu:2'], "did you mean '--topology'"),
    (['--topology=cpu:2', '--num_cpu_devices=8'], 'expected one'),
  ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(run, arguments, message):
  code, out, err = run(*arguments)
  assert (code, out) == (2, '')
  assert err.startswith('error: ') and err.count('\n') == 1 and message in err


def test_without_the_tpu_compiler_it_says_what_to_install(run, monkeypatch):
  from jax.experimental import topologies

  def missing(**options):
    raise RuntimeError("Unable to initialize backend 'tpu': module not found: libtpu")

  monkeypatch.setattr(topologies, 'get_topology_desc', missing)
  for name in ('TPU_SKIP_MDS_QUERY', 'ALLOW_MULTIPLE_LIBTPU_LOAD', 'TPU_WORKER_HOSTNAMES', 'TPU_ACCELERATOR_TYPE'):
    monkeypatch.setenv(name, os.environ.get(name, '1'))
  code, _, err = run('--topology=v5e:2x4')
  assert code == 2 and err.count('\n') == 1
  assert 'pip install "t5x_lite[tpu]"' in err and chips.is_tpu('v5e:2x4')
