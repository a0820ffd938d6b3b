"""How a process finds out that it is one of several: from flags, variables and schedulers, whole or told what lacks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from t5x_lite.cli import arguments, cluster
from t5x_lite.core import errors

SLURM = {
  'SLURM_JOB_ID': '71', 'SLURM_STEP_ID': '0', 'SLURM_STEP_NODELIST': 'node[01-02]', 'SLURM_STEP_NUM_TASKS': '16',
  'SLURM_STEP_NUM_NODES': '2', 'SLURM_NTASKS': '16', 'SLURM_PROCID': '9', 'SLURM_LOCALID': '1',
}  # fmt: skip
MPI_4 = {
  'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
  'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911',
}  # fmt: skip
MPI_5 = {name: value for name, value in MPI_4.items() if name != 'OMPI_MCA_orte_hnp_uri'}
POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '1'}
VARIABLES = {'JAX_COORDINATOR_ADDRESS': 'head:8476', 'JAX_NUM_PROCESSES': '2'}


def find(environment, *flags, tpu_vm=False):
  return cluster.find(arguments.parse(['prog', *flags]).flags, environment, lambda: tpu_vm)


@pytest.mark.parametrize(
  'environment',
  [
    {},
    {'SLURM_JOB_ID': '71', 'SLURM_NTASKS': '16'},  # A batch script's own command.
    SLURM | {'SLURM_STEP_NUM_TASKS': '1'},
    MPI_4 | {'OMPI_COMM_WORLD_SIZE': '1'},
    {'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'},
    {'KUBERNETES_SERVICE_HOST': '10.0.0.1'},  # A pod of no Indexed Job.
  ],
)
def test_a_process_alone_stays_alone(environment):
  assert find(environment) is None


def test_flags_win_over_variables_and_both_over_the_scheduler():
  flags = ('--coordinator_address=a:1', '--num_processes=3', '--process_id=2')
  given = cluster.Cluster('flags', 'a:1', 3, 2)
  assert find({}, *flags) == given
  assert find(VARIABLES | {'JAX_PROCESS_ID': '0'}, *flags) == given
  assert find(VARIABLES, '--process_id=1') == cluster.Cluster('flags', 'head:8476', 2, 1)
  slurm = find(SLURM, '--coordinator_address=a:1')
  assert (slurm.name, slurm.coordinator_address, slurm.process_id) == ('Slurm', 'a:1', 9)


def test_slurm_and_open_mpi_are_left_to_jax_with_all_devices_for_the_only_process_of_a_host():
  assert find(SLURM) == cluster.Cluster('Slurm', None, 16, 9, 'slurm', None)
  assert find(SLURM | {'SLURM_STEP_NUM_NODES': '16'}).local_device_ids == ()
  assert find(MPI_4) == cluster.Cluster('Open MPI', None, 4, 3, 'ompi', None)
  assert find(MPI_4 | {'OMPI_COMM_WORLD_LOCAL_SIZE': '1'}).local_device_ids == ()
  # Where JAX detects nothing itself, as of Open MPI 5, the process that shares its host takes its own device.
  assert find(MPI_5 | {'JAX_COORDINATOR_ADDRESS': 'a:1', 'OMPI_COMM_WORLD_LOCAL_RANK': '1'}).local_device_ids == (1,)
  assert find(MPI_5, '--coordinator_address=a:1') == cluster.Cluster('Open MPI', 'a:1', 4, 3, 'deactivate', None)


def test_pods_and_tpu_hosts():
  only = {'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'}
  assert find(POD | only) is None  # a Job of one pod, as xpk makes it for one host
  assert find(POD | only | {'MEGASCALE_NUM_SLICES': '2'}).name == 'TPU'
  assert find(POD | VARIABLES) == cluster.Cluster('Kubernetes', 'head:8476', 2, 1)
  hosts = {'TPU_WORKER_HOSTNAMES': 'a,b', 'TPU_WORKER_ID': '0'}
  assert find(hosts | POD).name == 'TPU' and find(hosts).cluster_detection_method is None
  assert find({'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_NUM_SLICES': '2'}).name == 'TPU'
  assert find({}, tpu_vm=True).name == 'TPU'
  assert find({'JAX_PLATFORMS': 'cpu'}, tpu_vm=True) is None


@pytest.mark.parametrize('environment', [SLURM, MPI_4, POD, VARIABLES])
def test_it_can_be_switched_off(environment):
  assert find(environment, '--distributed=off') is None
  with pytest.raises(errors.UsageError, match='does not go with'):
    find(environment, '--distributed=off', '--num_processes=2')


@pytest.mark.parametrize(
  ('environment', 'told'),
  [
    (VARIABLES, r'missing --process_id \(JAX_PROCESS_ID\)'),
    (VARIABLES | {'JAX_PROCESS_ID': 'two'}, 'JAX_PROCESS_ID=two: expected a whole number'),
    ({name: SLURM[name] for name in SLURM if name != 'SLURM_PROCID'}, 'Slurm .* lacks SLURM_PROCID'),
    (MPI_5, r'Open MPI says .* missing --coordinator_address \(JAX_COORDINATOR_ADDRESS\)'),
    (POD | {'JAX_NUM_PROCESSES': '2'}, 'expected JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES'),
    (VARIABLES | {'JAX_COORDINATOR_ADDRESS': 'head:x', 'JAX_PROCESS_ID': '0'}, 'expected HOST:PORT'),
    (VARIABLES | {'JAX_PROCESS_ID': '2'}, 'process_id=2: expected less than num_processes=2'),
  ],
)
def test_what_is_incomplete_is_refused_in_one_line(environment, told):
  with pytest.raises(errors.UsageError, match=told) as raised:
    find(environment)
  assert '\n' not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize('process', [0, 1])
def test_a_process_that_waits_in_vain_for_the_others_says_where_and_ends(process):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  flags = [
    f'--coordinator_address={address}',
    '--num_processes=2',
    f'--process_id={process}',
    '--coordinator_timeout=3',
  ]
  args = [sys.executable, '-m', 't5x_lite.train', '--gin_file=t5_tiny.gin', '--dry_run', *flags]
  done = subprocess.run(args, capture_output=True, text=True, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, timeout=90)
  assert done.returncode == errors.LOST, done.stderr
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'error: process {process} of 2: ') and address in line and 'within 3 s' in line
  assert ('no coordinator' in line) == (process == 1)
