"""The launch files, as far as they can be checked without their schedulers: they parse, and fit our command."""

from __future__ import annotations

import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from t5x_lite.cli import arguments, cluster, ginfiles

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments' / 'launch'
SCRIPTS = sorted([*FOLDER.glob('*.sh'), *FOLDER.glob('*.sbatch')])
MANIFESTS = sorted(FOLDER.glob('*.yaml'))


def load(path):
  return pytest.importorskip('yaml').safe_load(path.read_text())


def job_of(manifest):
  (replicated,) = manifest['spec']['replicatedJobs']
  return replicated, replicated['template']['spec']


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_say_how_to_be_called(path):
  assert subprocess.run(['bash', '-n', path], capture_output=True).stderr == b''
  head = path.read_text().split('\n\n')[0]
  assert f'experiments/launch/{path.name}' in head
  if shutil.which('shellcheck'):
    assert subprocess.run(['shellcheck', path], capture_output=True, text=True).stdout == ''


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_no_script_starts_again_what_starting_again_cannot_mend(path):
  text = path.read_text()
  if 'restart' in text and 'xpk' not in path.name:
    assert re.search(r'0 \| 2 \| 3|0\) exit 0.*\n *2 \| 3\)', text)


@pytest.mark.parametrize('path', [*SCRIPTS, *MANIFESTS], ids=lambda path: path.name)
def test_gin_files_and_flags_exist(path):
  """Those of the commands in the heads and of the pods: a renamed file or flag must be renamed here, too."""
  words = [word.strip('"\'') for word in re.findall(r'--(?:gin_file|gin\.\w+)=[^\s\\]+', path.read_text())]
  assert words
  parsed = arguments.parse(['prog', *words])
  reader = ginfiles.GinFiles(())
  for name in parsed.gin_files:
    assert list(reader.read(name)), name


@pytest.mark.parametrize('path', MANIFESTS, ids=lambda path: path.name)
def test_manifests_restart_the_whole_run_unless_it_is_hopeless(path):
  manifest = load(path)
  assert (manifest['apiVersion'], manifest['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  _, job = job_of(manifest)
  assert job['parallelism'] == job['completions'] and job['completionMode'] == 'Indexed' and job['backoffLimit'] == 0
  assert manifest['spec']['failurePolicy']['maxRestarts'] > 0
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [2, 3]
  (container,) = job['template']['spec']['containers']
  assert rule['onExitCodes']['containerName'] == container['name']
  volumes = {volume['name'] for volume in job['template']['spec']['volumes']}
  assert {mount['name'] for mount in container['volumeMounts']} <= volumes


def test_the_pods_of_the_gpu_manifest_find_each_other():
  """JobSet names pods <set>-<job>-<job number>-<pod number>, in a domain named after the set."""
  manifest = load(FOLDER / 'jobset_gpu.yaml')
  replicated, job = job_of(manifest)
  (container,) = job['template']['spec']['containers']
  variables = {variable['name']: variable['value'] for variable in container['env']}
  name = manifest['metadata']['name']
  pod = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '1'}
  found = cluster.find(arguments.parse(['prog']).flags, pod | variables, lambda: False)
  port = container['ports'][0]['containerPort']
  assert found.coordinator_address == f'{name}-{replicated["name"]}-0-0.{name}:{port}'
  assert (found.num_processes, found.process_id) == (job['parallelism'], 1)
  assert container['command'] == shlex.split('python -m t5x_lite.train')


def test_the_table_of_the_readme_names_every_file():
  listed = set(re.findall(r'^\| `([^`]+)`', (FOLDER / 'README.md').read_text(), re.MULTILINE))
  assert {path.name for path in FOLDER.iterdir() if path.suffix not in ('.md', '.py')} <= listed
