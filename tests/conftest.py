"""Eight CPU devices and strict dtype promotion for every test; a cache folder that no test shares with the user."""

import gc
import os
import pathlib
import signal
from collections.abc import Callable

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile a thousand small programs and run each once: less optimisation is less time.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true')

import jax

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')

# Programs and their traces live as long as the process: to go through them all again and again finds next to nothing.
gc.set_threshold(20_000, 20, 20)

# Started in the background by a script, this process ignores Ctrl-C, and the tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session', autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """One cache for all workers of a session and the processes that tests start; `T5X_LITE_TEST_CACHE` names one to keep.

  The embedded corpus and its vocabularies are built once, and what many tests or processes compile is compiled once. A
  test that looks at the cache has one of its own.
  """
  base = tmp_path_factory.getbasetemp()
  session = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
  folder = pathlib.Path(os.environ.get('T5X_LITE_TEST_CACHE') or session / 'cache')
  os.environ['T5X_LITE_CACHE'] = str(folder)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'xla')
  jax.config.update('jax_compilation_cache_dir', str(folder / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  return folder


@pytest.fixture(scope='session')
def tpu_devices() -> Callable[..., list[jax.Device]]:
  """`tpu_devices('v5e:4x4', num_slices=1)`: devices that are not there, as the TPU compiler describes them.

  Skips the test where the extra `tpu` is not installed.
  """
  pytest.importorskip('libtpu')
  # There is no TPU whose metadata could be asked, and none that two processes could fight over.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  from jax.experimental import topologies

  def devices(name: str, num_slices: int = 1) -> list[jax.Device]:
    # The two cores of a v4 chip work as one device, as they do at run time.
    more = {'chip_config_name': 'megacore'} if name.startswith('v4') else {}
    more |= {'num_slices': num_slices} if num_slices > 1 else {}
    return list(topologies.get_topology_desc(name, 'tpu', **more).devices)

  return devices
