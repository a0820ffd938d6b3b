"""Finds out whether this process is one of several, from flags, the environment's variables or the scheduler."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from t5x_lite.cli.arguments import FlagValues
from t5x_lite.core import errors

AUTO, OFF = 'auto', 'off'

_FLAGS = ('coordinator_address', 'num_processes', 'process_id')
_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
_NO_DETECTION = 'deactivate'


@dataclasses.dataclass(frozen=True)
class Cluster:
  """How the processes of one run find each other; the arguments of `jax.distributed.initialize`.

  Attributes:
    name: what said that there are several, for messages.
    coordinator_address: `HOST:PORT` of process 0; None where JAX finds it out, as the next two.
    num_processes: how many there are.
    process_id: which of them this one is, from 0.
    cluster_detection_method: of JAX, for what is None here.
    local_device_ids: devices of this host that are this process's; empty: all of them. None: as JAX has it, which is
      one for each process where a scheduler has started several on a host with GPUs.
  """

  name: str
  coordinator_address: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  cluster_detection_method: str | None = _NO_DETECTION
  local_device_ids: tuple[int, ...] | None = None


def find(flags: FlagValues, environment: Mapping[str, str], on_tpu_vm: Callable[[], bool]) -> Cluster | None:
  """The cluster that this process belongs to; None where it is alone.

  Flags win over `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, and those over the scheduler. What
  they leave open comes from it: Slurm (started by srun), Open MPI (mpirun), a TPU slice, or an Indexed Job of
  Kubernetes.

  Args:
    flags: of the command.
    environment: variables, as `os.environ`.
    on_tpu_vm: whether this is a host of a TPU slice that only its metadata server knows about.

  Raises:
    UsageError: part of what is needed is missing, or does not go together.
  """
  given = _given(flags, environment)
  if flags.distributed == OFF:
    if asked(flags):
      raise errors.UsageError(f'--distributed=off does not go with --{", --".join(_FLAGS)}')
    return None
  told = _slurm(environment) or _open_mpi(environment) or _tpu(environment, on_tpu_vm) or _kubernetes(environment)
  if not any(value is not None for value in given.values()):
    return None if told is None else _checked(told)
  known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
  return _checked(dataclasses.replace(told or Cluster('flags'), **known))


def asked(flags: FlagValues) -> bool:
  """Whether flags speak of several processes."""
  return any(getattr(flags, name) is not None for name in _FLAGS)


def _given(flags: FlagValues, environment: Mapping[str, str]) -> dict[str, str | int | None]:
  """What flags or, failing them, JAX's variables say."""
  given: dict[str, str | int | None] = {}
  for name, variable in zip(_FLAGS, _VARIABLES, strict=True):
    value = getattr(flags, name)
    if value is None and environment.get(variable) and flags.distributed != OFF:
      value = environment[variable] if name == _FLAGS[0] else _number(environment, variable)
    given[name] = value
  return given


def _checked(cluster: Cluster) -> Cluster:
  """The cluster, if nothing is missing; JAX need find out nothing where all is known."""
  values = [getattr(cluster, name) for name in _FLAGS]
  missing = [name for name, value in zip(_FLAGS, values, strict=True) if value is None]
  if missing and cluster.cluster_detection_method == _NO_DETECTION:
    raise errors.UsageError(_missing(cluster, missing))
  address, processes, process = values
  if processes is not None and process is not None and process >= processes:
    raise errors.UsageError(f'process_id={process}: expected less than num_processes={processes}')
  if address is not None:
    host, _, port = address.rpartition(':')
    if not (host and port.isdigit() and 0 < int(port) < 2**16):
      raise errors.UsageError(f'coordinator_address={address}: expected HOST:PORT')
  return cluster


def _missing(cluster: Cluster, names: list[str]) -> str:
  wanted = ', '.join(
    f'--{name} ({variable})' for name, variable in zip(_FLAGS, _VARIABLES, strict=True) if name in names
  )
  if cluster.name == 'flags':
    return f'several processes need all of --{", --".join(_FLAGS)}: missing {wanted}; --distributed=off runs one alone'
  return f'{cluster.name} says that this is one of several processes, but not all about them: missing {wanted}'


def _number(environment: Mapping[str, str], variable: str) -> int:
  text = environment[variable]
  if not text.isdigit():
    raise errors.UsageError(f'{variable}={text}: expected a whole number')
  return int(text)


def _slurm(environment: Mapping[str, str]) -> Cluster | None:
  """Of a task that srun started; a batch script's own commands run alone, whatever was allocated."""
  names = ('SLURM_PROCID', 'SLURM_STEP_NODELIST', 'SLURM_LOCALID')
  if 'SLURM_JOB_ID' not in environment or 'SLURM_STEP_ID' not in environment:
    return None
  count = next((name for name in ('SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS') if name in environment), None)
  if count is None or _number(environment, count) < 2:
    return None
  missing = [name for name in names if name not in environment]
  if missing:
    raise errors.UsageError(f'Slurm has started several tasks, but their environment lacks {", ".join(missing)}')
  tasks = _number(environment, count)
  alone = tasks == (_number(environment, 'SLURM_STEP_NUM_NODES') if 'SLURM_STEP_NUM_NODES' in environment else 0)
  return Cluster(
    'Slurm',
    num_processes=tasks,
    process_id=_number(environment, 'SLURM_PROCID'),
    cluster_detection_method='slurm',
    local_device_ids=() if alone else None,
  )


def _open_mpi(environment: Mapping[str, str]) -> Cluster | None:
  """Of a process that mpirun started. Open MPI 5 does not say where process 0 is; 4 does."""
  if 'OMPI_COMM_WORLD_SIZE' not in environment or _number(environment, 'OMPI_COMM_WORLD_SIZE') < 2:
    return None
  return Cluster(
    'Open MPI',
    num_processes=_number(environment, 'OMPI_COMM_WORLD_SIZE'),
    process_id=_number(environment, 'OMPI_COMM_WORLD_RANK') if 'OMPI_COMM_WORLD_RANK' in environment else None,
    cluster_detection_method='ompi' if 'OMPI_MCA_orte_hnp_uri' in environment else _NO_DETECTION,
    local_device_ids=_local_devices(environment),
  )


def _local_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
  """All of a host for a process that is alone on it, else one for each: JAX knows only where it detects itself."""
  if environment.get('OMPI_COMM_WORLD_LOCAL_SIZE') == '1':
    return ()
  rank = environment.get('OMPI_COMM_WORLD_LOCAL_RANK', '')
  return (int(rank),) if rank.isdecimal() else None


def _tpu(environment: Mapping[str, str], on_tpu_vm: Callable[[], bool]) -> Cluster | None:
  """Of a host of a slice: JAX asks the variables that GKE sets, or the metadata server."""
  platforms = environment.get('JAX_PLATFORMS', '')
  if platforms and 'tpu' not in platforms.split(','):
    return None
  if _is_only_host(environment):
    return None
  if _tpu_hosts(environment) or _has_slices(environment):
    return Cluster('TPU', cluster_detection_method=None)
  return Cluster('TPU', cluster_detection_method=None) if on_tpu_vm() else None


def _tpu_hosts(environment: Mapping[str, str]) -> str:
  return environment.get('TPU_PROCESS_ADDRESSES') or environment.get('TPU_WORKER_HOSTNAMES') or ''


def _has_slices(environment: Mapping[str, str]) -> bool:
  return environment.get('MEGASCALE_NUM_SLICES', '1') not in ('', '1')


def _is_only_host(environment: Mapping[str, str]) -> bool:
  """Whether a host of a TPU slice knows that it is the only one, as GKE says it."""
  hosts = _tpu_hosts(environment)
  return bool(hosts) and ',' not in hosts and not _has_slices(environment)


def _kubernetes(environment: Mapping[str, str]) -> Cluster | None:
  """Of a pod of an Indexed Job. Without JAX's variables it must ask the API, with a package of its own."""
  if 'KUBERNETES_SERVICE_HOST' not in environment or 'JOB_COMPLETION_INDEX' not in environment:
    return None
  if _is_only_host(environment):
    return None
  if all(environment.get(variable) for variable in _VARIABLES[:2]):
    return Cluster('Kubernetes', process_id=_number(environment, 'JOB_COMPLETION_INDEX'))
  if importlib.util.find_spec('kubernetes') is not None:
    return Cluster('Kubernetes', cluster_detection_method=None)
  raise errors.UsageError(
    f'this is a pod of an Indexed Job: expected {_VARIABLES[0]} and {_VARIABLES[1]} in its environment, or the package '
    'kubernetes (pip install "jax[k8s]"); --distributed=off runs one pod alone'
  )
