"""Eight CPU devices and strict dtype promotion for every test; a cache folder that no test shares with the user."""

import os
import pathlib
import signal

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests compile a thousand small programs and run each once: less optimisation is less time.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true')

import jax

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')

# Started in the background by a script, this process ignores Ctrl-C, and the tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session', autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """One cache for the whole session, so that the embedded corpus is built once."""
  folder = tmp_path_factory.mktemp('cache')
  os.environ['T5X_LITE_CACHE'] = str(folder)
  return folder
